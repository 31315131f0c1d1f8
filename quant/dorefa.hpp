// The weight normalisation of DoReFa-Net (Zhou et al. 2016, arXiv:1606.06160).
#pragma once

#include "autograd/variable.hpp"

namespace goshawk {

/// tanh(w)/max|tanh w|, the shape of w, in [−1, 1]: DoReFa-Net's 2·(tanh(w)/(2·max|tanh w|) + ½) − 1 before
/// it is rounded. Differentiable through the maximum too, whose place is a constant choice (the first of
/// equals). Weights that are zero everywhere stay zero.
Variable dorefa_normalize(const Variable& w);

}  // namespace goshawk
