#include <cmath>
#include <doctest/doctest.h>
#include <limits>

#include "autograd/curvature/landscape.hpp"
#include "tests/autograd/curvature/small_problems.hpp"
#include "tests/support/scratch_directory.hpp"

using namespace goshawk;
using namespace goshawk::testing;

namespace {

/// L(w) = gᵀw + ½ wᵀ M w over two parameters with 4 and 3 elements.
struct Quadratic {
  Matrix m = random_symmetric(7, 3);
  std::vector<double> g = {1, -2, 3, 0.5, 0.25, -1, 2};
  std::vector<Variable> parameters = {
      Variable::leaf(Tensor::from(std::vector<double>{1, 2, -1, 0.5}, {2, 2})),
      Variable::leaf(Tensor::from(std::vector<double>{-1, 0.5, 3}, {3}))};

  std::vector<double> weights() const {
    Vector values;
    for (const Variable& p : parameters) values.push_back(p.value());
    return flatten(values);
  }
  double at(const std::vector<double>& w) const {
    double sum = 0;
    for (std::size_t i = 0; i < 7; ++i) {
      sum += g[i] * w[i];
      for (std::size_t j = 0; j < 7; ++j) sum += 0.5 * w[i] * m(i, j) * w[j];
    }
    return sum;
  }
  Vector direction(std::uint64_t seed) const {
    Random random(seed);
    return normal_vector(std::vector<Shape>{{2, 2}, {3}}, DType::f64, random);
  }
  std::function<double()> loss() const {
    return [this] { return at(weights()); };
  }
};

}  // namespace

TEST_CASE("the loss along a line is the parabola that a quadratic loss has there, and weights come back") {
  const Quadratic problem;
  const std::vector<double> before = problem.weights();
  const Vector d = problem.direction(1);
  const std::vector<double> flat = flatten(d);
  double slope = 0, curvature = 0;
  for (std::size_t i = 0; i < 7; ++i) {
    slope += problem.g[i] * flat[i];
    for (std::size_t j = 0; j < 7; ++j) {
      slope += before[i] * problem.m(i, j) * flat[j];
      curvature += flat[i] * problem.m(i, j) * flat[j];
    }
  }
  const std::vector<double> steps = landscape_steps(5, 2);
  CHECK(steps == std::vector<double>{-2, -1, 0, 1, 2});
  const std::vector<double> losses = loss_along(problem.parameters, d, steps, problem.loss());
  REQUIRE(losses.size() == 5);
  const double here = problem.at(before);
  CHECK(losses[2] == here);
  for (std::size_t i = 0; i < 5; ++i) {
    const double a = steps[i];
    CHECK(std::abs(losses[i] - (here + a * slope + a * a * curvature / 2)) < 1e-11);
  }
  CHECK(problem.weights() == before);
}

TEST_CASE("the loss over a plane has the lines along its axes, and weights survive an error") {
  const Quadratic problem;
  const std::vector<double> before = problem.weights();
  const Vector d = problem.direction(1), e = problem.direction(2);
  const std::vector<double> across = {-1, 0, 0.5}, along = {0, 2};
  const auto plane = loss_over(problem.parameters, d, e, across, along, problem.loss());
  REQUIRE(plane.size() == 3);
  const std::vector<double> first = loss_along(problem.parameters, d, across, problem.loss());
  for (std::size_t i = 0; i < 3; ++i) CHECK(plane[i][0] == first[i]);
  CHECK(plane[1] == loss_along(problem.parameters, e, along, problem.loss()));
  std::vector<double> corner = before;
  for (std::size_t i = 0; i < 7; ++i) corner[i] += 0.5 * flatten(d)[i] + 2 * flatten(e)[i];
  CHECK(std::abs(plane[2][1] - problem.at(corner)) < 1e-11);

  int calls = 0;
  const auto failing = [&]() -> double {
    if (++calls == 2) fail("[test] no loss");
    return 0;
  };
  CHECK_THROWS_AS(loss_along(problem.parameters, d, across, failing), Error);
  CHECK(problem.weights() == before);
  const LandscapeOptions stop{.progress = [](std::size_t done, std::size_t total) {
    CHECK(total == 6);
    return done < 3;
  }};
  CHECK_THROWS_WITH_AS(loss_over(problem.parameters, d, e, across, along, problem.loss(), stop),
                       doctest::Contains("3 of 6"), Error);
  CHECK(problem.weights() == before);
}

TEST_CASE("a filter-normalised direction has every filter's norm and leaves vectors alone") {
  Random random(4);
  const std::vector<Variable> parameters = {Variable::leaf(random_normal({3, 3, 2, 5}, DType::f32, random)),
                                            Variable::leaf(random_normal({5}, DType::f32, random)),
                                            Variable::leaf(random_normal({4, 3}, DType::f32, random))};
  const Vector d = filter_normalised_direction(parameters, 7, 0);
  CHECK(norm({d[1]}) == 0);
  for (const std::size_t p : {0, 2}) {
    const std::int64_t filters = parameters[p].dim(-1);
    const auto of = [&](const Tensor& t, std::int64_t f) {
      double sum = 0;
      for (std::int64_t k = f; k < t.numel(); k += filters) sum += std::pow(t.data<float>()[k], 2);
      return std::sqrt(sum);
    };
    for (std::int64_t f = 0; f < filters; ++f) {
      CHECK(of(d[p], f) == doctest::Approx(of(parameters[p].value(), f)).epsilon(1e-6));
    }
  }
  CHECK(flatten(d) == flatten(filter_normalised_direction(parameters, 7, 0)));
  CHECK(flatten(d) != flatten(filter_normalised_direction(parameters, 8, 0)));
}

TEST_CASE("directions that do not fit are refused") {
  const Quadratic problem;
  const std::vector<double> steps = {0.0};
  const auto along = [&](const Vector& d) {
    return error_of([&] { loss_along(problem.parameters, d, steps, problem.loss()); });
  };
  Vector d = problem.direction(1);
  CHECK(along({d[0]}).find("1 blocks") != std::string::npos);
  CHECK(along({d[1], d[0]}).find("[3]") != std::string::npos);
  d[1].data<double>()[2] = std::numeric_limits<double>::quiet_NaN();
  CHECK(along(d).find("element 2 of block 1") != std::string::npos);
  CHECK_THROWS_AS(landscape_steps(4, 1), Error);
  CHECK_THROWS_AS(landscape_steps(5, 0), Error);
}
