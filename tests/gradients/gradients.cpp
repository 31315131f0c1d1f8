#include <algorithm>
#include <doctest/doctest.h>
#include <set>

#include "op_case.hpp"

using namespace goshawk;
using namespace goshawk::test;

TEST_CASE("every op's first and second derivative") {
  for (const OpCase& c : op_cases()) {
    INFO("op ", c.op);
    std::vector<Variable> leaves;
    for (const Tensor& input : c.inputs) leaves.push_back(Variable::leaf(input));
    const auto ops = graph_ops(c.f(leaves));
    CHECK_MESSAGE(std::find(ops.begin(), ops.end(), c.op) != ops.end(), "the case does not use its op");
    if (c.surrogate) {
      const GradcheckResult result = surrogatecheck(c.f, c.surrogate, c.inputs);
      CHECK_MESSAGE(result.ok, result.message);
      continue;
    }
    for (std::uint64_t seed = 0; seed < 3; ++seed) {
      const GradcheckResult first = gradcheck(c.f, c.inputs, {.seed = seed});
      CHECK_MESSAGE(first.ok, first.message);
      const GradcheckResult second = gradgradcheck(c.f, c.inputs, {.seed = seed});
      CHECK_MESSAGE(second.ok, second.message);
    }
  }
}

TEST_CASE("every op's tangents agree with its gradients") {
  for (const OpCase& c : op_cases()) {
    INFO("op ", c.op);
    const GradcheckResult result = jvpcheck(c.f, c.inputs);
    CHECK_MESSAGE(result.ok, result.message);
  }
}

TEST_CASE("coverage gate: every registered op has a derivative test") {
  std::set<std::string> covered;
  for (const OpCase& c : op_cases()) covered.insert(c.op);
  CHECK(registered_ops().size() > 30);
  for (const Op* op : registered_ops()) {
    CHECK_MESSAGE(covered.contains(op->name), "op '", op->name, "' has no case in tests/gradients");
    for (const OpCase& c : op_cases()) {
      if (c.op == op->name) CHECK((op->kind == OpKind::surrogate) == static_cast<bool>(c.surrogate));
    }
  }
}
