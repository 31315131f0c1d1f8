// JVP rules that take several directions at once.
#pragma once

#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "autograd/variable.hpp"

namespace goshawk {

/// A Jvp for ops whose directions have work in common. jvp_many calls it for all directions together; each
/// gets the bits that it would have alone.
class JointJvp {
 public:
  using Tangents = std::vector<Variable>;  // by output
  using Rule = std::function<std::vector<Tangents>(std::span<const Forward>)>;

  explicit JointJvp(Rule rule) : rule_(std::move(rule)) {}

  Tangents operator()(const Forward& direction) const {
    return std::move(rule_(std::span(&direction, 1)).front());
  }
  /// Tangents [direction][output].
  std::vector<Tangents> operator()(std::span<const Forward> directions) const { return rule_(directions); }

 private:
  Rule rule_;
};

}  // namespace goshawk
