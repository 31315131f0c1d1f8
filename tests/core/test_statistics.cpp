#include <cmath>
#include <doctest/doctest.h>
#include <limits>

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

TEST_CASE("Student's t keeps its digits, also far out and at many degrees of freedom") {
  // Computed with 60 digits.
  struct Known {
    double degrees, t, tail;  // tail = P(T > t)
  };
  for (const Known& k : {Known{20, 0.3, 0.383636501621880128},
                         {20, 5, 3.43651428977109866e-5},
                         {20, 12, 6.79777851294033961e-11},
                         {39.5, 1.96, 0.0285387151336326112},
                         {39.5, 12, 4.73863378145339281e-15},
                         {41, 0.3, 0.382846477925365788},
                         {41, 5, 5.6080798152481205e-6},
                         {41, 12, 2.68220294904106065e-15},
                         {100, 1.96, 0.026389450683114833},
                         {100, 12, 2.19754385780218907e-21},
                         {1e3, 0.3, 0.382119752083622022},
                         {1e3, 5, 3.38362818232431519e-7},
                         {1e6, 1.96, 0.0249980337926348953},
                         {1e6, 12, 1.78584256238254491e-33},
                         {1e10, 0.3, 0.382088577814165212},
                         {1e10, 1.96, 0.0249978951620848723},
                         {1e10, 5, 2.86651576711032367e-7},
                         {1e15, 1.96, 0.0249978951482205749}}) {
    CAPTURE(k.degrees);
    CAPTURE(k.t);
    CHECK(std::abs(student_t_cdf(-k.t, k.degrees) / k.tail - 1) < 2e-14);
    CHECK(std::abs(student_t_cdf(k.t, k.degrees) - (1 - k.tail)) < 1e-15);
  }
  CHECK(std::abs(student_t_quantile(0.975, 1e3) - 1.96233908082640848) < 1e-13);
  CHECK(std::abs(student_t_quantile(0.975, 1e6) - 1.95996635681410704) < 1e-13);
  CHECK(std::abs(student_t_quantile(0.975, 1e10) - 1.95996398477728136) < 1e-13);
  // Where one way of computing ends and another begins there is no step.
  for (double t : {0.1, 2.0, 7.0}) {
    CHECK(std::abs(student_t_cdf(-t, 39.999999999999) / student_t_cdf(-t, 40) - 1) < 1e-12);
  }
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
  CHECK_THROWS_AS(student_t_cdf(1, std::numeric_limits<double>::infinity()), Error);
}
