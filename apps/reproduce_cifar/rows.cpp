#include "apps/reproduce_cifar/rows.hpp"

#include <algorithm>
#include <cctype>

#include "core/error.hpp"
#include "quant/enum_names.hpp"

namespace goshawk {
namespace {

constexpr std::array kGroups = {std::pair(RowGroup::main, std::string_view("main")),
                                std::pair(RowGroup::comparators, std::string_view("comparators")),
                                std::pair(RowGroup::methods, std::string_view("methods")),
                                std::pair(RowGroup::ablations, std::string_view("ablations"))};

bool same(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

Row comparator(const char* name, const char* slug, int weight_bits, int activation_bits,
               const RowQuantizer& quantizer, const PaperRow& paper) {
  return {.name = name,
          .slug = slug,
          .group = RowGroup::comparators,
          .bits = BitsFrom::uniform,
          .weight_bits = weight_bits,
          .activation_bits = activation_bits,
          .edge_bits = 8,
          .quantizer = quantizer,
          .paper = paper};
}

// The search's sizes are those of the paper's rows.
Row dnas(const char* name, const char* slug, const PaperRow& paper) {
  return {.name = name,
          .slug = slug,
          .group = RowGroup::comparators,
          .bits = BitsFrom::dnas,
          .compression = paper.weight_compression,
          .activation_bits = 32,
          .paper = paper};
}

Row from_costs(const char* name, const char* slug, RowGroup group, const char* costs,
               AllocationMethod method) {
  return {.name = name,
          .slug = slug,
          .group = group,
          .bits = BitsFrom::costs,
          .costs = costs,
          .method = method,
          .tuning = Tuning::staged};
}

std::vector<Row> make_rows() {
  using W = WeightScheme;
  using A = ActivationScheme;
  using M = AllocationMethod;
  constexpr RowQuantizer dorefa{W::dorefa, Granularity::layer, A::dorefa};
  // PACT is a quantizer of activations; its paper takes DoReFa's weights with it.
  constexpr RowQuantizer pact{W::dorefa, Granularity::layer, A::pact};
  constexpr RowQuantizer lq_nets{W::lq_nets, Granularity::channel, A::lq_nets};
  const PaperRow direct{"2 MP", "4", 90.34, 16, 8}, hawq{"2 MP", "4", 92.22, 13.11, 8};

  std::vector<Row> rows{
      {.name = "Baseline", .slug = "baseline", .paper = PaperRow{"32", "32", 92.37, 1, 1}},
      comparator("DoReFa 2/2", "dorefa-2-2", 2, 2, dorefa, {"2", "2", 88.20, 16, 16}),
      comparator("DoReFa 3/3", "dorefa-3-3", 3, 3, dorefa, {"3", "3", 89.90, 10.67, 10.67}),
      comparator("PACT 2/2", "pact-2-2", 2, 2, pact, {"2", "2", 89.70, 16, 16}),
      comparator("PACT 3/3", "pact-3-3", 3, 3, pact, {"3", "3", 91.10, 10.67, 10.67}),
      comparator("LQ-Nets 2/2", "lq-nets-2-2", 2, 2, lq_nets, {"2", "2", 90.20, 16, 16}),
      comparator("LQ-Nets 3/3", "lq-nets-3-3", 3, 3, lq_nets, {"3", "3", 91.60, 10.67, 10.67}),
      comparator("LQ-Nets 2/32", "lq-nets-2-32", 2, 32, lq_nets, {"2", "32", 91.80, 16, 1}),
      comparator("LQ-Nets 3/32", "lq-nets-3-32", 3, 32, lq_nets, {"3", "32", 92.00, 10.67, 1}),
      dnas("DNAS 16.6x", "dnas-16.6", {"1 MP", "32", 92.00, 16.6, 1}),
      dnas("DNAS 11.6x", "dnas-11.6", {"1 MP", "32", 92.72, 11.6, 1}),
      {.name = "Direct", .slug = "direct", .bits = BitsFrom::uniform, .weight_bits = 2, .paper = direct},
      from_costs("HAWQ", "hawq", RowGroup::main, "hawq", M::pareto),
      from_costs("HAWQ-V2", "hawq-v2", RowGroup::main, "hawq-v2", M::pareto),
      from_costs("HAWQ-V3", "hawq-v3", RowGroup::methods, "hawq-v2", M::exact),
      from_costs("MPQCO", "mpqco", RowGroup::methods, "fisher", M::greedy),
      from_costs("Exact quadratic", "exact-quadratic", RowGroup::methods, "exact-quadratic", M::exact),
      from_costs("Joint", "joint", RowGroup::methods, "joint", M::joint),
      from_costs("Norm of the change", "delta-norm", RowGroup::methods, "delta-norm", M::exact),
      from_costs("Noise to signal", "snr", RowGroup::methods, "snr", M::exact),
      from_costs("Loss change", "loss-change", RowGroup::methods, "loss-change", M::exact)};

  Row mixed = from_costs("HAWQ-V2 W+A", "hawq-v2-activations", RowGroup::methods, "hawq-v2", M::pareto);
  mixed.mixed_activations = true;
  const auto v2 =
      std::find_if(rows.begin(), rows.end(), [](const Row& r) { return same(r.slug, "hawq-v2"); });
  rows.insert(v2 + 1, mixed);

  Row reversed_bits =
      from_costs("HAWQ reversed bits", "hawq-reversed-bits", RowGroup::ablations, "hawq", M::pareto);
  reversed_bits.reversed_bits = true;
  Row reversed_order =
      from_costs("HAWQ reversed order", "hawq-reversed-order", RowGroup::ablations, "hawq", M::pareto);
  reversed_order.tuning = Tuning::reversed;
  Row at_once = from_costs("HAWQ at once", "hawq-at-once", RowGroup::ablations, "hawq", M::pareto);
  at_once.tuning = Tuning::at_once;
  // What the epochs of fine-tuning are worth without quantization: part of any row's accuracy is theirs.
  const Row tuned{.name = "32/32 fine-tuned",
                  .slug = "fine-tuned",
                  .group = RowGroup::ablations,
                  .bits = BitsFrom::uniform,
                  .activation_bits = 32};
  rows.insert(rows.end(), {reversed_bits, reversed_order, at_once, tuned});
  std::find_if(rows.begin(), rows.end(), [](const Row& r) { return same(r.slug, "hawq"); })->paper = hawq;
  return rows;
}

}  // namespace

const std::vector<Row>& rows() {
  static const std::vector<Row> all = make_rows();
  return all;
}

const Row& baseline_row() {
  return rows().front();
}

std::vector<const Row*> find_rows(std::string_view name) {
  std::vector<const Row*> found;
  for (const Row& row : rows()) {
    if (same(name, row.name) || same(name, row.slug) || same(name, name_of(row.group, kGroups)) ||
        same(name, "all")) {
      found.push_back(&row);
    }
  }
  if (found.empty()) {
    throw UsageError(
        fmt::format("there is no row '{}'; the rows are {}; groups of rows are main, "
                    "comparators, methods, ablations and all",
                    name, row_names()));
  }
  return found;
}

std::string row_names() {
  std::vector<std::string> names;
  for (const Row& row : rows()) names.emplace_back(row.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

}  // namespace goshawk
