// Vectors made of one tensor per parameter block, and the little linear algebra that curvature algorithms
// need.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/random.hpp"
#include "core/tensor.hpp"

namespace goshawk {

/// The distance from 1 to the next larger number of a floating dtype.
double epsilon(DType dtype);

/// One tensor per block, all of one dtype (f32 or f64). The norm is that of the blocks laid end to end.
using Vector = std::vector<Tensor>;

/// ⟨a_i, b_i⟩ of two tensors of one shape and dtype, accumulated in f64 in an order that is fixed by the
/// number of elements alone.
double block_dot(const Tensor& a, const Tensor& b);
/// ⟨a, b⟩ over all blocks. Throws Error unless both have the same blocks.
double dot(const Vector& a, const Vector& b);
/// √⟨a, a⟩
double norm(const Vector& a);
/// y ← y + factor · x, in place: every handle on y's tensors sees it.
void axpy(double factor, const Vector& x, const Vector& y);
/// x ← factor · x, in place.
void rescale(const Vector& x, double factor);
/// v ← (I − Q Qᵀ) v, in place, for the orthonormal vectors Q of `basis` (modified Gram–Schmidt). Twice,
/// because once leaves behind what rounding lost (Giraud, Langou & Rozložník, "The loss of orthogonality in
/// the Gram–Schmidt orthogonalization process", 2005). Returns what was taken out: Qᵀ v.
std::vector<double> project_out(const Vector& v, std::span<const Vector> basis);
/// Makes v orthogonal to the orthonormal `basis` and of length 1, in place. Returns the length it had before
/// that, beside the basis; 0, with v of no use, when nothing was left of it but rounding errors.
double orthonormalise(const Vector& v, std::span<const Vector> basis);
/// New tensors with the elements of x.
Vector clone(const Vector& x);

/// The first element that is NaN or infinite, in words ("element 3 of block 1 is nan"); nothing when all are
/// finite. An undefined block counts as zeros.
std::optional<std::string> find_non_finite(const Vector& x);

/// Zeros in the given blocks.
Vector zero_vector(std::span<const Shape> shapes, DType dtype);
/// Independent N(0, 1) elements, drawn from `random` block after block.
Vector normal_vector(std::span<const Shape> shapes, DType dtype, Random& random);
/// Independent elements −1 or +1 with equal probability, drawn from `random` block after block.
Vector rademacher_vector(std::span<const Shape> shapes, DType dtype, Random& random);

}  // namespace goshawk
