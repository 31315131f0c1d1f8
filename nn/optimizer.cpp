#include "nn/optimizer.hpp"

#include <algorithm>
#include <set>

#include "core/error.hpp"
#include "core/parallel.hpp"

namespace goshawk {
namespace {

constexpr const char* kPrefix = "momentum.";

std::vector<ParameterGroup> one_group(std::vector<NamedParameter> parameters, double weight_decay) {
  std::vector<ParameterGroup> groups(1);
  groups.front().parameters = std::move(parameters);
  groups.front().weight_decay = weight_decay;
  return groups;
}

template <class T>
struct Factors {
  T lr, momentum, weight_decay;
  bool nesterov;
};

template <class T>
void update(T* __restrict p, const T* __restrict gradient, T* __restrict buffer, std::int64_t n,
            const Factors<T>& f) {
  parallel_for(n, kElementwiseGrain, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const T g = gradient[i] + f.weight_decay * p[i];
      if (buffer == nullptr) {
        p[i] -= f.lr * g;
        continue;
      }
      const T m = f.momentum * buffer[i] + g;
      buffer[i] = m;
      p[i] -= f.lr * (f.nesterov ? g + f.momentum * m : m);
    }
  });
}

}  // namespace

Sgd::Sgd(std::vector<NamedParameter> parameters, const SgdOptions& options)
    : Sgd(one_group(std::move(parameters), options.weight_decay), options) {}

Sgd::Sgd(std::vector<ParameterGroup> groups, const SgdOptions& options)
    : options_(options), groups_(std::move(groups)) {
  check(options.momentum >= 0 && options.momentum < 1, "[Sgd] momentum {} is outside [0, 1)",
        options.momentum);
  check(!options.nesterov || options.momentum > 0, "[Sgd] Nesterov's step needs a momentum above 0");
  set_lr(options.lr);
  std::set<std::string> names;
  for (const ParameterGroup& group : groups_) {
    check(group.lr_multiplier >= 0 && group.weight_decay >= 0,
          "[Sgd] a group's lr_multiplier {} and weight_decay {} must not be negative", group.lr_multiplier,
          group.weight_decay);
    for (const NamedParameter& parameter : group.parameters) {
      check(names.insert(parameter.name).second, "[Sgd] parameter '{}' was given twice", parameter.name);
      check(parameter.variable.defined(), "[Sgd] parameter '{}' is undefined", parameter.name);
      parameters_.push_back(parameter.variable);
      if (options.momentum > 0) momentum_.push_back(Tensor::zeros_like(parameter.variable.value()));
    }
  }
}

void Sgd::set_lr(double lr) {
  check(lr >= 0, "[Sgd] the learning rate {} must not be negative", lr);
  options_.lr = lr;
}

void Sgd::step(std::span<const Variable> gradients) {
  check(gradients.size() == parameters_.size(), "[Sgd] {} gradients were given for {} parameters",
        gradients.size(), parameters_.size());
  std::size_t i = 0;
  for (const ParameterGroup& group : groups_) {
    for (const NamedParameter& parameter : group.parameters) {
      const Tensor& value = parameter.variable.value();
      const Tensor& gradient = gradients[i].value();
      check(gradient.defined() && gradient.shape() == value.shape() && gradient.dtype() == value.dtype(),
            "[Sgd] parameter '{}' is {} {} but its gradient is {} {}", parameter.name, value.dtype(),
            value.shape(), gradient.defined() ? dtype_name(gradient.dtype()) : "undefined", gradient.shape());
      ++i;
    }
  }
  i = 0;
  for (const ParameterGroup& group : groups_) {
    for (const NamedParameter& parameter : group.parameters) {
      const Tensor& value = parameter.variable.value();
      dispatch_floating(value.dtype(), "Sgd", [&]<class T>() {
        const Factors<T> factors{.lr = static_cast<T>(options_.lr * group.lr_multiplier),
                                 .momentum = static_cast<T>(options_.momentum),
                                 .weight_decay = static_cast<T>(group.weight_decay),
                                 .nesterov = options_.nesterov};
        update(value.data<T>(), gradients[i].value().data<T>(),
               momentum_.empty() ? nullptr : momentum_[i].data<T>(), value.numel(), factors);
      });
      ++i;
    }
  }
}

std::vector<NamedBuffer> Sgd::state() const {
  std::vector<NamedBuffer> all;
  if (momentum_.empty()) return all;
  std::size_t i = 0;
  for (const ParameterGroup& group : groups_) {
    for (const NamedParameter& parameter : group.parameters) {
      all.push_back({kPrefix + parameter.name, momentum_[i++]});
    }
  }
  return all;
}

void Sgd::load_state(std::span<const std::pair<std::string, Tensor>> state, const std::string& source) {
  const std::vector<NamedBuffer> own = this->state();
  std::vector<const Tensor*> found;
  for (const NamedBuffer& buffer : own) {
    const auto it = std::find_if(state.begin(), state.end(),
                                 [&](const auto& entry) { return entry.first == buffer.name; });
    check(it != state.end(),
          "[Sgd::load_state] {}: tensor '{}' is missing; resume with the options the run was started with, "
          "or start "
          "anew",
          source, buffer.name);
    check(it->second.shape() == buffer.tensor.shape() && it->second.dtype() == buffer.tensor.dtype(),
          "[Sgd::load_state] {}: tensor '{}' is {} {} instead of {} {}; resume with the model the run was "
          "started "
          "with",
          source, buffer.name, it->second.dtype(), it->second.shape(), buffer.tensor.dtype(),
          buffer.tensor.shape());
    found.push_back(&it->second);
  }
  for (const auto& entry : state) {
    check(std::any_of(own.begin(), own.end(),
                      [&](const NamedBuffer& buffer) { return buffer.name == entry.first; }),
          "[Sgd::load_state] {}: tensor '{}' belongs to no parameter of this optimiser; resume with the "
          "options the "
          "run was started with",
          source, entry.first);
  }
  check(state.size() == own.size(), "[Sgd::load_state] {}: {} tensors were given for {}; a name occurs twice",
        source, state.size(), own.size());
  for (std::size_t i = 0; i < own.size(); ++i) own[i].tensor.copy_from(*found[i]);
}

}  // namespace goshawk
