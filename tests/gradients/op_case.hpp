// The table of ops under derivative test. Each case names the op it proves; the coverage gate fails for any
// registered op without one.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "autograd/gradcheck.hpp"
#include "core/random.hpp"

namespace goshawk::test {

struct OpCase {
  std::string op;     ///< as registered
  CheckedFunction f;  ///< must have that op in its graph
  std::vector<Tensor> inputs;
  /// For ops of OpKind::surrogate: what the derivative is of.
  CheckedFunction surrogate = nullptr;
};

inline std::vector<OpCase>& op_cases() {
  static std::vector<OpCase> cases;
  return cases;
}

/// Enters cases into the table from a file's static initialisation.
struct AddCases {
  explicit AddCases(std::vector<OpCase> cases) {
    for (OpCase& c : cases) op_cases().push_back(std::move(c));
  }
};

/// f64 normal numbers that depend only on shape and seed.
inline Tensor normal(const Shape& shape, std::uint64_t seed = 1) {
  Random random(seed, 77);
  return random_normal(shape, DType::f64, random);
}
/// Uniform in [low, high).
inline Tensor uniform(const Shape& shape, double low, double high, std::uint64_t seed = 1) {
  Random random(seed, 78);
  return random_uniform(shape, DType::f64, random, low, high);
}

}  // namespace goshawk::test
