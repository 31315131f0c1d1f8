// Checks of derivatives against central finite differences, for tests and for authors of new ops.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "autograd/variable.hpp"

namespace goshawk {

/// The function under test: any number of f64 inputs to one f64 output of any shape.
using CheckedFunction = std::function<Variable(const std::vector<Variable>&)>;

struct GradcheckOptions {
  double step = 1e-5;       ///< h of (φ(x + h v) − φ(x − h v)) / 2h, relative to inputs of size about 1
  double tolerance = 1e-7;  ///< largest accepted |analytic − numeric| / max(1, |analytic|, |numeric|)
  std::uint64_t seed = 0;   ///< of the random direction v and the random cotangent u
};

struct GradcheckResult {
  bool ok = false;
  double analytic = 0;  ///< ⟨∇φ, v⟩ from the VJP, φ(x) = ⟨u, f(x)⟩
  double numeric = 0;   ///< its central difference
  double error = 0;     ///< |analytic − numeric| / max(1, |analytic|, |numeric|)
  std::string message;  ///< one line that says which check failed and by how much
};

/// First order: one random direction v in all inputs and one random cotangent u.
GradcheckResult gradcheck(const CheckedFunction& f, const std::vector<Tensor>& inputs,
                          const GradcheckOptions& options = {});
/// Second order: gradcheck of (x, u) ↦ ∂⟨u, f(x)⟩/∂x, so with respect to the inputs and to the incoming
/// gradient.
GradcheckResult gradgradcheck(const CheckedFunction& f, const std::vector<Tensor>& inputs,
                              const GradcheckOptions& options = {});
/// Both derivatives of `f` against those of `surrogate` at the same point: for ops whose derivative is, on
/// purpose, that of another function (straight-through estimators).
GradcheckResult surrogatecheck(const CheckedFunction& f, const CheckedFunction& surrogate,
                               const std::vector<Tensor>& inputs, const GradcheckOptions& options = {});

/// Forward against reverse: ⟨u, J v⟩ = ⟨Jᵀ u, v⟩ for f, for its gradient (x, u) ↦ ∂⟨u, f(x)⟩/∂x, and for the
/// gradient of ⟨u, J v⟩ when the tangents are recorded. All inputs move at once, then each alone; all outputs
/// are asked for at once, then each alone. No differences are taken, so `step` is not used and a tolerance of
/// 1e-10 is not too much to ask.
GradcheckResult jvpcheck(const CheckedFunction& f, const std::vector<Tensor>& inputs,
                         const GradcheckOptions& options = {.tolerance = 1e-10});

}  // namespace goshawk
