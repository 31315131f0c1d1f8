// One row with one seed: its bits, its fine-tuning, its result. Jobs know nothing of each other; each leaves
// its files in the run and is skipped when its result is there.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "apps/reproduce_cifar/experiment.hpp"
#include "apps/reproduce_cifar/rows.hpp"
#include "apps/reproduce_cifar/sensitivities.hpp"
#include "quant/packed_model.hpp"

namespace goshawk {

/// What became of a job.
struct JobResult {
  std::string row;  ///< slug
  std::uint64_t seed = 0;
  std::string weight_bits;      ///< "2" or "2 MP": the smallest width, mixed with others
  std::string activation_bits;  ///< "4"
  std::int64_t correct = 0;     ///< of `images` test pictures
  std::int64_t images = 0;
  /// Right before fine-tuning, with every layer quantized; absent for the baseline and in older runs.
  std::optional<std::int64_t> untuned_correct = {};
  double weight_compression = 1;
  double activation_compression = 1;
  double total_compression = 1;
  PackedSize packed = {};  ///< of the packed file; zeros for the baseline

  double accuracy() const { return percent(correct); }
  std::optional<double> untuned_accuracy() const {
    return untuned_correct ? std::optional(percent(*untuned_correct)) : std::nullopt;
  }

 private:
  double percent(std::int64_t right) const {
    return 100.0 * static_cast<double>(right) / static_cast<double>(images);
  }
};

/// What a row with a seed calls its files: the slug, with "-seedN" for other seeds than the run's.
std::string job_name(const Experiment& experiment, const std::string& row, std::uint64_t seed);

/// The result in results/JOB.json; nothing when there is none.
std::optional<JobResult> stored_result(const Experiment& experiment, const Row& row, std::uint64_t seed);

/// Makes the job unless it is done or another process is at it (the lock is then held elsewhere, and this
/// returns at once). Leaves results/JOB.json, the dequantized weights JOB.safetensors, the packed model
/// JOB.packed.safetensors, order-JOB.json and predictions-JOB.csv, JOB being job_name(). Throws Error when
/// the packed model does not classify every test picture as the model it was made of.
void run_job(const Experiment& experiment, Sensitivities& sensitivities, const Row& row, std::uint64_t seed);

/// The assignments made so far, by slug: bits.json.
std::map<std::string, BitAssignment> stored_bits(const Experiment& experiment);

}  // namespace goshawk
