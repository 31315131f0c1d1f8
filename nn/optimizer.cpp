#include "nn/optimizer.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string>
#include <string_view>

#include "core/error.hpp"
#include "core/parallel.hpp"
#include "nn/named_tensors.hpp"

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
  for (std::int64_t i = 0; i < n; ++i) {
    const T g = gradient[i] + f.weight_decay * p[i];
    if (buffer == nullptr) {
      p[i] -= f.lr * g;
      continue;
    }
    const T m = f.momentum * buffer[i] + g;
    buffer[i] = m;
    p[i] -= f.lr * (f.nesterov ? g + f.momentum * m : m);
  }
}

/// Calls piece(i, begin, end) for runs of elements of parameter i that together are all elements of all
/// parameters. One loop: most parameters are too small to be shared out each by itself.
template <class Piece>
void for_each_piece(const std::vector<Variable>& parameters, const Piece& piece) {
  std::vector<std::int64_t> first{0};  // elements before each parameter, and all
  for (const Variable& p : parameters) first.push_back(first.back() + p.numel());
  parallel_for(first.back(), kElementwiseGrain, [&](std::int64_t begin, std::int64_t end) {
    auto i =
        static_cast<std::size_t>(std::upper_bound(first.begin(), first.end(), begin) - first.begin() - 1);
    for (; begin < end; ++i) {
      const std::int64_t stop = std::min(end, first[i + 1]);
      piece(i, begin - first[i], stop - first[i]);
      begin = stop;
    }
  });
}

/// Refuses parameters of which an optimiser could not keep a state of their own. One that two layers share
/// would be moved twice a step, each time by the whole gradient.
class Distinct {
 public:
  explicit Distinct(std::string_view optimiser) : optimiser_(optimiser) {}

  void add(const NamedParameter& parameter) {
    check(names_.insert(parameter.name).second, "[{}] parameter '{}' was given twice", optimiser_,
          parameter.name);
    check(parameter.variable.defined(), "[{}] parameter '{}' is undefined", optimiser_, parameter.name);
    const auto [known, is_new] = owners_.try_emplace(parameter.variable.value().raw(), parameter.name);
    check(is_new || parameter.variable.numel() == 0,
          "[{}] parameters '{}' and '{}' are the same; give what layers share once", optimiser_,
          known->second, parameter.name);
  }

 private:
  std::string_view optimiser_;
  std::set<std::string> names_;
  std::map<const void*, std::string> owners_;
};

void check_gradient(const NamedParameter& parameter, const Variable& gradient, std::string_view optimiser) {
  const Tensor& value = parameter.variable.value();
  const Tensor& g = gradient.value();
  check(g.defined() && g.shape() == value.shape() && g.dtype() == value.dtype(),
        "[{}] parameter '{}' is {} {} but its gradient is {} {}", optimiser, parameter.name, value.dtype(),
        value.shape(), g.defined() ? dtype_name(g.dtype()) : "undefined", g.shape());
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
  Distinct distinct("Sgd");
  for (const ParameterGroup& group : groups_) {
    check(group.lr_multiplier >= 0 && group.weight_decay >= 0,
          "[Sgd] a group's lr_multiplier {} and weight_decay {} must not be negative", group.lr_multiplier,
          group.weight_decay);
    for (const NamedParameter& parameter : group.parameters) {
      distinct.add(parameter);
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
  std::vector<const ParameterGroup*> group_of;
  for (const ParameterGroup& group : groups_) {
    for (const NamedParameter& parameter : group.parameters) {
      check_gradient(parameter, gradients[group_of.size()], "Sgd");
      group_of.push_back(&group);
    }
  }
  for_each_piece(parameters_, [&](std::size_t i, std::int64_t begin, std::int64_t end) {
    const Tensor& value = parameters_[i].value();
    dispatch_floating(value.dtype(), "Sgd", [&]<class T>() {
      const Factors<T> factors{.lr = static_cast<T>(options_.lr * group_of[i]->lr_multiplier),
                               .momentum = static_cast<T>(options_.momentum),
                               .weight_decay = static_cast<T>(group_of[i]->weight_decay),
                               .nesterov = options_.nesterov};
      update(value.data<T>() + begin, gradients[i].value().data<T>() + begin,
             momentum_.empty() ? nullptr : momentum_[i].data<T>() + begin, end - begin, factors);
    });
  });
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
  copy_named_tensors(this->state(), state, source, "Sgd");
}

Adam::Adam(std::vector<NamedParameter> parameters, const AdamOptions& options)
    : options_(options), parameters_(std::move(parameters)), steps_(Tensor::zeros({1}, DType::i64)) {
  check(options.beta1 >= 0 && options.beta1 < 1 && options.beta2 >= 0 && options.beta2 < 1,
        "[Adam] beta1 {} and beta2 {} must be in [0, 1)", options.beta1, options.beta2);
  check(options.eps > 0 && options.weight_decay >= 0,
        "[Adam] eps {} must be positive and weight_decay {} not negative", options.eps, options.weight_decay);
  set_lr(options.lr);
  Distinct distinct("Adam");
  for (const NamedParameter& parameter : parameters_) {
    distinct.add(parameter);
    variables_.push_back(parameter.variable);
    first_.push_back(Tensor::zeros_like(parameter.variable.value()));
    second_.push_back(Tensor::zeros_like(parameter.variable.value()));
  }
}

void Adam::set_lr(double lr) {
  check(lr >= 0, "[Adam] the learning rate {} must not be negative", lr);
  options_.lr = lr;
}

void Adam::step(std::span<const Variable> gradients) {
  check(gradients.size() == parameters_.size(), "[Adam] {} gradients were given for {} parameters",
        gradients.size(), parameters_.size());
  for (std::size_t i = 0; i < parameters_.size(); ++i) check_gradient(parameters_[i], gradients[i], "Adam");
  check(*steps_.data<std::int64_t>() >= 0,
        "[Adam] the state counts {} steps; it is damaged, load another or start anew",
        *steps_.data<std::int64_t>());
  const auto t = static_cast<double>(++*steps_.data<std::int64_t>());
  const double unbias1 = 1 / (1 - std::pow(options_.beta1, t));
  const double unbias2 = 1 / (1 - std::pow(options_.beta2, t));
  for_each_piece(variables_, [&](std::size_t i, std::int64_t begin, std::int64_t end) {
    const Tensor& value = variables_[i].value();
    dispatch_floating(value.dtype(), "Adam", [&]<class T>() {
      T* __restrict p = value.data<T>();
      const T* __restrict gradient = gradients[i].value().data<T>();
      T* __restrict m = first_[i].data<T>();
      T* __restrict v = second_[i].data<T>();
      const T beta1 = static_cast<T>(options_.beta1), rest1 = static_cast<T>(1 - options_.beta1);
      const T beta2 = static_cast<T>(options_.beta2), rest2 = static_cast<T>(1 - options_.beta2);
      const T rate = static_cast<T>(options_.lr * unbias1), of_v = static_cast<T>(unbias2);
      const T eps = static_cast<T>(options_.eps), decay = static_cast<T>(options_.weight_decay);
      for (std::int64_t k = begin; k < end; ++k) {
        const T g = gradient[k] + decay * p[k];
        m[k] = beta1 * m[k] + rest1 * g;
        v[k] = beta2 * v[k] + rest2 * g * g;
        p[k] -= rate * m[k] / (std::sqrt(v[k] * of_v) + eps);
      }
    });
  });
}

std::vector<NamedBuffer> Adam::state() const {
  std::vector<NamedBuffer> all{{"adam.step", steps_}};
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    all.push_back({"adam.m." + parameters_[i].name, first_[i]});
    all.push_back({"adam.v." + parameters_[i].name, second_[i]});
  }
  return all;
}

void Adam::load_state(std::span<const std::pair<std::string, Tensor>> state, const std::string& source) {
  copy_named_tensors(this->state(), state, source, "Adam");
}

}  // namespace goshawk
