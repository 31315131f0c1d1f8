#include <cmath>
#include <doctest/doctest.h>
#include <string>
#include <vector>

#include "apps/support/class_predictions.hpp"
#include "core/error.hpp"
#include "core/random.hpp"
#include "tests/support/scratch_directory.hpp"

using namespace goshawk;

namespace {

// Runs that get each picture right with the chance of that picture; labels are all 1.
std::vector<ClassPredictions> runs(const std::vector<double>& chances, int count, Random& random) {
  std::vector<ClassPredictions> all(static_cast<std::size_t>(count));
  for (ClassPredictions& run : all) {
    for (const double chance : chances) {
      run.labels.push_back(1);
      run.predicted.push_back(random.uniform() < chance ? 1 : 0);
    }
  }
  return all;
}

}  // namespace

TEST_CASE("predictions are read as they were written") {
  const ScratchDirectory scratch;
  const std::string file = (scratch.path() / "p.csv").string();
  const ClassPredictions p{.labels = {3, 0, 9}, .predicted = {3, -1, 0}};
  write_predictions(file, p);
  const ClassPredictions read = read_predictions(file);
  CHECK(read.labels == p.labels);
  CHECK(read.predicted == p.predicted);
}

TEST_CASE("a lead of one run over one is McNemar's") {
  const ClassPredictions a{.labels = {1, 1, 1, 1, 1, 1, 1, 1}, .predicted = {1, 1, 1, 1, 1, 0, 0, 0}};
  const ClassPredictions b{.labels = a.labels, .predicted = {1, 1, 0, 0, 0, 1, 0, 0}};
  const PairedComparison one = compare(a, b, "b");
  CHECK(one.only_first == 3);
  CHECK(one.only_second == 1);
  CHECK(one.difference() == 0.25);
  const PairedLead lead = paired_lead(std::span(&a, 1), std::span(&b, 1));
  CHECK(lead.difference == 0.25);
  CHECK(lead.seeds_error == 0);
  // The same variance with 7 in place of 8.
  CHECK(lead.standard_error() == doctest::Approx(one.standard_error() * std::sqrt(8.0 / 7)));

  CHECK_THROWS_WITH_AS(paired_lead({}, std::span(&a, 1)), doctest::Contains("no run"), Error);
  const ClassPredictions other{.labels = {1, 1}, .predicted = {1, 1}};
  CHECK_THROWS_WITH_AS(paired_lead(std::span(&a, 1), std::span(&other, 1)),
                       doctest::Contains("not of the same pictures"), Error);
}

TEST_CASE("a lead's errors are the spread that new pictures and new seeds have") {
  // The lead itself, drawn again and again: its standard deviation is what one experiment has to say.
  constexpr int kExperiments = 400, kPictures = 300;
  Random random(7);
  double sum = 0, squares = 0, errors = 0;
  for (int e = 0; e < kExperiments; ++e) {
    std::vector<double> chances;
    for (int i = 0; i < kPictures; ++i)
      chances.push_back(i % 10 == 0 ? 0.5 : (random.uniform() < 0.8 ? 1 : 0));
    const std::vector<ClassPredictions> a = runs(chances, 3, random), b = runs(chances, 3, random);
    const PairedLead lead = paired_lead(a, b);
    sum += lead.difference;
    squares += lead.difference * lead.difference;
    errors += lead.pictures_error * lead.pictures_error;
    CHECK(lead.seeds_error > 0);
    CHECK(lead.standard_error() > lead.pictures_error);
  }
  const double variance = (squares - sum * sum / kExperiments) / (kExperiments - 1);
  // Where seeds are independent in every picture, the pictures' spread has theirs already: adding it is
  // cautious.
  CHECK(errors / kExperiments == doctest::Approx(variance).epsilon(0.3).scale(0));
}
