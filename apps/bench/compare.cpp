#include "apps/bench/compare.hpp"

#include <charconv>
#include <chrono>

#include "core/error.hpp"

namespace goshawk {

ComparedKind compared_kind(std::string_view text) {
  const std::size_t at = text.find('@');
  const std::string_view name = text.substr(0, at);
  ComparedKind compared{.text = std::string(text)};
  std::string known;
  for (const StageKind& kind : stage_kinds()) {
    if (kind.name == name) compared.kind = &kind;
    known += (known.empty() ? "" : ", ") + std::string(kind.name);
  }
  check(compared.kind != nullptr, "[bench] there is no stage '{}' to compare; there are {}", name, known);
  if (at == std::string_view::npos) return compared;
  const std::string_view size = text.substr(at + 1);
  const auto [end, error] = std::from_chars(size.data(), size.data() + size.size(), compared.microbatch);
  check(error == std::errc() && end == size.data() + size.size() && compared.microbatch > 0,
        "[bench] '{}' asks for microbatches of '{}' images; give a positive number", text, size);
  return compared;
}

std::vector<ComparedStage> compare_stages(const BenchOptions& options, const std::vector<ComparedKind>& kinds,
                                          int turns) {
  check(kinds.size() > 1, "[bench] a comparison needs two stages but has {}", kinds.size());
  check(turns > 0, "[bench] a comparison needs a turn but has {}", turns);
  std::vector<ReadyStage> stages;
  for (const ComparedKind& compared : kinds) {
    BenchOptions own = options;
    if (compared.microbatch > 0) own.microbatch = compared.microbatch;
    stages.push_back(compared.kind->set_up(own));
  }
  std::vector<std::vector<double>> rates(stages.size());
  for (int turn = -1; turn < turns; ++turn) {
    for (std::size_t i = 0; i < stages.size(); ++i) {
      const std::size_t which = turn % 2 == 0 ? i : stages.size() - 1 - i;
      const auto start = std::chrono::steady_clock::now();
      stages[which].run();
      const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
      if (turn >= 0) rates[which].push_back(stages[which].images / seconds.count());
    }
    if (options.progress) options.progress(turn + 2, "a turn");
  }
  std::vector<ComparedStage> results;
  for (std::size_t k = 0; k < stages.size(); ++k) {
    std::vector<double> ratios;
    for (std::size_t turn = 0; turn < rates[k].size(); ++turn)
      ratios.push_back(rates[k][turn] / rates[0][turn]);
    results.push_back({.text = kinds[k].text,
                       .images_per_second = quantile(rates[k], 0.5),
                       .ratio = quantile(ratios, 0.5),
                       .ratio_quartiles = {quantile(ratios, 0.25), quantile(ratios, 0.75)}});
  }
  return results;
}

}  // namespace goshawk
