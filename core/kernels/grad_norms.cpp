#include "core/kernels/grad_norms.hpp"

#include <algorithm>
#include <cstring>

#include "core/kernels/conv_checks.hpp"
#include "core/kernels/conv_plan.hpp"
#include "core/kernels/conv_scratch.hpp"
#include "core/kernels/gemm.hpp"
#include "core/kernels/product_sum.hpp"
#include "core/parallel.hpp"

namespace goshawk::kernels {
namespace {

using Index = std::int64_t;
constexpr Index kMaxGramPositions = 1024;  // two matrices of this order must fit the second-level cache or so

struct Patches {
  Index h, w, ci, kh, kw, oh, ow;
  ConvParams params;

  Index positions() const { return oh * ow; }
  Index elements() const { return kh * kw * ci; }
  bool whole_image() const {
    return kh == 1 && kw == 1 && params.stride_h == 1 && params.stride_w == 1 && params.pad_h == 0 &&
           params.pad_w == 0;
  }
};

/// What each output position of one image sees: [positions, elements].
template <class T>
void copy_patches(const Patches& p, const T* image, T* to) {
  for (Index oy = 0; oy < p.oh; ++oy) {
    for (Index ox = 0; ox < p.ow; ++ox) {
      for (Index ky = 0; ky < p.kh; ++ky) {
        const Index y = oy * p.params.stride_h + ky - p.params.pad_h;
        for (Index kx = 0; kx < p.kw; ++kx, to += p.ci) {
          const Index x = ox * p.params.stride_w + kx - p.params.pad_w;
          if (y < 0 || y >= p.h || x < 0 || x >= p.w) {
            std::fill(to, to + p.ci, T{0});
          } else {
            std::copy_n(image + (y * p.w + x) * p.ci, p.ci, to);
          }
        }
      }
    }
  }
}

struct NormScratch {
  simd::Scratch patches, input_gram, gradient_gram;
};
NormScratch& norm_scratch() {
  thread_local NormScratch scratch;
  return scratch;
}

bool gram_is_cheaper(const Patches& p, Index co, Index directions) {
  const Index positions = p.positions(), elements = p.elements();
  return positions <= kMaxGramPositions &&
         positions * positions * (elements + directions * co) < directions * positions * elements * co;
}

template <class T>
void gram_norms(const Patches& p, Index co, const T* x, std::span<const Tensor> gys, Index image,
                Index images, double* norms) {
  const Index positions = p.positions();
  NormScratch& scratch = norm_scratch();
  const T* patches = x + image * p.h * p.w * p.ci;
  if (!p.whole_image()) {
    T* const copy = scratch.patches.get<T>(positions * p.elements());
    copy_patches(p, patches, copy);
    patches = copy;
  }
  T* const input_gram = scratch.input_gram.get<T>(positions * positions);
  T* const gradient_gram = scratch.gradient_gram.get<T>(positions * positions);
  gram_task(patches, positions, p.elements(), input_gram);
  for (std::size_t d = 0; d < gys.size(); ++d) {
    if (!gys[d].defined()) continue;
    gram_task(gys[d].data<T>() + image * positions * co, positions, co, gradient_gram);
    // Rounding may leave the norm of a gradient that cancels out a little below zero. (std::max would make a
    // zero of NaN too.)
    const double norm = product_sum(input_gram, gradient_gram, positions * positions);
    norms[static_cast<Index>(d) * images + image] = norm < 0 ? 0 : norm;
  }
}

template <class T>
void direct_norms(const simd::WeightGrad& grad, const T* x, std::span<const Tensor> gys, Index image,
                  double* norms) {
  const Index size = grad.kernel_rows * grad.kernel_columns * grad.channels * grad.padded_outputs;
  T* const sums = norm_scratch().gradient_gram.get<T>(size);
  for (std::size_t d = 0; d < gys.size(); ++d) {
    if (!gys[d].defined()) continue;
    simd::weight_grad(grad, x, gys[d].data<T>(), sums, image * grad.row_groups, (image + 1) * grad.row_groups,
                      0, 1);
    // The padding of the outputs is zero.
    norms[static_cast<Index>(d) * grad.images + image] = product_sum(sums, sums, size);
  }
}

/// Grouped convolutions: the ordinary weight gradient of one image at a time.
void grouped_norms(const Tensor& x, const Tensor& gy, const Shape& w_shape, const ConvParams& params,
                   double* norms) {
  parallel_for(x.dim(0), 1, [&](Index begin, Index end) {
    for (Index n = begin; n < end; ++n) {
      const Tensor gw = conv2d_weight_grad(rows(x, n, n + 1), rows(gy, n, n + 1), w_shape, params);
      norms[n] = sample_norms(gw.reshape({1, gw.numel()})).item();
    }
  });
}

}  // namespace

Tensor conv2d_weight_grad_norms(const Tensor& x, std::span<const Tensor> gys, const Shape& w_shape,
                                const ConvParams& params, GradNormForm form) {
  constexpr std::string_view op = "conv2d_weight_grad_norms";
  check_dtypes(x, x, op);
  const Shape y_shape = checked_output_shape(x.shape(), w_shape, params, op);
  for (const Tensor& gy : gys) {
    if (!gy.defined()) continue;
    check_dtypes(x, gy, op);
    check_output_grad(gy, y_shape, op);
  }
  const auto directions = static_cast<Index>(gys.size());
  const Index images = x.dim(0), co = w_shape[3];
  Tensor norms = Tensor::zeros({directions, images}, DType::f64);
  if (y_shape.numel() == 0 || w_shape.numel() == 0 || directions == 0) return norms;
  if (params.groups > 1) {
    for (Index d = 0; d < directions; ++d) {
      const Tensor& gy = gys[static_cast<std::size_t>(d)];
      if (gy.defined()) grouped_norms(x, gy, w_shape, params, norms.data<double>() + d * images);
    }
    return norms;
  }
  const Patches patches{x.dim(1), x.dim(2), x.dim(3), w_shape[0], w_shape[1], y_shape[1], y_shape[2], params};
  const bool gram = form == GradNormForm::gram ||
                    (form == GradNormForm::automatic && gram_is_cheaper(patches, co, directions));
  double* const to = norms.data<double>();
  dispatch_floating(x.dtype(), op, [&]<class T>() {
    const simd::WeightGrad grad = plan_weight_grad(x.shape(), w_shape, y_shape, params, x.dtype());
    parallel_for(images, 1, [&](Index begin, Index end) {
      for (Index n = begin; n < end; ++n) {
        if (gram) {
          gram_norms(patches, co, x.data<T>(), gys, n, images, to);
        } else {
          direct_norms(grad, x.data<T>(), gys, n, to);
        }
      }
    });
  });
  return norms;
}

Tensor sample_dots(const Tensor& a, const Tensor& b) {
  check_dtypes(a, b, "sample_dots");
  check(a.ndim() >= 1 && a.shape() == b.shape(),
        "[sample_dots] the tensors are {} and {}; give two of one shape [N, ...]", a.shape(), b.shape());
  const Index samples = a.dim(0), size = samples == 0 ? 0 : a.numel() / samples;
  Tensor dots = Tensor::zeros({samples}, DType::f64);
  double* const to = dots.data<double>();
  dispatch_floating(a.dtype(), "sample_dots", [&]<class T>() {
    const T* const left = a.data<T>();
    const T* const right = b.data<T>();
    parallel_for(samples, row_grain(size), [&](Index begin, Index end) {
      for (Index n = begin; n < end; ++n) {
        to[n] = product_sum(left + n * size, right + n * size, size);
      }
    });
  });
  return dots;
}

Tensor sample_norms(const Tensor& x) {
  return sample_dots(x, x);
}

Tensor linear_weight_grad_norms(const Tensor& x, std::span<const Tensor> gys) {
  check(x.defined() && x.ndim() == 2, "[linear_weight_grad_norms] the input must be [N, Ci]");
  const Index samples = x.dim(0);
  Tensor norms = Tensor::zeros({static_cast<Index>(gys.size()), samples}, DType::f64);
  const Tensor inputs = sample_norms(x);
  for (std::size_t d = 0; d < gys.size(); ++d) {
    if (!gys[d].defined()) continue;
    check_dtypes(x, gys[d], "linear_weight_grad_norms");
    check(gys[d].ndim() == 2 && gys[d].dim(0) == samples,
          "[linear_weight_grad_norms] the input is {} but gradient {} of the output is {}; give [N, Ci] and "
          "[N, "
          "Co]",
          x.shape(), d, gys[d].shape());
    const Tensor outputs = sample_norms(gys[d]);
    double* const to = norms.data<double>() + static_cast<Index>(d) * samples;
    for (Index n = 0; n < samples; ++n) to[n] = inputs.data<double>()[n] * outputs.data<double>()[n];
  }
  return norms;
}

namespace reference {

Tensor conv2d_weight_grad_norms(const Tensor& x, const Tensor& gy, const Shape& w_shape,
                                const ConvParams& params) {
  Tensor norms = Tensor::empty({x.dim(0)}, DType::f64);
  for (Index n = 0; n < x.dim(0); ++n) {
    const Tensor gw = reference::conv2d_weight_grad(rows(x, n, n + 1).to(DType::f64),
                                                    rows(gy, n, n + 1).to(DType::f64), w_shape, params);
    double sum = 0;
    for (double v : gw.span<double>()) sum += v * v;
    norms.data<double>()[n] = sum;
  }
  return norms;
}

}  // namespace reference
}  // namespace goshawk::kernels
