#include "autograd/curvature/linear_site.hpp"

#include "core/kernels/gemm.hpp"

namespace goshawk {

Tensor linear_output(const LinearSite& site, const Tensor& weight) {
  return site.kind == LinearKind::linear ? kernels::matmul(site.input.value(), weight, false, false)
                                         : kernels::conv2d(site.input.value(), weight, site.params);
}

}  // namespace goshawk
