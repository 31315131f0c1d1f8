// What reproduce_cifar can be told on its command line, and config.json.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "apps/support/cli11.hpp"
#include "apps/support/quantizer_settings.hpp"

namespace goshawk {

/// Most fine-tuning seeds.
inline constexpr std::uint64_t kMaxSeeds = 100;

struct ReproduceOptions {
  std::string data;  ///< a data set; empty: the embedded synthetic one
  std::string model = "resnet20";
  std::string weights;               ///< an fp32 baseline to load instead of training one
  std::int64_t epochs = 0;           ///< of the baseline; 0: 12 on the synthetic set, 60 on a real one
  std::int64_t finetune_epochs = 0;  ///< of each quantized row; 0: 6 on the synthetic set, 30 on a real one
  std::int64_t batch_size = 128;
  /// Of the baseline: "cosine" or "he2016"; see trainer_options.
  std::string recipe = "cosine";
  double lr = 0.1;
  double finetune_lr = 0.02;
  double weight_decay = 5e-4;
  double finetune_weight_decay = 1e-4;
  double compression = 13.11;  ///< W-comp that HAWQ and HAWQ-V2 must reach
  std::vector<int> bits = {2, 3, 4, 8};
  int activation_bits = 4;
  std::vector<int> activation_widths = {2, 3, 4, 6, 8};
  /// Of every row. The default for weights is HAWQ-V2's: layer-wise and asymmetric.
  QuantizerSettings quantizer{.weight_scheme = "asymmetric", .granularity = "layer", .clip = "min_max"};
  int stages = 4;
  std::int64_t curvature_images = 0;  ///< 0: 256 on the synthetic set, 512 on a real one
  double trace_error = 0.1;           ///< wanted relative standard error of each layer's trace
  int max_probes = 200;
  std::string road = "automatic";  ///< of the curvature: see road_of
  std::int64_t train_images = 0;   ///< 0: all (10,000 of the synthetic set)
  std::int64_t test_images = 0;    ///< 0: all (2,000 of the synthetic set)
  std::uint64_t seed = 0;
  std::string convolution = "winograd";  ///< how f32 3x3 convolutions are computed: see kConvolutions

  // Not part of config.json: they change nothing in the result.
  std::string out;
  bool resume = false;
  std::vector<std::string> only;     ///< rows or groups of rows to make
  std::uint64_t finetune_seeds = 1;  ///< fine-tunings of each row, with the seeds seed, seed + 1, …
  std::int64_t jobs = 0;             ///< rows made at the same time; 0: one per thread, up to 8
  bool quiet = false;
};

/// config.json: everything that determines the result.
nlohmann::ordered_json to_config(const ReproduceOptions& options);

/// Declares all options on `program`; parsing fills `options`, which must outlive it.
void add_reproduce_options(CLI::App& program, ReproduceOptions& options);

/// Checks the parsed options and fills in what was left open: with --resume from the stored run, then by the
/// kind of data. Throws UsageError for values that make no sense.
void complete_options(const CLI::App& program, ReproduceOptions& options);

}  // namespace goshawk
