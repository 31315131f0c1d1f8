#include "apps/reproduce_cifar/pipeline.hpp"

#include <algorithm>
#include <vector>

#include "apps/report/write.hpp"
#include "apps/reproduce_cifar/table.hpp"
#include "apps/support/class_predictions.hpp"
#include "apps/support/command_line.hpp"
#include "apps/support/fine_tuning.hpp"
#include "apps/support/progress.hpp"
#include "apps/support/side_by_side.hpp"
#include "core/file.hpp"

namespace goshawk {
namespace {

// The rows of --only, in the table's order; the baseline is always among them.
std::vector<const Row*> wanted_rows(const ReproduceOptions& options) {
  std::vector<const Row*> wanted{&baseline_row()};
  for (const Row& row : rows()) {
    const bool named = std::any_of(options.only.begin(), options.only.end(), [&](const std::string& name) {
      const auto found = find_rows(name);
      return std::find(found.begin(), found.end(), &row) != found.end();
    });
    if (named && row.bits != BitsFrom::nothing) wanted.push_back(&row);
  }
  return wanted;
}

// Rows at the same time unless told otherwise: each takes half a gigabyte and more, and with several threads
// to a row, more rows gain nothing.
constexpr std::size_t kMostJobs = 8;

struct Job {
  const Row* row;
  std::uint64_t seed;
};

// All rows have their first seed before any has its second.
std::vector<Job> wanted_jobs(const ReproduceOptions& options) {
  std::vector<Job> jobs;
  for (std::uint64_t k = 0; k < options.finetune_seeds; ++k) {
    for (const Row* row : wanted_rows(options)) {
      if (k == 0 || row->bits != BitsFrom::nothing) jobs.push_back({row, options.seed + k});
    }
  }
  return jobs;
}

// Everything the run has, whoever made it: rows of earlier calls and of other processes too.
TableInput collect(const Experiment& experiment) {
  const RunDirectory& run = experiment.run();
  TableInput input{.results = {},
                   .bits = stored_bits(experiment),
                   .predictions = {},
                   .sensitivity = {},
                   .hawq = {},
                   .hawq_v2 = {}};
  const std::uint64_t first = experiment.options().seed;
  for (const Row& row : rows()) {
    for (std::uint64_t seed = first; seed < first + kMaxSeeds; ++seed) {
      if (const auto result = stored_result(experiment, row, seed))
        input.results[row.slug].push_back(*result);
    }
  }
  for (const char* slug : kComparedRows) {
    const auto results = input.results.find(slug);
    if (results == input.results.end()) continue;
    std::vector<ClassPredictions> predictions;
    for (const JobResult& result : results->second) {
      // Runs of older versions have none.
      const std::string file = predictions_file(job_name(experiment, slug, result.seed));
      if (run.has(file)) predictions.push_back(read_predictions(run.file(file)));
    }
    if (predictions.size() == results->second.size()) input.predictions[slug] = std::move(predictions);
  }
  if (run.has("sensitivity.json")) input.sensitivity = read_sensitivity(run.file("sensitivity.json"));
  if (run.has("costs-hawq.json")) input.hawq = read_costs(run.file("costs-hawq.json"));
  if (run.has("costs-hawq-v2.json")) input.hawq_v2 = read_costs(run.file("costs-hawq-v2.json"));
  return input;
}

void write_table(const Experiment& experiment) {
  const FileLock lock = experiment.run().lock("table");
  const TableInput input = collect(experiment);
  nlohmann::ordered_json table{{"model", experiment.options().model},
                               {"data", experiment.train_set()->name()},
                               {"rows", table_json(input)}};
  experiment.run().write_json("table.json", table);
  write_file_atomic(experiment.run().file("table.md"), table_markdown(input));
}

}  // namespace

void reproduce(const ReproduceOptions& options) {
  Experiment experiment(options);
  experiment.make_baseline();
  Sensitivities sensitivities(experiment);
  std::vector<Job> jobs = wanted_jobs(options);
  std::erase_if(jobs,
                [&](const Job& job) { return stored_result(experiment, *job.row, job.seed).has_value(); });
  const std::size_t at_once = options.jobs > 0 ? static_cast<std::size_t>(options.jobs) : kMostJobs;
  side_by_side(jobs.size(), at_once, [&](std::size_t i) {
    run_job(experiment, sensitivities, *jobs[i].row, jobs[i].seed);
    write_table(experiment);
  });
  write_table(experiment);
  print_result(read_file(experiment.run().file("table.md")));
  const ReportFiles report = write_report(options.out, options.out);
  say(fmt::format("\nthe run as a page to open in a browser: {}", report.html));
}

}  // namespace goshawk
