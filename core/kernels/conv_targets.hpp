// The instruction sets that the convolutions are compiled for. To be included before any Highway header.
#pragma once

// AVX-512, AVX2 and the portable target; the SSE generations in between are not worth their code. The
// register blocks are arrays of vectors, which vectors of unknown size cannot form.
#define HWY_DISABLED_TARGETS \
  (HWY_SSSE3 | HWY_SSE4 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
