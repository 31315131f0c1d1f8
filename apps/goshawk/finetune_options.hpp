// What finetune and quantize have in common: full-precision weights, a quantizer, fine-tuning and its result.
#pragma once

#include <memory>
#include <string>

#include "apps/goshawk/run_options.hpp"
#include "apps/support/fine_tuning.hpp"
#include "apps/support/quantizer_settings.hpp"
#include "nn/module.hpp"

namespace goshawk {

struct FineTuneOptions {
  explicit FineTuneOptions(CLI::App& command) : settings(command) {}

  Settings settings;
  RunOptions run;
  std::string weights;
  int activation_bits = 8;
  QuantizerSettings quantizer;
  std::int64_t epochs = 20;
  int stages = 4;
  double lr = 0.02, weight_decay = 1e-4;
};
/// Adds all of these.
void add_finetune_options(FineTuneOptions& options);

/// The data and the weights of a command, checked against each other.
class FineTuneProblem {
 public:
  /// Throws Error for weights that do not fit the model, or have other classes than the data.
  explicit FineTuneProblem(const FineTuneOptions& options);

  /// Says what the data are, on standard error.
  void announce() const;
  const RunData& data() const { return data_; }
  const Normalization& normalization() const { return normalization_; }
  /// A new model with the full-precision weights, in eval mode.
  std::unique_ptr<Module> baseline() const;
  /// The full-precision model on the test pictures, measured and written into baseline.json, or as a finished
  /// run has it there; null where that is of a program that wrote none. Throws Error for a loss that is not
  /// finite, and when a run that is not finished has another one: its weights or pictures were others.
  nlohmann::ordered_json evaluate_baseline(const RunDirectory& directory) const;
  /// Names and sizes of the model's weighted layers, at 32 bits.
  const std::vector<LayerBits>& layers() const { return layers_; }

  /// Writes bits.json, fine-tunes, and returns what result.json gets: the evaluation of the packed model,
  /// compressions, bytes and the packed file's name.
  nlohmann::ordered_json fine_tune(const RunDirectory& directory, const BitAssignment& bits,
                                   const std::vector<Stage>& stages) const;

 private:
  const FineTuneOptions& options_;
  RunData data_;
  Normalization normalization_;
  std::vector<LayerBits> layers_;
};

inline constexpr const char* kResultFile = "result.json";
/// Whether the run is finished and its models are still there.
bool has_result(const RunDirectory& directory);
/// Prints result.json as --json says.
void print_finetune_result(const FineTuneOptions& options, const RunDirectory& directory);

}  // namespace goshawk
