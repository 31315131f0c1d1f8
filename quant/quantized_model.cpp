#include "quant/quantized_model.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "quant/enum_names.hpp"
#include "quant/fake_quantize.hpp"

namespace goshawk {
namespace {

// The columns of a layer's flags in the state.
enum Flag : std::uint8_t { kCalibrated, kWeightEnabled, kInputEnabled, kSigned, kFlagCount };

constexpr std::array kActivationSchemes = {
    std::pair(ActivationScheme::pact, std::string_view("pact")),
    std::pair(ActivationScheme::lsq, std::string_view("lsq")),
    std::pair(ActivationScheme::dorefa, std::string_view("dorefa")),
    std::pair(ActivationScheme::fixed, std::string_view("fixed")),
    std::pair(ActivationScheme::asymmetric, std::string_view("asymmetric")),
    std::pair(ActivationScheme::lq_nets, std::string_view("lq_nets"))};

constexpr std::array kInputSchemes = {std::pair(InputScheme::none, std::string_view("none")),
                                      std::pair(InputScheme::symmetric, std::string_view("symmetric")),
                                      std::pair(InputScheme::asymmetric, std::string_view("asymmetric"))};

WeightGrid grid_of_step(const Tensor& step, const WeightSpec& spec) {
  const double half = code_range(spec).half;
  WeightGrid grid{Tensor::empty_like(step), Tensor::empty_like(step)};
  dispatch_floating(step.dtype(), "quantized_weight", [&]<class T>() {
    for (std::int64_t g = 0; g < step.numel(); ++g) {
      const T s = std::abs(step.data<T>()[g]);
      grid.scale.data<T>()[g] = s;
      grid.offset.data<T>()[g] = static_cast<T>(half) * s;
    }
  });
  return grid;
}

// Overwrites in place where a leaf of that shape exists, so that optimisers keep seeing it.
void set_variable(Variable& variable, const Tensor& value, bool leaf) {
  if (variable.defined() && variable.shape() == value.shape() && variable.dtype() == value.dtype()) {
    variable.value().copy_from(value);
  } else {
    variable = leaf ? Variable::leaf(value.clone()) : Variable(value.clone());
  }
}

}  // namespace

struct QuantizedModel::Layer {
  std::string name;
  WeightedLayer* layer = nullptr;
  WeightSpec spec;
  int input_bits = kFullPrecision;
  InputScheme picture = InputScheme::none;  // other than none: the input is the picture, on a fixed grid
  ActivationScheme activation = ActivationScheme::pact;

  bool calibrated = false, weight_enabled = false, input_enabled = false, is_signed = false;
  Variable clip;          // α of pact, dorefa and fixed, [1]
  Variable input_step;    // of lsq, [1]
  Tensor input_basis;     // of lq_nets, [1, bits]
  Variable weight_step;   // of an enabled layer with a learned step
  WeightGrid input_grid;  // of the picture, and of asymmetric
  ActivationObserver observer;

  bool quantizes_weight() const { return spec.bits != kFullPrecision; }
  bool learned_clip() const { return activation == ActivationScheme::pact; }
  bool quantizes_input() const { return input_bits != kFullPrecision; }
  bool is_picture() const { return picture != InputScheme::none; }
  bool has_input_grid() const { return is_picture() || activation == ActivationScheme::asymmetric; }
  bool has_input_step() const { return !is_picture() && activation == ActivationScheme::lsq; }
  bool has_input_basis() const { return !is_picture() && activation == ActivationScheme::lq_nets; }
  BasisCodes input_codes() const { return is_signed ? BasisCodes::signs : BasisCodes::binary; }
  bool learned_step() const { return has_learned_step(spec); }
  WeightSpec input_spec() const {
    return {.bits = input_bits,
            .scheme = picture == InputScheme::symmetric ? WeightScheme::symmetric : WeightScheme::asymmetric,
            .granularity = Granularity::layer,
            .clip = ClipRule::min_max};
  }

  WeightGrid weight_grid() const {
    return learned_step() ? grid_of_step(weight_step.value(), spec)
                          : choose_grid(layer->weight.value(), spec);
  }

  // Sets the layer's transforms to what the flags say.
  void install() {
    layer->weight_transform = nullptr;
    layer->input_transform = nullptr;
    if (weight_enabled) {
      layer->weight_transform = [this](const Variable& w) {
        return learned_step() ? learned_step_quantize(w, weight_step, spec)
                              : fake_quantize(w, spec, weight_grid());
      };
    }
    if (input_enabled) {
      layer->input_transform = [this](const Variable& x) {
        if (has_input_grid()) return fake_quantize(x, input_spec(), input_grid);
        if (has_input_step()) return learned_step_activation(x, input_step, input_bits, is_signed);
        if (has_input_basis()) return quantize_input_by_basis(x);
        return pact(x, clip, input_bits, is_signed);
      };
    }
  }

  // As in the authors' code: the batch is quantized by the average so far, which then moves (but not where
  // the model is only measured).
  Variable quantize_input_by_basis(const Variable& x) const {
    if (layer->mode() == Mode::eval || measuring()) return basis_quantize(x, input_basis, input_codes());
    Tensor refit;
    Variable y = basis_quantize(x, input_basis, input_codes(), &refit);
    move_basis(input_basis, refit);
    return y;
  }

  void observe() {
    layer->weight_transform = nullptr;
    layer->input_transform = nullptr;
    observer = {};
    if (!quantizes_input()) return;
    layer->input_transform = [this](const Variable& x) {
      observer.observe(x.value(), name);
      return x;
    };
  }

  // The clip or the grid from what was observed.
  void set_range(const CalibrationOptions& options) {
    const DType dtype = layer->weight.dtype();
    if (is_picture()) {
      const Tensor extremes = Tensor::from<double>({observer.minimum(), observer.maximum()}, {2}).to(dtype);
      input_grid = choose_grid(extremes, input_spec());
    } else if (has_input_grid()) {
      input_grid = calibrated_grid(observer, input_bits, dtype, options);
    } else {
      is_signed = observer.minimum() < 0;
      check(!is_signed || input_bits >= 2,
            "[calibrate] the input of layer '{}' has negative values, which 1 bit cannot hold; give it 2 "
            "bits or more",
            name);
      if (has_input_step()) {
        const double step = initial_step(observer, input_bits, is_signed);
        set_variable(input_step, Tensor::full({1}, dtype, step), true);
      } else if (has_input_basis()) {
        input_basis = calibrated_basis(observer, input_bits, input_codes(), dtype);
      } else {
        const double alpha = activation == ActivationScheme::dorefa
                                 ? 1
                                 : calibrated_clip(observer, input_bits, is_signed, options);
        set_variable(clip, Tensor::full({1}, dtype, alpha), learned_clip());
      }
    }
    calibrated = true;
    observer = {};
  }

  void enable_weight() {
    if (!quantizes_weight() || weight_enabled) return;
    if (learned_step()) {
      set_variable(weight_step, choose_grid(layer->weight.value(), spec).scale, true);
    }
    weight_enabled = true;
  }

  void enable_input() {
    if (!quantizes_input() || input_enabled) return;
    check(calibrated, "[enable] the input of layer '{}' has no range yet; call calibrate() first", name);
    input_enabled = true;
  }

  std::string key(const char* what) const { return name + "." + what; }
  Tensor flags(bool weights_on) const {
    return Tensor::from<std::int64_t>({calibrated, weights_on, input_enabled, is_signed}, {kFlagCount});
  }

  // The tensors of the state other than the flags, given the flags.
  std::vector<std::string> state_keys(bool has_range, bool weights_on) const {
    std::vector<std::string> keys;
    if (has_range && has_input_grid()) {
      keys.push_back(key("input_scale"));
      keys.push_back(key("input_offset"));
    } else if (has_range) {
      keys.push_back(key(has_input_step() ? "act_step" : (has_input_basis() ? "act_basis" : "act_clip")));
    }
    if (weights_on && learned_step()) keys.push_back(key("weight_step"));
    return keys;
  }

  const Tensor& state_tensor(const std::string& k) const {
    if (k == key("input_scale")) return input_grid.scale;
    if (k == key("input_offset")) return input_grid.offset;
    if (k == key("act_step")) return input_step.value();
    if (k == key("act_basis")) return input_basis;
    return k == key("act_clip") ? clip.value() : weight_step.value();
  }

  Shape state_shape(const std::string& k) const {
    if (k == key("act_basis")) return {1, input_bits};
    const bool channels = k == key("weight_step") && spec.granularity == Granularity::channel;
    return {channels ? layer->out_channels() : 1};
  }
};

std::string_view activation_scheme_name(ActivationScheme scheme) {
  return name_of(scheme, kActivationSchemes);
}
ActivationScheme parse_activation_scheme(std::string_view name) {
  return parse_name(name, kActivationSchemes, "activation scheme");
}
std::string_view input_scheme_name(InputScheme scheme) {
  return name_of(scheme, kInputSchemes);
}
InputScheme parse_input_scheme(std::string_view name) {
  return parse_name(name, kInputSchemes, "input scheme");
}

QuantizedModel::QuantizedModel(Module& model, const BitAssignment& bits, const QuantizationOptions& options)
    : model_(model), bits_(bits), options_(options) {
  check_bits(options.input_bits, "QuantizedModel");
  check_spec({.scheme = options.weight_scheme,
              .granularity = options.weight_granularity,
              .clip = options.weight_clip,
              .percentile = options.weight_percentile},
             "QuantizedModel");
  const auto weighted = weighted_layers(model);
  check(bits.layers.size() == weighted.size(),
        "[QuantizedModel] the assignment has {} layers and the model {}", bits.layers.size(),
        weighted.size());
  bits_.layers.clear();
  for (const auto& [name, layer] : weighted) {
    const LayerBits& assigned = bits.layer(name);
    bits_.layers.push_back(
        assigned);  // in network order: what is counted of a network begins behind its first layer
    check_bits(assigned.weight, "QuantizedModel");
    check_bits(assigned.activation, "QuantizedModel");
    check(assigned.parameters == layer->weight_count(),
          "[QuantizedModel] layer '{}' has {} weights but the assignment says {}; it is of another model",
          name, layer->weight_count(), assigned.parameters);
    check(!layer->weight_transform && !layer->input_transform,
          "[QuantizedModel] layer '{}' has transforms already; detach its quantizer first", name);
    auto entry = std::make_unique<Layer>();
    entry->name = name;
    entry->layer = layer;
    entry->spec = {.bits = assigned.weight,
                   .scheme = options.weight_scheme,
                   .granularity = options.weight_granularity,
                   .clip = options.weight_clip,
                   .percentile = options.weight_percentile};
    entry->input_bits = assigned.activation;
    if (layers_.empty() && assigned.activation != kFullPrecision) {
      entry->picture = options.input_scheme;
      entry->input_bits = options.input_scheme == InputScheme::none ? kFullPrecision : options.input_bits;
    }
    entry->activation = options.activation_scheme;
    layers_.push_back(std::move(entry));
  }
}

QuantizedModel::~QuantizedModel() {
  for (const auto& entry : layers_) {
    entry->layer->weight_transform = nullptr;
    entry->layer->input_transform = nullptr;
  }
}

QuantizedModel::Layer& QuantizedModel::find(std::string_view name) const {
  for (const auto& entry : layers_) {
    if (entry->name == name) return *entry;
  }
  fail("[QuantizedModel] the model has no weighted layer '{}'", name);
}

void QuantizedModel::calibrate(std::span<const Tensor> batches) {
  check(!batches.empty(), "[calibrate] there is no calibration batch");
  // Restores the modes, which modules may have of their own, and the transforms, however this ends.
  struct Restore {
    QuantizedModel& self;
    std::vector<std::pair<Module*, Mode>> modes;
    ~Restore() {
      for (const auto& [module, mode] : modes) module->set_mode(mode);  // each before those below it
      for (const auto& entry : self.layers_) entry->install();
    }
  } restore{*this, {}};
  for (const NamedModule& m : model_.named_modules()) restore.modes.emplace_back(m.module, m.module->mode());
  {
    const NoGrad no_grad;
    model_.set_mode(Mode::eval);
    for (const auto& entry : layers_) entry->observe();
    for (const Tensor& batch : batches) model_.forward(batch);
  }
  for (const auto& entry : layers_) {
    if (!entry->quantizes_input()) continue;
    entry->set_range(options_.calibration);
    if (options_.activations_from_start) entry->enable_input();
  }
}

void QuantizedModel::enable(std::span<const std::string> layers) {
  std::vector<Layer*> chosen;
  for (const std::string& name : layers) {
    Layer& entry = find(name);
    check(entry.calibrated || !entry.quantizes_input(),
          "[enable] the input of layer '{}' has no range yet; call calibrate() first", name);
    chosen.push_back(&entry);
  }
  for (Layer* entry : chosen) {
    entry->enable_weight();
    entry->enable_input();
    entry->install();
  }
}

void QuantizedModel::enable_all() {
  std::vector<std::string> names;
  for (const auto& entry : layers_) names.push_back(entry->name);
  enable(names);
}

bool QuantizedModel::enabled(std::string_view layer) const {
  const Layer& entry = find(layer);
  return entry.weight_enabled || !entry.quantizes_weight();
}

bool QuantizedModel::all_enabled() const {
  return std::all_of(layers_.begin(), layers_.end(), [](const auto& entry) {
    return (entry->weight_enabled || !entry->quantizes_weight()) &&
           (entry->input_enabled || !entry->quantizes_input());
  });
}

std::vector<NamedParameter> QuantizedModel::named_parameters() const {
  std::vector<NamedParameter> parameters;
  for (const auto& entry : layers_) {
    if (entry->input_enabled && !entry->is_picture() && entry->learned_clip()) {
      parameters.push_back({entry->key("act_clip"), entry->clip});
    }
    if (entry->input_enabled && entry->has_input_step()) {
      parameters.push_back({entry->key("act_step"), entry->input_step});
    }
    if (entry->weight_enabled && entry->learned_step()) {
      parameters.push_back({entry->key("weight_step"), entry->weight_step});
    }
  }
  return parameters;
}

std::vector<std::pair<std::string, Tensor>> QuantizedModel::state(StateOf what) const {
  std::vector<std::pair<std::string, Tensor>> state;
  for (const auto& entry : layers_) {
    const bool weights_on = what == StateOf::all && entry->weight_enabled;
    state.emplace_back(entry->key("quantizer"), entry->flags(weights_on));
    for (const std::string& key : entry->state_keys(entry->calibrated, weights_on)) {
      state.emplace_back(key, entry->state_tensor(key));
    }
  }
  return state;
}

void QuantizedModel::load_state(std::span<const std::pair<std::string, Tensor>> state,
                                const std::string& source) {
  std::map<std::string, Tensor> given;
  for (const auto& [name, tensor] : state) {
    check(given.emplace(name, tensor).second, "[load_state] {} holds '{}' twice", source, name);
  }
  const auto take = [&](const std::string& name, const Shape& shape, DType dtype) -> Tensor {
    const auto it = given.find(name);
    check(it != given.end(),
          "[load_state] {} lacks '{}'; it was saved from another model or with other options", source, name);
    check(it->second.shape() == shape && it->second.dtype() == dtype,
          "[load_state] {}: '{}' is {} {} where {} {} belongs", source, name, it->second.dtype(),
          it->second.shape(), dtype, shape);
    Tensor tensor = it->second;
    given.erase(it);
    return tensor;
  };
  // Everything is looked up before anything is changed.
  struct Loaded {
    Tensor flags;
    std::map<std::string, Tensor> tensors;
  };
  std::vector<Loaded> loaded;
  for (const auto& entry : layers_) {
    Loaded l{take(entry->key("quantizer"), {kFlagCount}, DType::i64), {}};
    for (std::int64_t flag : l.flags.span<std::int64_t>()) {
      check(flag == 0 || flag == 1, "[load_state] {}: '{}' holds {}, not 0 or 1", source,
            entry->key("quantizer"), flag);
    }
    const std::int64_t* flags = l.flags.data<std::int64_t>();
    check((flags[kCalibrated] == 0 || entry->quantizes_input()) &&
              (flags[kWeightEnabled] == 0 || entry->quantizes_weight()) &&
              flags[kInputEnabled] <= flags[kCalibrated],
          "[load_state] {}: '{}' quantizes what the bit assignment leaves at 32 bits; load it with the bits "
          "it was saved "
          "with",
          source, entry->key("quantizer"));
    for (const std::string& key : entry->state_keys(flags[kCalibrated] != 0, flags[kWeightEnabled] != 0)) {
      l.tensors[key] = take(key, entry->state_shape(key), entry->layer->weight.dtype());
    }
    loaded.push_back(std::move(l));
  }
  check(given.empty(), "[load_state] {} holds '{}', which this quantized model does not have", source,
        given.empty() ? "" : given.begin()->first);

  for (std::size_t i = 0; i < layers_.size(); ++i) {
    Layer& entry = *layers_[i];
    const std::int64_t* flags = loaded[i].flags.data<std::int64_t>();
    entry.calibrated = flags[kCalibrated] != 0;
    entry.weight_enabled = flags[kWeightEnabled] != 0;
    entry.input_enabled = flags[kInputEnabled] != 0;
    entry.is_signed = flags[kSigned] != 0;
    for (const auto& [key, tensor] : loaded[i].tensors) {
      if (key == entry.key("act_clip")) {
        set_variable(entry.clip, tensor, entry.learned_clip());
      } else if (key == entry.key("act_step")) {
        set_variable(entry.input_step, tensor, true);
      } else if (key == entry.key("act_basis")) {
        entry.input_basis = tensor.clone();
      } else if (key == entry.key("weight_step")) {
        set_variable(entry.weight_step, tensor, true);
      } else if (key == entry.key("input_scale")) {
        entry.input_grid.scale = tensor.clone();
      } else {
        entry.input_grid.offset = tensor.clone();
      }
    }
    entry.install();
  }
}

QuantizedTensor QuantizedModel::quantized_weight(std::string_view layer) const {
  const Layer& entry = find(layer);
  if (!entry.weight_enabled) return {kFullPrecision, entry.layer->weight.value(), {}, {}};
  return quantize_weights(entry.layer->weight.value(), entry.spec, entry.weight_grid());
}

}  // namespace goshawk
