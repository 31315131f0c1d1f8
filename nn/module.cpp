#include "nn/module.hpp"

#include <algorithm>
#include <functional>
#include <unordered_map>

#include "core/error.hpp"

namespace goshawk {

void Module::check_name(std::string_view name) const {
  check(!name.empty() && name.find('.') == std::string_view::npos,
        "[Module] '{}' is no name for a member: it must not be empty or contain a dot", name);
  const auto taken = [&](const auto& entries) {
    return std::any_of(entries.begin(), entries.end(), [&](const auto& entry) { return entry.name == name; });
  };
  check(!taken(parameters_) && !taken(buffers_) && !taken(modules_),
        "[Module] the name '{}' is registered twice; members of one module need different names", name);
}

void Module::register_parameter(std::string name, Variable& parameter) {
  check_name(name);
  parameters_.push_back({std::move(name), &parameter});
}

void Module::register_buffer(std::string name, Tensor& buffer) {
  check_name(name);
  buffers_.push_back({std::move(name), &buffer});
}

void Module::register_module(std::string name, Module& module) {
  check_name(name);
  modules_.push_back({std::move(name), &module});
}

void Module::visit(const std::string& prefix,
                   const std::function<void(const std::string&, const Module&)>& f) const {
  f(prefix, *this);
  for (const auto& child : modules_) child.member->visit(prefix + child.name + '.', f);
}

void Module::set_mode(Mode mode) {
  mode_ = mode;
  for (const auto& child : modules_) child.member->set_mode(mode);
}

std::vector<NamedParameter> Module::named_parameters() const {
  std::vector<NamedParameter> all;
  visit("", [&](const std::string& prefix, const Module& module) {
    for (const auto& entry : module.parameters_) all.push_back({prefix + entry.name, *entry.member});
  });
  return all;
}

std::vector<Variable> Module::parameters() const {
  std::vector<Variable> all;
  visit("", [&](const std::string&, const Module& module) {
    for (const auto& entry : module.parameters_) all.push_back(*entry.member);
  });
  return all;
}

std::vector<NamedBuffer> Module::named_buffers() const {
  std::vector<NamedBuffer> all;
  visit("", [&](const std::string& prefix, const Module& module) {
    for (const auto& entry : module.buffers_) all.push_back({prefix + entry.name, *entry.member});
  });
  return all;
}

std::vector<NamedModule> Module::named_modules() {
  std::vector<NamedModule> all{{"", this}};
  for (const auto& child : modules_) {
    for (const NamedModule& below : child.member->named_modules()) {
      all.push_back({below.name.empty() ? child.name : child.name + '.' + below.name, below.module});
    }
  }
  return all;
}

std::int64_t Module::parameter_count() const {
  std::int64_t count = 0;
  for (const Variable& parameter : parameters()) count += parameter.numel();
  return count;
}

void Module::to(DType dtype) {
  check(is_floating(dtype), "[Module::to] a model is f32 or f64, not {}", dtype);
  // What modules share they share afterwards.
  std::unordered_map<const std::byte*, Variable> converted;
  std::function<void(Module&)> convert = [&](Module& module) {
    for (const auto& entry : module.parameters_) {
      Variable& parameter = *entry.member;
      if (parameter.dtype() == dtype) continue;
      Variable& other = converted[parameter.value().raw()];
      if (!other.defined() || parameter.numel() == 0 || other.shape() != parameter.shape()) {
        other = Variable::leaf(parameter.value().to(dtype));
      }
      parameter = other;
    }
    for (const auto& entry : module.buffers_) *entry.member = entry.member->to(dtype);
    for (const auto& child : module.modules_) convert(*child.member);
  };
  convert(*this);
}

}  // namespace goshawk
