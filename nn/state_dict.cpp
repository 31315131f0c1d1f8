#include "nn/state_dict.hpp"

#include <algorithm>
#include <cmath>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "core/error.hpp"

namespace goshawk {
namespace {

constexpr std::string_view kParallelPrefix = "module.";
constexpr std::string_view kIgnored = ".num_batches_tracked";
constexpr std::string_view kVariance = "running_var";

/// Where a tensor of the file goes.
struct Slot {
  std::string name;
  Tensor memory;
  bool parameter;

  Shape file_shape() const {
    const Shape& s = memory.shape();
    if (parameter && s.size() == 4) return {s[3], s[2], s[0], s[1]};
    if (parameter && s.size() == 2) return {s[1], s[0]};
    return s;
  }
};

std::vector<Slot> slots(Module& model) {
  // The buffers of each module follow its own parameters, as in PyTorch; both listings keep the modules'
  // order.
  const std::vector<NamedParameter> parameters = model.named_parameters();
  const std::vector<NamedBuffer> buffers = model.named_buffers();
  const auto owner = [](const std::string& name) {
    const auto dot = name.rfind('.');
    return dot == std::string::npos ? std::string_view() : std::string_view(name).substr(0, dot);
  };
  std::vector<Slot> all;
  auto parameter = parameters.begin();
  auto buffer = buffers.begin();
  for (const NamedModule& module : model.named_modules()) {
    for (; parameter != parameters.end() && owner(parameter->name) == module.name; ++parameter) {
      all.push_back({parameter->name, parameter->variable.value(), true});
    }
    for (; buffer != buffers.end() && owner(buffer->name) == module.name; ++buffer) {
      all.push_back({buffer->name, buffer->tensor, false});
    }
  }
  return all;
}

/// Refuses numbers that the model cannot hold, or cannot compute with, where the file's own are sound.
void check_values(const Slot& slot, const Tensor& file, const Tensor& converted, const std::string& source) {
  const bool is_variance = !slot.parameter && slot.name.ends_with(kVariance);
  if (file.dtype() == converted.dtype() && !is_variance) return;
  const Tensor before = file.to(DType::f64), after = converted.to(DType::f64);
  for (std::int64_t k = 0; k < before.numel(); ++k) {
    const double value = before.data<double>()[k];
    check(!std::isfinite(value) || std::isfinite(after.data<double>()[k]),
          "[load_state_dict] {}: tensor '{}' has the element {}, which is too large for {}; load it into a "
          "model "
          "of {}",
          source, slot.name, value, converted.dtype(), file.dtype());
    check(!is_variance || !(value < 0),
          "[load_state_dict] {}: tensor '{}' has the element {}, and a variance is not negative; the file is "
          "damaged",
          source, slot.name, value);
  }
}

}  // namespace

Tensor to_file_layout(const Tensor& memory) {
  if (memory.ndim() == 4) return permute(memory, {3, 2, 0, 1});
  if (memory.ndim() == 2) return permute(memory, {1, 0});
  return memory;
}

Tensor to_memory_layout(const Tensor& file) {
  if (file.ndim() == 4) return permute(file, {2, 3, 1, 0});
  if (file.ndim() == 2) return permute(file, {1, 0});
  return file;
}

StateDict state_dict(Module& model) {
  StateDict entries;
  for (const Slot& slot : slots(model)) {
    const Tensor file = slot.parameter ? to_file_layout(slot.memory) : slot.memory;
    // Rank 1 is the same in both layouts and so far still the model's own storage.
    entries.emplace_back(slot.name, file.raw() == slot.memory.raw() ? file.clone() : file);
  }
  return entries;
}

void load_state_dict(Module& model, const StateDict& entries, const std::string& source) {
  const std::vector<Slot> expected = slots(model);
  const auto has_prefix = [](const auto& entry) { return entry.first.starts_with(kParallelPrefix); };
  const auto in_file = [&](const Slot& slot) {
    return std::any_of(entries.begin(), entries.end(),
                       [&](const auto& entry) { return entry.first == slot.name; });
  };
  // Unless it is the model's own.
  const bool prefixed = !entries.empty() && std::all_of(entries.begin(), entries.end(), has_prefix) &&
                        !std::all_of(expected.begin(), expected.end(), in_file);
  std::unordered_map<std::string, const Tensor*> given;
  for (const auto& [full_name, tensor] : entries) {
    const std::string name = full_name.substr(prefixed ? kParallelPrefix.size() : 0);
    if (name == kIgnored.substr(1) || name.ends_with(kIgnored)) continue;
    check(given.emplace(name, &tensor).second,
          "[load_state_dict] {}: tensor '{}' occurs twice; write the file again with unique names", source,
          name);
  }

  std::vector<const Tensor*> sources;
  for (const Slot& slot : expected) {
    const auto it = given.find(slot.name);
    check(
        it != given.end(),
        "[load_state_dict] {}: tensor '{}' (shape {}) is missing; choose the model this file was saved from",
        source, slot.name, slot.file_shape());
    const Tensor& tensor = *it->second;
    check(is_floating(tensor.dtype()), "[load_state_dict] {}: tensor '{}' is {}; save it as f32 or f64",
          source, slot.name, tensor.dtype());
    check(tensor.shape() == slot.file_shape(),
          "[load_state_dict] {}: tensor '{}' has shape {} but the model needs {}; choose the model this file "
          "was saved "
          "from",
          source, slot.name, tensor.shape(), slot.file_shape());
    sources.push_back(&tensor);
  }
  if (given.size() > expected.size()) {
    std::unordered_set<std::string_view> known;
    for (const Slot& slot : expected) known.insert(slot.name);
    for (const auto& [full_name, tensor] : entries) {
      const std::string name = full_name.substr(prefixed ? kParallelPrefix.size() : 0);
      check(!given.contains(name) || known.contains(name),
            "[load_state_dict] {}: tensor '{}' (shape {}) is not part of the model; choose the model this "
            "file was "
            "saved from",
            source, full_name, tensor.shape());
    }
  }

  std::vector<Tensor> converted;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    converted.push_back(sources[i]->to(expected[i].memory.dtype()));
    check_values(expected[i], *sources[i], converted.back(), source);
  }
  for (std::size_t i = 0; i < expected.size(); ++i) {
    expected[i].memory.copy_from(expected[i].parameter ? to_memory_layout(converted[i]) : converted[i]);
  }
}

}  // namespace goshawk
