#include "autograd/curvature/landscape.hpp"

#include <cmath>
#include <cstring>

#include "autograd/variable.hpp"
#include "core/error.hpp"

namespace goshawk {
namespace {

void check_direction(std::span<const Variable> parameters, const Vector& direction) {
  check(direction.size() == parameters.size(),
        "[landscape] the direction has {} blocks and there are {} parameters; give one for each",
        direction.size(), parameters.size());
  for (std::size_t i = 0; i < direction.size(); ++i) {
    check(direction[i].shape() == parameters[i].shape() && direction[i].dtype() == parameters[i].dtype(),
          "[landscape] block {} of the direction is {} of shape {} but its parameter is {} of shape {}", i,
          direction[i].dtype(), direction[i].shape(), parameters[i].dtype(), parameters[i].shape());
  }
  const auto bad = find_non_finite(direction);
  check(!bad, "[landscape] {} of the direction; give a finite one", bad.value_or(""));
}

/// The parameters' values, which it puts back in the end.
class Weights {
 public:
  explicit Weights(std::span<const Variable> parameters) {
    for (const Variable& p : parameters) values_.push_back(p.value());
    before_ = clone(values_);
  }
  ~Weights() { reset(); }
  Weights(const Weights&) = delete;
  Weights& operator=(const Weights&) = delete;

  void reset() const {
    for (std::size_t i = 0; i < values_.size(); ++i) {
      std::memcpy(values_[i].raw(), before_[i].raw(), static_cast<std::size_t>(before_[i].bytes()));
    }
  }
  void move(double step, const Vector& direction) const { axpy(step, direction, values_); }

 private:
  Vector values_;  // share their elements with the parameters
  Vector before_;
};

void report(const LandscapeOptions& options, std::size_t done, std::size_t total) {
  check(!options.progress || options.progress(done, total),
        "[landscape] stopped on request after {} of {} evaluations", done, total);
}

}  // namespace

Vector filter_normalised_direction(std::span<const Variable> parameters, std::uint64_t seed,
                                   std::uint64_t stream) {
  std::vector<Shape> shapes;
  for (const Variable& p : parameters) shapes.push_back(p.shape());
  check(!shapes.empty(), "[landscape] there are no parameters; give at least one");
  Random random(seed, stream);
  Vector direction = normal_vector(shapes, parameters.front().dtype(), random);
  for (std::size_t i = 0; i < direction.size(); ++i) {
    const Tensor& weight = parameters[i].value();
    dispatch_floating(weight.dtype(), "landscape", [&]<class T>() {
      T* d = direction[i].data<T>();
      const T* w = weight.data<T>();
      const std::int64_t filters = weight.ndim() < 2 ? 0 : weight.dim(-1);
      if (filters == 0) std::fill_n(d, direction[i].numel(), T{0});
      for (std::int64_t f = 0; f < filters; ++f) {
        double of_d = 0, of_w = 0;
        for (std::int64_t k = f; k < weight.numel(); k += filters) {
          of_d += static_cast<double>(d[k]) * static_cast<double>(d[k]);
          of_w += static_cast<double>(w[k]) * static_cast<double>(w[k]);
        }
        const double factor = of_d > 0 ? std::sqrt(of_w / of_d) : 0.0;
        for (std::int64_t k = f; k < weight.numel(); k += filters) d[k] = static_cast<T>(d[k] * factor);
      }
    });
  }
  return direction;
}

std::vector<double> loss_along(std::span<const Variable> parameters, const Vector& direction,
                               std::span<const double> steps, const std::function<double()>& loss,
                               const LandscapeOptions& options) {
  check_direction(parameters, direction);
  const Weights weights(parameters);
  const MeasuringGuard measuring;
  std::vector<double> losses;
  for (const double step : steps) {
    weights.reset();
    weights.move(step, direction);
    losses.push_back(loss());
    report(options, losses.size(), steps.size());
  }
  return losses;
}

std::vector<std::vector<double>> loss_over(std::span<const Variable> parameters, const Vector& first,
                                           const Vector& second, std::span<const double> first_steps,
                                           std::span<const double> second_steps,
                                           const std::function<double()>& loss,
                                           const LandscapeOptions& options) {
  check_direction(parameters, first);
  check_direction(parameters, second);
  const Weights weights(parameters);
  const MeasuringGuard measuring;
  std::vector<std::vector<double>> losses;
  for (const double a : first_steps) {
    std::vector<double>& row = losses.emplace_back();
    for (const double b : second_steps) {
      weights.reset();
      weights.move(a, first);
      weights.move(b, second);
      row.push_back(loss());
      report(options, (losses.size() - 1) * second_steps.size() + row.size(),
             first_steps.size() * second_steps.size());
    }
  }
  return losses;
}

std::vector<double> landscape_steps(int points, double range) {
  check(points >= 3 && points % 2 == 1 && range > 0 && std::isfinite(range),
        "[landscape] {} points up to {} on either side; give an odd number from 3 on and a positive range",
        points, range);
  const int half = points / 2;
  std::vector<double> steps;
  for (int i = -half; i <= half; ++i) steps.push_back(range * i / half);
  return steps;
}

}  // namespace goshawk
