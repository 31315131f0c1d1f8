#include "quant/packed_model.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/json.hpp"
#include "core/safetensors.hpp"
#include "nn/state_dict.hpp"

namespace goshawk {
namespace {

constexpr const char* kFormat = "goshawk-packed-1";
constexpr std::string_view kStatePrefix = "quantizer.";
// What follows the name of a weight.
constexpr const char* kCodes = ".codes";
constexpr const char* kScale = ".scale";
constexpr const char* kOffset = ".offset";
constexpr const char* kBasis = ".basis";
constexpr const char* kLevels = ".levels";

std::int64_t packed_bytes(std::int64_t count, int bits) {
  return (count * bits + 7) / 8;
}

std::int64_t byte_size(const Tensor& t) {
  return t.numel() * dtype_size(t.dtype());
}

// The unsigned fields of `bits` bits, one for each code.
Tensor pack(const Tensor& codes, const WeightSpec& spec) {
  const int code_min = code_range(spec).code_min;
  Tensor packed = Tensor::zeros({packed_bytes(codes.numel(), spec.bits)}, DType::u8);
  auto* to = packed.data<std::uint8_t>();
  for (std::int64_t i = 0; i < codes.numel(); ++i) {
    const int code =
        codes.dtype() == DType::u8 ? codes.data<std::uint8_t>()[i] : codes.data<std::int8_t>()[i];
    const auto field = static_cast<unsigned>(code - code_min);
    for (int k = 0; k < spec.bits; ++k) {
      const std::int64_t at = i * spec.bits + k;
      to[at / 8] = static_cast<std::uint8_t>(to[at / 8] | (((field >> k) & 1U) << (at % 8)));
    }
  }
  return packed;
}

// `what` names the tensor and its file in errors.
Tensor unpack(const Tensor& packed, const Shape& shape, const WeightSpec& spec, const std::string& what) {
  const auto [code_min, code_max, half] = code_range(spec);
  Tensor codes = Tensor::empty(shape, code_type(spec));
  const auto* from = packed.data<std::uint8_t>();
  for (std::int64_t i = 0; i < codes.numel(); ++i) {
    unsigned field = 0;
    for (int k = 0; k < spec.bits; ++k) {
      const std::int64_t at = i * spec.bits + k;
      field |= ((static_cast<unsigned>(from[at / 8]) >> (at % 8)) & 1U) << k;
    }
    const int code = static_cast<int>(field) + code_min;
    check(code <= code_max, "[packed model] code {} of {} is {}, above the highest, {}; the file is damaged",
          i, what, code, code_max);
    if (codes.dtype() == DType::u8) {
      codes.data<std::uint8_t>()[i] = static_cast<std::uint8_t>(code);
    } else {
      codes.data<std::int8_t>()[i] = static_cast<std::int8_t>(code);
    }
  }
  return codes;
}

// What numbers may be, besides finite.
enum class Allowed : std::uint8_t { all, not_negative, positive, not_zero };

// `what` names the tensor and its file in errors.
void check_numbers(const Tensor& numbers, Allowed allowed, const std::string& what) {
  for (const float v : numbers.span<float>()) {
    const bool good = std::isfinite(v) && (allowed != Allowed::not_negative || v >= 0) &&
                      (allowed != Allowed::positive || v > 0) && (allowed != Allowed::not_zero || v != 0);
    check(good, "[packed model] {} holds {}; the file is damaged", what, v);
  }
}

// The state of an activation quantizer: without this the first picture would meet the damage, far from the
// file. A learned step counts by its magnitude.
void check_activation_numbers(const std::string& name, const Tensor& tensor, const std::string& path) {
  if (tensor.dtype() != DType::f32) return;  // flags
  const bool range = name.ends_with(".input_scale") || name.ends_with(".act_clip");
  const Allowed allowed =
      range ? Allowed::positive : (name.ends_with(".act_step") ? Allowed::not_zero : Allowed::all);
  check_numbers(tensor, allowed, fmt::format("'{}' in {}", name, path));
}

// Only asymmetric levels have an offset of their own; that of the others is a constant part of a step.
Tensor offset_of(const Tensor& scale, const WeightSpec& spec) {
  const auto half = static_cast<float>(code_range(spec).half);
  Tensor offset = Tensor::empty_like(scale);
  for (std::int64_t g = 0; g < scale.numel(); ++g) offset.data<float>()[g] = half * scale.data<float>()[g];
  return offset;
}

// Codes that count from zero, as those into a table of levels do.
WeightSpec counting_spec(int bits) {
  return {.bits = bits, .scheme = WeightScheme::asymmetric};
}

struct LevelCodes {
  Tensor levels;  // [groups, n]
  Tensor codes;   // the shape of the weights
};

// The weights as places in the table of all values they take; a shorter row of it repeats its last.
LevelCodes codes_of_levels(const Tensor& w, int bits, Granularity granularity, const std::string& name) {
  const std::int64_t groups = granularity == Granularity::channel ? w.dim(-1) : 1;
  const auto values = w.span<float>();
  std::vector<std::vector<float>> rows(static_cast<std::size_t>(groups));
  const auto row_of = [&](std::size_t i) -> auto& {
    return rows[i % rows.size()];
  };
  for (std::size_t i = 0; i < values.size(); ++i) {
    check(std::isfinite(values[i]), "[packed model] '{}' has a value of {}; find out where it comes from",
          name, values[i]);
    row_of(i).push_back(values[i]);
  }
  std::size_t most = 0;
  for (auto& row : rows) {
    std::sort(row.begin(), row.end());
    row.erase(std::unique(row.begin(), row.end()), row.end());
    most = std::max(most, row.size());
  }
  check(most <= (std::size_t{1} << bits),
        "[packed model] '{}' takes {} different values where {} bits have {} levels; round the weights "
        "first, or "
        "count the levels of each channel",
        name, most, bits, 1 << bits);
  LevelCodes table{Tensor::empty({groups, static_cast<std::int64_t>(most)}, DType::f32),
                   Tensor::empty(w.shape(), DType::u8)};
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto& row = row_of(i);
    table.codes.data<std::uint8_t>()[i] =
        static_cast<std::uint8_t>(std::lower_bound(row.begin(), row.end(), values[i]) - row.begin());
  }
  auto* level = table.levels.data<float>();
  for (auto& row : rows) {
    row.resize(most, row.back());
    level = std::copy(row.begin(), row.end(), level);
  }
  return table;
}

Tensor weights_of_levels(const Tensor& codes, const Tensor& levels, const std::string& name,
                         const std::string& source) {
  Tensor w = Tensor::empty(codes.shape(), DType::f32);
  const std::int64_t groups = levels.dim(0), count = levels.dim(1);
  for (std::int64_t i = 0; i < codes.numel(); ++i) {
    const std::int64_t code = codes.data<std::uint8_t>()[i];
    check(code < count, "[packed model] {}: '{}' has code {} of {} levels; the file is damaged", source, name,
          code, count);
    w.data<float>()[i] = levels.data<float>()[i % groups * count + code];
  }
  return w;
}

WeightSpec spec_of(const QuantizationOptions& options, int bits) {
  return {.bits = bits,
          .scheme = options.weight_scheme,
          .granularity = options.weight_granularity,
          .clip = options.weight_clip,
          .percentile = options.weight_percentile};
}

nlohmann::ordered_json quantizer_json(const QuantizationOptions& o) {
  return {{"weight_scheme", weight_scheme_name(o.weight_scheme)},
          {"granularity", granularity_name(o.weight_granularity)},
          {"activation_scheme", activation_scheme_name(o.activation_scheme)},
          {"input_scheme", input_scheme_name(o.input_scheme)},
          {"input_bits", o.input_bits}};
}

QuantizationOptions quantizer_from_json(const std::string& text, const std::string& source) {
  const nlohmann::json json = parse_json(text, "packed model", source);
  try {
    QuantizationOptions o;
    o.weight_scheme = parse_weight_scheme(json.at("weight_scheme").get<std::string>());
    o.weight_granularity = parse_granularity(json.at("granularity").get<std::string>());
    o.activation_scheme = parse_activation_scheme(json.at("activation_scheme").get<std::string>());
    o.input_scheme = parse_input_scheme(json.at("input_scheme").get<std::string>());
    o.input_bits = json.at("input_bits").get<int>();
    o.weight_clip = ClipRule::min_max;  // the levels are stored, not chosen
    return o;
  } catch (const UsageError& e) {
    fail("[packed model] the metadata \"quantizer\" of {}: {}; this file is of another program or damaged",
         source, e.what());
  } catch (const nlohmann::json::exception& e) {
    fail("[packed model] the metadata \"quantizer\" of {} is damaged: {}; write the file again", source,
         e.what());
  }
}

const std::string& metadata_of(const SafeTensors& file, const std::string& key) {
  const auto it = file.metadata.find(key);
  check(it != file.metadata.end(), "[packed model] {} has no \"{}\" in its metadata; it is no packed model",
        file.path, key);
  return it->second;
}

}  // namespace

PackedSize write_packed_model(const std::string& path, const QuantizedModel& quantized,
                              std::map<std::string, std::string> metadata, const RoundedWeights& rounded) {
  PackedSize size;
  BitAssignment bits = quantized.bits();
  for (const auto& [name, width] : rounded.bits) {
    const auto layer = std::find_if(bits.layers.begin(), bits.layers.end(),
                                    [&name = name](const LayerBits& l) { return l.name == name; });
    check(layer != bits.layers.end() && layer->weight == kFullPrecision,
          "[packed model] '{}' is no layer whose weights are left at 32 bits", name);
    check(1 <= width && width <= 8, "[packed model] '{}' has {} bits; 1 to 8 can be packed", name, width);
    layer->weight = width;
  }
  StateDict tensors;
  StateDict state = state_dict(quantized.model());
  for (const LayerBits& layer : bits.layers) {
    check(quantized.enabled(layer.name),
          "[packed model] layer '{}' is not quantized yet; enable it before writing {}", layer.name, path);
    const std::string weight = layer.name + ".weight";
    const auto full =
        std::find_if(state.begin(), state.end(), [&](const auto& entry) { return entry.first == weight; });
    check(full != state.end(), "[packed model] the model has no parameter '{}'", weight);
    if (layer.weight == kFullPrecision) {
      size.full_weights += byte_size(full->second);
      continue;
    }
    check(full->second.dtype() == DType::f32, "[packed model] '{}' is {}; packed files hold f32 models",
          weight, full->second.dtype());
    const WeightSpec spec = spec_of(quantized.options(), layer.weight);
    const Tensor values = full->second;
    const Shape file_shape = values.shape();
    state.erase(full);
    const auto add_scales = [&](const char* suffix, const Tensor& scales) {
      tensors.emplace_back(weight + suffix, scales);
      size.scales += byte_size(scales);
    };
    if (rounded.bits.contains(layer.name)) {
      const LevelCodes table =
          codes_of_levels(to_memory_layout(values), layer.weight, rounded.granularity, weight);
      tensors.emplace_back(weight + kCodes, pack(to_file_layout(table.codes), counting_spec(layer.weight)));
      size.codes += byte_size(tensors.back().second);
      add_scales(kLevels, table.levels);
      continue;
    }
    const QuantizedTensor q = quantized.quantized_weight(layer.name);
    const Tensor codes = pack(to_file_layout(q.codes), spec);
    tensors.emplace_back(weight + kCodes, codes);
    size.codes += byte_size(codes);
    WeightGrid grid = q.grid;
    if (spec.scheme == WeightScheme::lq_nets) {
      add_scales(kBasis, grid.basis);
    } else {
      add_scales(kScale, grid.scale);
      if (spec.scheme == WeightScheme::asymmetric) {
        add_scales(kOffset, grid.offset);
      } else {
        grid.offset = offset_of(grid.scale, spec);
      }
    }
    const Tensor back = dequantize(to_memory_layout(unpack(codes, file_shape, spec, weight)), spec, grid);
    check(std::memcmp(back.raw(), q.dequantized.raw(), static_cast<std::size_t>(byte_size(back))) == 0,
          "[packed model] the levels of '{}' do not come back to the bit from {} {} codes; keep the unpacked "
          "file and report this",
          weight, layer.weight, weight_scheme_name(spec.scheme));
  }
  for (auto& [name, tensor] : quantized.state(StateOf::activations)) {
    size.ranges += byte_size(tensor);
    tensors.emplace_back(std::string(kStatePrefix) + name, tensor);
  }
  std::int64_t rest = 0;
  for (auto& entry : state) {
    rest += byte_size(entry.second);
    tensors.push_back(std::move(entry));
  }
  size.other = rest - size.full_weights;
  metadata["format"] = kFormat;
  metadata["bits"] = to_json(bits);
  metadata["quantizer"] = quantizer_json(quantized.options()).dump();
  write_safetensors(path, tensors, metadata);
  size.header = static_cast<std::int64_t>(std::filesystem::file_size(path)) - size.total();
  return size;
}

PackedModel load_packed_model(const std::string& path, Module& model) {
  const SafeTensors file = read_safetensors(path);
  check(is_packed_model(file.metadata), "[packed model] {} is no packed model; load it as a checkpoint",
        path);
  PackedModel packed{nullptr, bits_from_json(metadata_of(file, "bits"), path), file.metadata};
  const QuantizationOptions options = quantizer_from_json(metadata_of(file, "quantizer"), path);
  const auto take = [&](const std::string& name, const Shape& shape, DType dtype) -> const Tensor& {
    const Tensor& tensor = file.at(name);
    check(tensor.shape() == shape && tensor.dtype() == dtype,
          "[packed model] {}: '{}' is {} {} where {} {} belongs; it is of another model or damaged", path,
          name, tensor.dtype(), tensor.shape(), dtype, shape);
    return tensor;
  };

  StateDict weights;
  std::vector<std::pair<std::string, Tensor>> state;
  for (const auto& [name, layer] : weighted_layers(model)) {
    const std::string weight = name + ".weight";
    const WeightSpec spec = spec_of(options, packed.bits.layer(name).weight);
    if (spec.bits == kFullPrecision) continue;
    const Tensor& now = layer->weight.value();
    const Tensor& codes = take(weight + kCodes, {packed_bytes(now.numel(), spec.bits)}, DType::u8);
    const Shape file_shape = to_file_layout(now).shape();
    if (const Tensor* levels = file.find(weight + kLevels); levels != nullptr) {
      const bool fits = levels->dtype() == DType::f32 && levels->ndim() == 2 && levels->numel() > 0 &&
                        (levels->dim(0) == 1 || levels->dim(0) == now.dim(-1));
      check(fits, "[packed model] {}: '{}' is {} {}; it is of another model or damaged", path,
            weight + kLevels, levels->dtype(), levels->shape());
      check_numbers(*levels, Allowed::all, fmt::format("'{}' in {}", weight + kLevels, path));
      const Tensor places = to_memory_layout(unpack(codes, file_shape, counting_spec(spec.bits),
                                                    fmt::format("'{}' in {}", weight + kCodes, path)));
      weights.emplace_back(weight, to_file_layout(weights_of_levels(places, *levels, weight + kCodes, path)));
      continue;
    }
    const std::int64_t groups = spec.granularity == Granularity::channel ? now.dim(-1) : 1;
    WeightGrid grid;
    if (spec.scheme == WeightScheme::lq_nets) {
      grid.basis = take(weight + kBasis, {groups, spec.bits}, DType::f32);
    } else {
      grid.scale = take(weight + kScale, {groups}, DType::f32);
      grid.offset = spec.scheme == WeightScheme::asymmetric ? take(weight + kOffset, {groups}, DType::f32)
                                                            : offset_of(grid.scale, spec);
    }
    for (const auto& [numbers, suffix] :
         {std::pair(grid.scale, kScale), {grid.offset, kOffset}, {grid.basis, kBasis}}) {
      if (numbers.defined())
        check_numbers(numbers, suffix == kScale ? Allowed::not_negative : Allowed::all,
                      fmt::format("'{}' in {}", weight + suffix, path));
    }
    const Tensor unpacked =
        to_memory_layout(unpack(codes, file_shape, spec, fmt::format("'{}' in {}", weight + kCodes, path)));
    weights.emplace_back(weight, to_file_layout(dequantize(unpacked, spec, grid)));
  }
  for (const auto& [name, tensor] : file.tensors) {
    if (name.starts_with(kStatePrefix)) {
      check_activation_numbers(name, tensor, path);
      state.emplace_back(name.substr(kStatePrefix.size()), tensor);
    } else if (!name.ends_with(kCodes) && !name.ends_with(kScale) && !name.ends_with(kOffset) &&
               !name.ends_with(kBasis) && !name.ends_with(kLevels)) {
      weights.emplace_back(name, tensor);
    }
  }
  load_state_dict(model, weights, path);
  BitAssignment activations = packed.bits;
  for (LayerBits& layer : activations.layers) layer.weight = kFullPrecision;
  packed.quantized = std::make_unique<QuantizedModel>(model, activations, options);
  packed.quantized->load_state(state, path);
  return packed;
}

bool is_packed_model(const std::map<std::string, std::string>& metadata) {
  const auto it = metadata.find("format");
  return it != metadata.end() && it->second == kFormat;
}

}  // namespace goshawk
