// A trained model, labelled pictures and a weight quantizer: what sensitivities are measured on.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "apps/goshawk/model_file.hpp"
#include "apps/goshawk/pictures.hpp"
#include "apps/support/cli11.hpp"
#include "quant/sensitivities/candidates.hpp"

namespace goshawk {

struct SensitivityProblemOptions {
  std::string model, weights;
  PictureOptions pictures{.source = {}, .split = "train", .normalization = {}};
  std::string batch;
  std::int64_t images = 0;  ///< 0: a batch file's all, a data set's first 1024 at most
  std::int64_t microbatch = 32;
  std::string weight_scheme = "mid_rise", granularity = "channel", clip = "mse";
  double percentile = 99.9;
  std::uint64_t seed = 0;
  std::string dtype = "f32";
  std::string convolution = "winograd";
};

/// Adds all of these but `images`, whose meaning is the program's.
void add_sensitivity_problem_options(CLI::App& command, SensitivityProblemOptions& options);
/// The options that were added as a configuration, for a run directory.
nlohmann::ordered_json sensitivity_problem_config(const SensitivityProblemOptions& options);
/// The quantizer that the options name. Throws UsageError for what cannot be combined.
WeightSpec weight_spec_of(const SensitivityProblemOptions& options);
/// --bits and other lists of widths: each 1 … 8 or 32.
CLI::Option& add_widths_option(CLI::App& command, const std::string& name, std::vector<int>& widths,
                               const std::string& help);

/// A width that a quantizer has: 1 … 8 or 32.
CLI::Validator bit_width();

/// "conv1=8" and the like, of --pin: layers that keep a width, each once. Throws UsageError for anything else
/// and for a layer with two widths.
std::vector<std::pair<std::string, int>> pins_of(const std::vector<std::string>& texts);

class SensitivityProblem {
 public:
  /// Reads the model, in eval mode, and the pictures: the first `images` of a batch file, or so many drawn at
  /// random (under the seed) from a data set. Throws UsageError unless there is exactly one source of
  /// pictures, Error for files that do not fit each other and more pictures than there are; messages begin
  /// with [user].
  SensitivityProblem(const SensitivityProblemOptions& options, const std::string& user);

  Module& model() const { return *loaded_.model; }
  std::int64_t images() const { return static_cast<std::int64_t>(labels_.size()); }
  std::int64_t classes() const { return loaded_.classes; }
  /// Pictures [begin, end) in microbatches.
  SensitivityData data(std::int64_t begin, std::int64_t end) const { return data_for(model(), begin, end); }
  SensitivityData data() const { return data(0, images()); }
  /// The same for another problem's model, which is one of the same kind.
  SensitivityData data_for(Module& model, std::int64_t begin, std::int64_t end) const;

 private:
  LoadedModel loaded_;
  std::int64_t microbatch_;
  std::vector<Tensor> pictures_;  // one by one
  std::vector<std::int64_t> labels_;
};

}  // namespace goshawk
