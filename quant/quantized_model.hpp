// A model whose weighted layers quantize their weights and inputs in every forward.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "nn/layers.hpp"
#include "nn/module.hpp"
#include "quant/bits.hpp"
#include "quant/calibration.hpp"
#include "quant/quantizer.hpp"

namespace goshawk {

/// How the picture that enters the first layer is quantized. It is signed once normalised, and its range is
/// fixed.
enum class InputScheme : std::uint8_t { none, symmetric, asymmetric };

/// How the input of every other layer is quantized, from what calibration saw.
enum class ActivationScheme : std::uint8_t {
  pact,    ///< PACT: a learned clip that starts from the calibrated one
  lsq,     ///< LSQ: a learned step that starts where the paper starts it, whatever the calibration rule
  dorefa,  ///< DoReFa-Net: clipped to [0, 1] ([−1, 1] where the input is signed), whatever was calibrated
  fixed,   ///< PACT's levels under the calibrated clip, which stays
  asymmetric,  ///< 2^b even levels over a calibrated range that stays
  lq_nets,  ///< LQ-Nets: levels of a basis that every forward in train mode refits to its batch and averages
};
std::string_view activation_scheme_name(ActivationScheme scheme);
/// Throws UsageError that lists the names there are.
ActivationScheme parse_activation_scheme(std::string_view name);

std::string_view input_scheme_name(InputScheme scheme);
/// Throws UsageError that lists the names there are.
InputScheme parse_input_scheme(std::string_view name);

struct QuantizationOptions {
  /// Of every layer; the bits come from the assignment.
  WeightScheme weight_scheme = WeightScheme::mid_rise;
  Granularity weight_granularity = Granularity::channel;
  ClipRule weight_clip = ClipRule::learned;
  double weight_percentile = 99.9;  ///< of ClipRule::percentile

  ActivationScheme activation_scheme = ActivationScheme::pact;
  CalibrationOptions calibration;
  InputScheme input_scheme = InputScheme::asymmetric;
  int input_bits = kPictureBits;
  /// Activations of all layers are quantized from calibration on; otherwise each layer's with its weights.
  bool activations_from_start = true;
};

/// Which part of a quantized model's state: everything, or what it would be with all weights at 32 bits.
enum class StateOf : std::uint8_t { all, activations };

/// Attaches quantizers to a model's weighted layers and takes them off again when it is destroyed. The life
/// of one:
///
///     QuantizedModel quantized(model, bits, options);  // changes nothing yet
///     quantized.calibrate(batches);                    // sets the activations' clips
///     quantized.enable(stage.layers);                  // from now on these weights are quantized
///
/// A layer at 32 bits is never touched, so that a model with 32 bits everywhere computes the same bits as
/// without. The model must outlive this object and have no other transforms. Forward only reads, so several
/// threads may run it at once; calibrate, enable and load_state may not run beside it. One exception: with
/// ActivationScheme::lq_nets a forward in train mode moves the bases, as batch normalisation moves its
/// running statistics, and is for one thread at a time.
class QuantizedModel {
 public:
  /// Throws Error when the assignment does not name exactly the model's weighted layers, or their sizes
  /// differ, or a layer has transforms already.
  QuantizedModel(Module& model, const BitAssignment& bits, const QuantizationOptions& options = {});
  ~QuantizedModel();
  QuantizedModel(const QuantizedModel&) = delete;
  QuantizedModel& operator=(const QuantizedModel&) = delete;

  Module& model() const { return model_; }
  const BitAssignment& bits() const { return bits_; }
  const QuantizationOptions& options() const { return options_; }

  /// Runs the model on the batches (NHWC images) in eval mode without quantization and sets every activation
  /// clip from what its layer saw. With activations_from_start, activations are quantized afterwards. The
  /// model's mode is left as it was.
  void calibrate(std::span<const Tensor> batches);

  /// Quantizes the weights of these layers (and their inputs, if not already) from now on. A learned step
  /// starts from the mse choice for the weights as they are now. Enabling an enabled layer changes nothing.
  /// Throws Error for an unknown layer, and before calibrate() when an activation has to be quantized.
  void enable(std::span<const std::string> layers);
  void enable_all();
  bool enabled(std::string_view layer) const;
  bool all_enabled() const;

  /// The learned parameters that take part in forward now: "layer1.0.conv1.act_clip" (pact) or "….act_step"
  /// (lsq), [1], for every quantized activation and "layer1.0.conv1.weight_step" ([1] or [channels]) for
  /// every enabled layer with a learned step, in network order. They are leaves that are updated in place.
  /// The list grows with enable().
  std::vector<NamedParameter> named_parameters() const;

  /// Everything that is not in the model itself, by name: learned parameters, bases, fixed ranges, and which
  /// layers are enabled. The tensors share their elements with this object; clone them to keep a snapshot.
  std::vector<std::pair<std::string, Tensor>> state(StateOf what = StateOf::all) const;
  /// Brings back what state() gave, for the same model, assignment and options. `source` names the file in
  /// errors: a missing, extra or misshapen tensor.
  void load_state(std::span<const std::pair<std::string, Tensor>> state, const std::string& source);

  /// Q(W) of one layer exactly as the next forward uses it (full precision while the layer is not enabled).
  QuantizedTensor quantized_weight(std::string_view layer) const;

 private:
  struct Layer;
  Layer& find(std::string_view name) const;

  Module& model_;
  BitAssignment bits_;
  QuantizationOptions options_;
  std::vector<std::unique_ptr<Layer>> layers_;
};

}  // namespace goshawk
