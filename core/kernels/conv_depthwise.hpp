// Depthwise convolution, every channel with a kernel of its own: vectors run over the channels.
#pragma once

#include <cstdint>

namespace goshawk::kernels::depthwise {

/// x [n, h, w, c] and weights [kh, kw, c] give y [n, oh, ow, c].
struct Problem {
  std::int64_t n, h, w, c, kh, kw, oh, ow;
  std::int64_t stride_h, stride_w, pad_h, pad_w;
};

// Parallel, with the same bits for any number of threads.

/// y = conv(x, w) + bias, or added to y; bias [c] may be null.
void forward(const Problem& p, const float* x, const float* w, const float* bias, float* y, bool add);
void forward(const Problem& p, const double* x, const double* w, const double* bias, double* y, bool add);
/// gx: the gradient of <gy, y> with respect to x, or added to gx.
void input_grad(const Problem& p, const float* gy, const float* w, float* gx, bool add);
void input_grad(const Problem& p, const double* gy, const double* w, double* gx, bool add);
/// gw [kh, kw, c]: the gradient of <gy, y> with respect to w. Sums of a task's pixels are of the type of x,
/// those over tasks f64.
void weight_grad(const Problem& p, const float* x, const float* gy, float* gw);
void weight_grad(const Problem& p, const double* x, const double* gy, double* gw);

}  // namespace goshawk::kernels::depthwise
