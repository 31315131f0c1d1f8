#include "autograd/ops.hpp"
#include "autograd/walk.hpp"
#include "core/kernels/gemm.hpp"

namespace goshawk {
namespace {

const Op& kMatmul = register_op("matmul", Linearity::bilinear);

}  // namespace

Variable matmul(const Variable& a, const Variable& b, bool transpose_a, bool transpose_b) {
  return record(
      kMatmul, {a, b}, kernels::matmul(a.value(), b.value(), transpose_a, transpose_b),
      [a, b, transpose_a, transpose_b](const Backward& d) {
        std::vector<Variable> grads(2);
        // C = op(A) op(B): ∂op(A) = G op(B)ᵀ and ∂op(B) = op(A)ᵀ G, transposed back where op
        // transposes.
        if (d.needs(0)) {
          grads[0] =
              transpose_a ? matmul(b, d.grad(), transpose_b, true) : matmul(d.grad(), b, false, !transpose_b);
        }
        if (d.needs(1)) {
          grads[1] =
              transpose_b ? matmul(d.grad(), a, true, transpose_a) : matmul(a, d.grad(), !transpose_a, false);
        }
        return grads;
      },
      [a, b, transpose_a, transpose_b](const Forward& d) {
        Variable sum;
        if (d.tangent(0).defined()) sum = matmul(d.tangent(0), b, transpose_a, transpose_b);
        if (d.tangent(1).defined()) accumulate(sum, matmul(a, d.tangent(1), transpose_a, transpose_b));
        return std::vector{sum};
      });
}

}  // namespace goshawk
