#include "autograd/gradcheck.hpp"

#include <cmath>

#include "autograd/grad.hpp"
#include "autograd/jvp.hpp"
#include "autograd/ops.hpp"
#include "core/random.hpp"

namespace goshawk {
namespace {

double inner(const Tensor& a, const Tensor& b) {
  double s = 0;
  for (std::int64_t i = 0; i < a.numel(); ++i) s += a.data<double>()[i] * b.data<double>()[i];
  return s;
}

std::vector<Variable> leaves(const std::vector<Tensor>& values) {
  std::vector<Variable> v;
  for (const Tensor& value : values) {
    check(value.dtype() == DType::f64, "[gradcheck] inputs must be f64 for sharp differences, not {}",
          value.dtype());
    v.push_back(Variable::leaf(value.clone()));
  }
  return v;
}

std::vector<Tensor> moved(const std::vector<Tensor>& x, const std::vector<Tensor>& v, double h) {
  std::vector<Tensor> y;
  for (std::size_t k = 0; k < x.size(); ++k) {
    y.push_back(x[k].clone());
    for (std::int64_t i = 0; i < x[k].numel(); ++i) y[k].data<double>()[i] += h * v[k].data<double>()[i];
  }
  return y;
}

double relative_error(double a, double b) {
  return std::abs(a - b) / std::max({1.0, std::abs(a), std::abs(b)});
}

// NaN is worse than any number, and nothing is worse than NaN.
bool is_worse(double error, double worst) {
  return std::isnan(error) ? !std::isnan(worst) : error > worst;
}

using Functions = std::function<std::vector<Variable>(const std::vector<Variable>&)>;

// gradcheck of a function with several outputs: φ(x) = Σ_k ⟨u_k, f_k(x)⟩.
GradcheckResult check_gradient(const Functions& f, const std::vector<Tensor>& inputs,
                               const GradcheckOptions& options, const char* order) {
  Random random(options.seed, 0x67726164);
  const std::vector<Variable> x = leaves(inputs);
  const std::vector<Variable> y = f(x);
  std::vector<Tensor> cotangents, direction;
  GradOptions grad_options{.allow_unused = true};
  for (const Variable& output : y) {
    cotangents.push_back(random_normal(output.shape(), DType::f64, random));
    grad_options.grad_outputs.emplace_back(cotangents.back());
  }
  for (const Tensor& input : inputs) direction.push_back(random_normal(input.shape(), DType::f64, random));

  GradcheckResult result;
  const std::vector<Variable> gradients = grad(y, x, grad_options);
  for (std::size_t k = 0; k < inputs.size(); ++k)
    result.analytic += inner(gradients[k].value(), direction[k]);

  const auto phi = [&](double h) {
    const std::vector<Variable> values = f(leaves(moved(inputs, direction, h)));
    double s = 0;
    for (std::size_t k = 0; k < values.size(); ++k) s += inner(values[k].value(), cotangents[k]);
    return s;
  };
  result.numeric = (phi(options.step) - phi(-options.step)) / (2 * options.step);
  result.error = relative_error(result.analytic, result.numeric);
  result.ok = result.error <= options.tolerance;  // false for NaN
  result.message = fmt::format(
      "{} derivative: analytic {:.12g}, central difference {:.12g}, error {:.3g} ({} {:.3g})", order,
      result.analytic, result.numeric, result.error, result.ok ? "within" : "above", options.tolerance);
  return result;
}

// (x, u) ↦ ∂⟨u, f(x)⟩/∂x for all inputs; u is the last element.
std::vector<Variable> gradient_function(const CheckedFunction& f, const std::vector<Variable>& xu) {
  const std::vector<Variable> x(xu.begin(), xu.end() - 1);
  return grad(f(x), x, {.grad_outputs = {xu.back()}, .create_graph = true, .allow_unused = true});
}

std::vector<Tensor> with_cotangent(const CheckedFunction& f, const std::vector<Tensor>& inputs,
                                   const GradcheckOptions& options) {
  Random random(options.seed, 0x67726164 + 1);
  std::vector<Tensor> xu = inputs;
  xu.push_back(random_normal(f(leaves(inputs)).shape(), DType::f64, random));
  return xu;
}

}  // namespace

GradcheckResult gradcheck(const CheckedFunction& f, const std::vector<Tensor>& inputs,
                          const GradcheckOptions& options) {
  return check_gradient([&](const std::vector<Variable>& x) { return std::vector{f(x)}; }, inputs, options,
                        "first");
}

GradcheckResult gradgradcheck(const CheckedFunction& f, const std::vector<Tensor>& inputs,
                              const GradcheckOptions& options) {
  return check_gradient([&](const std::vector<Variable>& xu) { return gradient_function(f, xu); },
                        with_cotangent(f, inputs, options), options, "second");
}

GradcheckResult surrogatecheck(const CheckedFunction& f, const CheckedFunction& surrogate,
                               const std::vector<Tensor>& inputs, const GradcheckOptions& options) {
  const std::vector<Tensor> xu = with_cotangent(f, inputs, options);
  Random random(options.seed, 0x67726164 + 2);
  GradcheckResult result;
  const auto compare = [&](const std::vector<Variable>& a, const std::vector<Variable>& b,
                           const char* order) {
    for (std::size_t k = 0; k < a.size(); ++k) {
      for (std::int64_t i = 0; i < a[k].numel(); ++i) {
        const double analytic = a[k].value().data<double>()[i];
        const double expected = b[k].value().data<double>()[i];
        const double error = relative_error(analytic, expected);
        if (!is_worse(error, result.error)) continue;
        result.analytic = analytic;
        result.numeric = expected;
        result.error = error;
        result.message = fmt::format("{} derivative: {:.12g}, of the surrogate {:.12g}, error {:.3g}", order,
                                     analytic, expected, error);
      }
    }
  };
  std::vector<Tensor> v;
  for (const Tensor& input : inputs) v.push_back(random_normal(input.shape(), DType::f64, random));
  const auto derivatives = [&](const CheckedFunction& function) {
    const std::vector<Variable> leaf = leaves(xu);
    std::vector<Variable> first = gradient_function(function, leaf);
    std::vector<Variable> differentiable;
    GradOptions options2{.allow_unused = true};
    for (std::size_t k = 0; k < first.size(); ++k) {
      if (!first[k].requires_grad()) continue;
      differentiable.push_back(first[k]);
      options2.grad_outputs.emplace_back(v[k]);
    }
    return std::pair(first, grad(differentiable, leaf, options2));
  };
  const auto [first, second] = derivatives(f);
  const auto [surrogate_first, surrogate_second] = derivatives(surrogate);
  compare(first, surrogate_first, "first");
  compare(second, surrogate_second, "second");
  result.ok = result.error <= options.tolerance;  // false for NaN
  return result;
}

namespace {

// Compares ⟨u, J v⟩ with ⟨Jᵀ u, v⟩ for y = f(x), and remembers the largest disagreement.
class AdjointCheck {
 public:
  AdjointCheck(std::vector<Variable> y, std::vector<Variable> x, Random& random, const char* what,
               GradcheckResult& worst)
      : y_(std::move(y)), x_(std::move(x)), what_(what), worst_(worst) {
    for (const Variable& output : y_) u_.emplace_back(random_normal(output.shape(), DType::f64, random));
    for (const Variable& input : x_) v_.emplace_back(random_normal(input.shape(), DType::f64, random));
  }

  // Every input and every output alone, and all together.
  void run() const {
    for (std::size_t i = 0; i <= x_.size(); ++i) {
      for (std::size_t k = 0; k <= y_.size(); ++k) compare(i, k);
    }
  }
  // The same for ∂⟨u, J v⟩/∂(x, u, v) from the recorded tangents, against ∂⟨Jᵀ u, v⟩/∂(x, u, v).
  void run_recorded() const {
    std::vector<Variable> y, u, v, all = x_;
    for (std::size_t k = 0; k < y_.size(); ++k) {
      if (!y_[k].requires_grad()) continue;
      y.push_back(y_[k]);
      u.push_back(Variable::leaf(u_[k].value()));
    }
    for (const Variable& direction : v_) v.push_back(Variable::leaf(direction.value()));
    all.insert(all.end(), u.begin(), u.end());
    all.insert(all.end(), v.begin(), v.end());
    const auto derivatives = [&](const std::vector<Variable>& a, const std::vector<Variable>& b) {
      Variable sum = Tensor::scalar(0, DType::f64);
      for (std::size_t i = 0; i < a.size(); ++i) sum = add(sum, dot(a[i], b[i]));
      return grad(sum, all, {.allow_unused = true});
    };
    const std::vector<Variable> forward =
        derivatives(u, jvp(y, x_, v, {.create_graph = true, .allow_unused = true}));
    const std::vector<Variable> reverse =
        derivatives(v, grad(y, x_, {.grad_outputs = u, .create_graph = true, .allow_unused = true}));
    for (std::size_t i = 0; i < all.size(); ++i) {
      for (std::int64_t e = 0; e < all[i].numel(); ++e)
        note(forward[i].value().data<double>()[e], reverse[i].value().data<double>()[e],
             "derivative of the tangents");
    }
  }

 private:
  void compare(std::size_t input, std::size_t output) const {
    std::vector<Variable> y, u, v(x_.size());
    for (std::size_t i = 0; i < x_.size(); ++i) {
      if (input == i || input == x_.size()) v[i] = v_[i];
    }
    for (std::size_t k = 0; k < y_.size(); ++k) {
      if (output != k && output != y_.size()) continue;
      y.push_back(y_[k]);
      u.push_back(u_[k]);
    }
    const std::vector<Variable> tangents = jvp(y, x_, v, {.allow_unused = true});
    const std::vector<Variable> gradients = grad(y, x_, {.grad_outputs = u, .allow_unused = true});
    double forward = 0, reverse = 0;
    for (std::size_t k = 0; k < y.size(); ++k) forward += inner(u[k].value(), tangents[k].value());
    for (std::size_t i = 0; i < x_.size(); ++i) {
      if (v[i].defined()) reverse += inner(gradients[i].value(), v[i].value());
    }
    note(forward, reverse, what_);
  }

  void note(double forward, double reverse, const char* what) const {
    const double error = relative_error(forward, reverse);
    if (!is_worse(error, worst_.error)) return;
    worst_.analytic = forward;
    worst_.numeric = reverse;
    worst_.error = error;
    worst_.message =
        fmt::format("{}: forward {:.15g}, reverse {:.15g}, error {:.3g}", what, forward, reverse, error);
  }

  std::vector<Variable> y_, x_, u_, v_;
  const char* what_;
  GradcheckResult& worst_;
};

}  // namespace

GradcheckResult jvpcheck(const CheckedFunction& f, const std::vector<Tensor>& inputs,
                         const GradcheckOptions& options) {
  Random random(options.seed, 0x67726164 + 3);
  GradcheckResult result;
  const std::vector<Variable> x = leaves(inputs);
  const AdjointCheck first({f(x)}, x, random, "first derivative", result);
  first.run();
  first.run_recorded();
  const std::vector<Variable> xu = leaves(with_cotangent(f, inputs, options));
  AdjointCheck(gradient_function(f, xu), xu, random, "derivative of the gradient", result).run();
  result.ok = result.error <= options.tolerance;  // false for NaN
  return result;
}

}  // namespace goshawk
