#include <cmath>
#include <doctest/doctest.h>

#include "core/error.hpp"
#include "nn/schedule.hpp"

using namespace goshawk;
using doctest::Approx;

TEST_CASE("step schedule: the paper's recipe for ResNet-20") {
  const StepSchedule schedule{.lr = 0.1, .milestones = {100, 150}};
  CHECK(schedule(0) == 0.1);
  CHECK(schedule(99) == 0.1);
  CHECK(schedule(100) == Approx(0.01).epsilon(1e-14));
  CHECK(schedule(149) == Approx(0.01).epsilon(1e-14));
  CHECK(schedule(150) == Approx(0.001).epsilon(1e-14));
  CHECK(schedule(10000) == Approx(0.001).epsilon(1e-14));
}

TEST_CASE("cosine schedule") {
  const CosineSchedule schedule{.lr = 0.4, .total = 12, .lr_end = 0.1};
  CHECK(schedule(0) == Approx(0.4));
  CHECK(schedule(4) == Approx(0.1 + 0.3 * 0.75));  // cos 60° = 1/2
  CHECK(schedule(6) == Approx(0.25));
  CHECK(schedule(8) == Approx(0.1 + 0.3 * 0.25));
  CHECK(schedule(12) == Approx(0.1));
  CHECK(schedule(99) == Approx(0.1));
  CHECK_THROWS_AS((CosineSchedule{.lr = 1})(0), Error);
}

TEST_CASE("one-cycle schedule: start, peak and end are where PyTorch puts them") {
  const OneCycleSchedule schedule{.lr = 1, .total = 101, .rise = 0.5};
  const double start = 0.04, end = 0.04e-4;
  // The peak is at 0.5 · 101 − 1 = 49.5.
  CHECK(schedule(0) == Approx(start));
  CHECK(schedule(49) == Approx(1 + (start - 1) * (1 + std::cos(M_PI * 49 / 49.5)) / 2).epsilon(1e-12));
  CHECK(schedule(50) == Approx(end + (1 - end) * (1 + std::cos(M_PI * 0.5 / 50.5)) / 2).epsilon(1e-12));
  CHECK(schedule(100) == Approx(end).epsilon(1e-9));
  CHECK(schedule(1000) == Approx(end).epsilon(1e-9));
  for (int step = 1; step <= 49; ++step) CHECK(schedule(step) > schedule(step - 1));
  for (int step = 51; step <= 100; ++step) CHECK(schedule(step) < schedule(step - 1));
  // A peak exactly on a step, and cycles that only fall or only rise.
  CHECK(OneCycleSchedule{.lr = 2, .total = 10, .rise = 0.3}(2) == 2);
  CHECK(OneCycleSchedule{.lr = 2, .total = 10, .rise = 0}(0) == 2);
  CHECK(OneCycleSchedule{.lr = 2, .total = 10, .rise = 1}(9) == 2);
  CHECK(OneCycleSchedule{.lr = 2, .total = 1}(0) == 2);
  CHECK_THROWS_AS((OneCycleSchedule{.lr = 2})(0), Error);
  CHECK_THROWS_AS((OneCycleSchedule{.lr = 2, .total = 5, .rise = 2})(0), Error);
}

TEST_CASE("warm-up scales the first steps linearly and then lets go") {
  const Schedule schedule = with_warmup(StepSchedule{.lr = 0.8, .milestones = {6}}, 4);
  CHECK(schedule(0) == Approx(0.2));
  CHECK(schedule(1) == Approx(0.4));
  CHECK(schedule(3) == Approx(0.8));
  CHECK(schedule(4) == 0.8);
  CHECK(schedule(6) == Approx(0.08));
  CHECK(with_warmup(StepSchedule{.lr = 0.8}, 0)(0) == 0.8);
  CHECK_THROWS_AS(with_warmup(StepSchedule{}, -1), Error);
}
