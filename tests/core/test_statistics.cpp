#include <cmath>
#include <doctest/doctest.h>

#include "core/error.hpp"
#include "core/statistics.hpp"

using namespace goshawk;

TEST_CASE("Student's t: closed forms for 1, 2 and 4 degrees of freedom, and the tables") {
  const double pi = std::acos(-1.0);
  for (double t : {-30.0, -3.0, -0.5, 0.0, 0.01, 1.0, 2.5, 100.0}) {
    CHECK(std::abs(student_t_cdf(t, 1) - (0.5 + std::atan(t) / pi)) < 1e-14);
    CHECK(std::abs(student_t_cdf(t, 2) - (0.5 + t / (2 * std::sqrt(2 + t * t)))) < 1e-14);
    const double u = t / std::sqrt(4 + t * t);
    CHECK(std::abs(student_t_cdf(t, 4) - (0.5 + u * (0.75 - u * u / 4))) < 1e-14);
  }
  // Two-sided 95 % points as every table has them.
  CHECK(std::abs(student_t_quantile(0.975, 1) - 12.706204736) < 1e-8);
  CHECK(std::abs(student_t_quantile(0.975, 7) - 2.364624252) < 1e-8);
  CHECK(std::abs(student_t_quantile(0.975, 30) - 2.042272456) < 1e-8);
  CHECK(std::abs(student_t_quantile(0.975, 1e6) - 1.959966) < 1e-5);
  CHECK(std::abs(student_t_quantile(0.025, 7) + 2.364624252) < 1e-8);
  CHECK(std::abs(student_t_quantile(0.5, 3)) < 1e-15);
}

TEST_CASE("the quantile inverts the distribution function") {
  for (double degrees : {1.0, 3.0, 8.0, 200.0}) {
    for (double p : {0.001, 0.2, 0.6, 0.9, 0.995}) {
      CHECK(std::abs(student_t_cdf(student_t_quantile(p, degrees), degrees) - p) < 1e-13);
    }
  }
  // Far out, where 1 - p is 1.
  CHECK(std::abs(student_t_cdf(student_t_quantile(1e-20, 3), 3) / 1e-20 - 1) < 1e-10);
  CHECK_THROWS_AS(student_t_quantile(1, 3), Error);
  CHECK_THROWS_AS(student_t_quantile(0.9, 0), Error);
}
