// The budgets of goshawk allocate and quantize.
#pragma once

#include <optional>

#include "apps/support/command_line.hpp"
#include "core/error.hpp"
#include "quant/cost_allocation.hpp"

namespace goshawk {

struct BudgetOptions {
  std::optional<double> ratio, bytes, bops, latency_ms;

  /// add(NAME, member, help, type name) declares an option and returns it.
  template <class Add>
  void add_to(Add add) {
    const CLI::Validator positive = positive_number();
    add("budget-ratio", ratio, "At most 1/R of the 32-bit weights' bytes", "R").check(positive);
    add("budget-bytes", bytes, "At most so many bytes of weights", "N").check(positive);
    add("budget-bops", bops, "At most so many bit operations of one picture", "N").check(positive);
    add("budget-latency", latency_ms,
        "At most so many milliseconds, by the choices' latency_ms; two budgets may be given together", "MS")
        .check(positive);
  }

  /// Throws UsageError unless they are one or two, and of different things.
  void check() const {
    if (ratio && bytes) {
      throw UsageError("--budget-ratio and --budget-bytes both limit the bytes; give one of them");
    }
    const int count = int{ratio || bytes} + int{bops.has_value()} + int{latency_ms.has_value()};
    if (count == 0) {
      throw UsageError(
          "there is no budget; give --budget-ratio, --budget-bytes, --budget-bops or --budget-latency");
    }
    if (count > 2) throw UsageError("three budgets at once are too many; give one or two");
  }

  AllocationBudgets of(const Costs& costs) const {
    return {.bytes = ratio ? full_precision_bytes(costs) / *ratio : bytes,
            .bops = bops,
            .latency_ms = latency_ms};
  }
};

}  // namespace goshawk
