#include <cmath>
#include <doctest/doctest.h>

#include "apps/support/contours.hpp"
#include "core/error.hpp"

using namespace goshawk;

namespace {

std::vector<double> steps(double from, double to, int count) {
  std::vector<double> values;
  for (int k = 0; k < count; ++k) values.push_back(from + (to - from) * k / (count - 1));
  return values;
}

template <class F>
std::vector<double> on_grid(const std::vector<double>& xs, const std::vector<double>& ys, F f) {
  std::vector<double> values;
  for (const double x : xs) {
    for (const double y : ys) values.push_back(f(x, y));
  }
  return values;
}

bool is_closed(const ContourLine& line) {
  return line.size() > 2 && line.front() == line.back();
}

}  // namespace

TEST_CASE("contours of a paraboloid are circles of known radius, each one closed line") {
  const auto xs = steps(-2, 2, 81), ys = steps(-2, 2, 61);
  const auto values = on_grid(xs, ys, [](double x, double y) { return x * x + y * y; });
  for (const double radius : {0.5, 1.0, 1.7}) {
    CAPTURE(radius);
    const auto lines = contour_lines(xs, ys, values, radius * radius);
    REQUIRE(lines.size() == 1);
    CHECK(is_closed(lines[0]));
    double around = 0;
    for (std::size_t k = 0; k < lines[0].size(); ++k) {
      const auto [x, y] = lines[0][k];
      // Linear interpolation of x² errs by at most h²/4 in the value, and so by h²/8r in the radius.
      CHECK(std::hypot(x, y) == doctest::Approx(radius).epsilon(0.002));
      if (k > 0) around += std::hypot(x - lines[0][k - 1].first, y - lines[0][k - 1].second);
    }
    CHECK(around == doctest::Approx(2 * M_PI * radius).epsilon(0.005));
  }
  CHECK(contour_lines(xs, ys, values, -1).empty());
  CHECK(contour_lines(xs, ys, values, 9).empty());
}

TEST_CASE("contours of a plane are straight and end at the border, also where a value is missing") {
  const auto xs = steps(0, 4, 5), ys = steps(0, 3, 4);
  auto values = on_grid(xs, ys, [](double x, double y) { return 2 * x + 0 * y; });
  auto lines = contour_lines(xs, ys, values, 3);
  REQUIRE(lines.size() == 1);
  CHECK(lines[0].size() == 4);
  CHECK(!is_closed(lines[0]));
  for (const auto& [x, y] : lines[0]) CHECK(x == doctest::Approx(1.5));

  values[1 * ys.size() + 1] = NAN;  // takes the four squares around it away
  lines = contour_lines(xs, ys, values, 3);
  REQUIRE(lines.size() == 1);
  CHECK(lines[0].size() == 2);
  values[2 * ys.size() + 2] = INFINITY;
  CHECK(contour_lines(xs, ys, values, 3).empty());
}

TEST_CASE("contours at a saddle follow its middle, and touch no corner twice") {
  const std::vector<double> two{0, 1};
  // Corners (0, 0) and (1, 1) are above the level; whether they are connected is what the middle says.
  for (const double high : {3.0, 1.5}) {
    CAPTURE(high);
    const auto lines = contour_lines(two, two, {high, 0, 0, high}, 1);
    REQUIRE(lines.size() == 2);
    for (const ContourLine& line : lines) {
      REQUIRE(line.size() == 2);
      // The line cuts off a low corner when the high ones are connected: it then lies off the diagonal y = x.
      const double side = (line[0].first - line[0].second) * (line[1].first - line[1].second);
      CHECK((side > 0) == (high / 2 >= 1));
    }
  }
}

TEST_CASE("contours refuse what is no grid") {
  CHECK_THROWS_AS(contour_lines({0}, {0, 1}, {1, 2}, 0), Error);
  CHECK_THROWS_AS(contour_lines({0, 1}, {0, 1}, {1, 2, 3}, 0), Error);
}
