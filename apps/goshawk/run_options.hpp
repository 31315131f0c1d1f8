// What the commands that train have in common: their data, their run directory and how they report.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "apps/support/command_line.hpp"
#include "apps/support/data_source.hpp"
#include "apps/support/evaluate.hpp"
#include "apps/support/run_directory.hpp"
#include "apps/support/settings.hpp"

namespace goshawk {

struct RunOptions {
  std::string model;
  DataSource source;
  std::int64_t train_images = 0, test_images = 0;  ///< 0: all
  NormalizationOptions normalization;
  std::int64_t batch_size = 128;
  std::uint64_t seed = 0;
  std::string convolution = "winograd";

  // Not part of config.json: they change nothing in the result.
  std::string out;
  bool resume = false, json = false;
};

/// Adds --model, --data and all others of these, --threads, --quiet, --config.
void add_run_options(Settings& settings, RunOptions& options);

/// "continue with goshawk train --resume --out RUN".
std::string resume_hint(const Settings& settings, const RunOptions& options);

struct RunData {
  std::shared_ptr<const Dataset> train, test;
  /// Whether training takes random regions of larger pictures.
  bool random_regions = false;
};
/// Both splits in the model's input size, in memory unless their pictures are large. Throws UsageError unless
/// exactly one source is named, Error when the splits' classes differ, when there is only one, or when there
/// are fewer training pictures than a batch takes.
RunData open_run_data(const RunOptions& options);

}  // namespace goshawk
