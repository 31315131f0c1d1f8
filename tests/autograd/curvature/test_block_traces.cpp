#include <doctest/doctest.h>

#include "autograd/curvature/block_traces.hpp"
#include "core/parallel.hpp"
#include "tests/autograd/curvature/small_problems.hpp"

using namespace goshawk;
using namespace goshawk::testing;

namespace {

// Blocks of 20 rows with noise of the given size inside and between them, and a trace of about 60 each.
Matrix blocked(double inside, double between) {
  Matrix m = random_symmetric(80, 4, 0);
  for (std::size_t i = 0; i < 80; ++i) {
    for (std::size_t j = 0; j < 80; ++j) m(i, j) *= i / 20 == j / 20 ? inside : between;
    m(i, i) += 3;
  }
  return m;
}

BlockOperator parts_of(const Matrix& m) {
  return [m](std::size_t l) {
    Matrix part(20);
    for (std::size_t i = 0; i < 20; ++i) {
      for (std::size_t j = 0; j < 20; ++j) part(i, j) = m(20 * l + i, 20 * l + j);
    }
    return std::make_unique<MatrixOperator>(part, std::vector<std::int64_t>{20});
  };
}

const std::vector<std::int64_t> kRows{20, 20, 20, 20};

void check_traces(const BlockTraces& result, const Matrix& m, double relative_error) {
  REQUIRE(result.traces.size() == 4);
  for (std::size_t l = 0; l < 4; ++l) {
    const Estimate& e = result.traces[l];
    CHECK(e.converged);
    CHECK(e.standard_error <= relative_error * std::abs(e.value));
    CHECK(std::abs(e.value - trace_of(m, 20 * l, 20 * l + 20)) < 4 * e.standard_error);
  }
}

}  // namespace

TEST_CASE("strong coupling between blocks makes per-block probes cheaper, weak coupling joint ones") {
  const Matrix strong = blocked(0.2, 1), weak = blocked(1, 0.1);
  const BlockTraces apart =
      block_traces(MatrixOperator(strong, kRows), parts_of(strong), {.relative_error = 0.02});
  CHECK(apart.scheme == ProbeScheme::per_block);
  CHECK(apart.reason.find("after 16 pilot probes") != std::string::npos);
  check_traces(apart, strong, 0.02);
  const BlockTraces together =
      block_traces(MatrixOperator(weak, kRows), parts_of(weak), {.relative_error = 0.02});
  CHECK(together.scheme == ProbeScheme::joint);
  check_traces(together, weak, 0.02);

  // The choice was right: the other way costs more, pilot included.
  const std::vector<Estimate> joint =
      layer_traces(MatrixOperator(strong, kRows), {.relative_error = 0.02, .max_samples = 100000});
  MESSAGE("strong: " << apart.work << " against " << joint[0].samples * 2.0 << "; " << apart.reason);
  CHECK(joint[0].samples * 2.0 > apart.work);
  double alone = 0;
  for (std::size_t l = 0; l < 4; ++l) {
    alone += 2.0 * hutchinson(*parts_of(weak)(l), {.relative_error = 0.02, .max_samples = 100000}).samples;
  }
  MESSAGE("weak: " << together.work << " against " << alone << "; " << together.reason);
  CHECK(alone > together.work);
}

TEST_CASE("the costs decide: what a block's product costs is counted") {
  const Matrix m = blocked(1, 0.7);
  const MatrixOperator a(m, kRows);
  const BlockTraces cheap = block_traces(
      a, parts_of(m), {.relative_error = 0.02, .joint_cost = 2, .block_costs = {0.1, 0.1, 0.1, 0.1}});
  CHECK(cheap.scheme == ProbeScheme::per_block);
  check_traces(cheap, m, 0.02);
  double expected = 2 * 16;
  for (const Estimate& e : cheap.traces) expected += 0.1 * e.samples;
  CHECK(std::abs(cheap.work - expected) < 1e-12);
  const BlockTraces dear = block_traces(
      a, parts_of(m), {.relative_error = 0.05, .joint_cost = 2, .block_costs = {20, 20, 20, 20}});
  CHECK(dear.scheme == ProbeScheme::joint);
  // Not even a pilot was worth it.
  CHECK(dear.reason.find("for a pilot alone") != std::string::npos);
  CHECK(dear.work == 2.0 * dear.traces[0].samples);
  // One block out of reach of joint probes is worth much work.
  const BlockTraces reach = block_traces(
      a, parts_of(m), {.relative_error = 0.01, .max_samples = 1000, .block_costs = {9, 9, 9, 9}});
  INFO(reach.reason);
  CHECK(reach.reason.find("short of the wanted error") != std::string::npos);
}

TEST_CASE("one block needs no pilot: the cheaper product is taken, and no sample is lost") {
  const Matrix m = blocked(1, 0.7);
  const MatrixOperator a(m, std::vector<std::int64_t>{80});
  const BlockOperator part = [&](std::size_t) { return std::make_unique<MatrixOperator>(a); };
  for (const double cost : {1.0, 2.0, 3.0}) {
    BlockTraceOptions options{.relative_error = 0.05, .joint_cost = 2, .block_costs = {cost}};
    const BlockTraces all = block_traces(a, part, options);
    CHECK(all.scheme == (cost < 2 ? ProbeScheme::per_block : ProbeScheme::joint));
    CHECK(all.traces.size() == 1);
    CHECK(all.traces[0].converged);
    CHECK(all.work == std::min(cost, 2.0) * all.traces[0].samples);

    BlockTraceState state;
    options.progress = [](const BlockTraceState&, std::span<const Estimate>) { return false; };
    block_traces(a, part, options, &state);
    options.progress = {};
    CHECK(block_traces(a, part, options, &state).traces[0].value == all.traces[0].value);

    // Also when fewer samples than a pilot's are enough.
    BlockTraceOptions few{
        .relative_error = 10, .min_samples = 8, .pilot = 32, .joint_cost = 2, .block_costs = {cost}};
    const BlockTraces enough = block_traces(a, part, few);
    CHECK(enough.traces[0].samples < 32);
    BlockTraceState broken_off;
    few.probes_per_pass = 4;
    few.progress = [](const BlockTraceState&, std::span<const Estimate>) { return false; };
    block_traces(a, part, few, &broken_off);
    few.progress = {};
    CHECK(block_traces(a, part, few, &broken_off).traces[0].samples == enough.traces[0].samples);
  }
}

TEST_CASE("a Hessian's layers by its block operators: every layer to its error, around the exact trace") {
  const ConvNet net(Activation::tanh, {4, 3});
  const HessianOperator h = net.hessian();
  const Matrix m = dense(h);
  const BlockOperator block = [&](std::size_t l) { return std::make_unique<HessianOperator>(h.block(l)); };
  const BlockTraces result = block_traces(h, block, {.relative_error = 0.1, .max_samples = 5000});
  const std::vector<std::size_t> starts{0, 54, 135, 147};
  for (std::size_t l = 0; l < 3; ++l) {
    CHECK(result.traces[l].converged);
    CHECK(std::abs(result.traces[l].value - trace_of(m, starts[l], starts[l + 1])) <
          4 * result.traces[l].standard_error);
  }
}

TEST_CASE("broken off after any pass and resumed, on one thread or two: the same bits") {
  for (const Matrix& m : {blocked(0.2, 1), blocked(1, 0.1)}) {
    const MatrixOperator a(m, kRows);
    BlockTraceOptions options{.seed = 3, .relative_error = 0.03, .pilot = 18};
    set_num_threads(1);
    const BlockTraces whole = block_traces(a, parts_of(m), options);
    set_num_threads(2);
    std::vector<BlockTraceState> saved;
    options.progress = [&](const BlockTraceState& state, std::span<const Estimate> traces) {
      CHECK(traces.size() == 4);
      saved.push_back(state);
      return true;
    };
    block_traces(a, parts_of(m), options);
    options.progress = {};
    CHECK(saved.size() > 4);
    for (BlockTraceState& state : saved) {
      const BlockTraces resumed = block_traces(a, parts_of(m), options, &state);
      CHECK(resumed.scheme == whole.scheme);
      CHECK(resumed.reason == whole.reason);
      CHECK(resumed.work == whole.work);
      for (std::size_t l = 0; l < 4; ++l) {
        CHECK(resumed.traces[l].value == whole.traces[l].value);
        CHECK(resumed.traces[l].standard_error == whole.traces[l].standard_error);
      }
    }
    options.progress = [](const BlockTraceState&, std::span<const Estimate>) { return false; };
    const BlockTraces early = block_traces(a, parts_of(m), options);
    CHECK(early.work == 8);
    CHECK(early.reason.find("ended before") != std::string::npos);
    set_num_threads(0);
  }
}

TEST_CASE("bad options and wrong blocks are refused") {
  const Matrix m = blocked(1, 0.1);
  const MatrixOperator a(m, kRows);
  CHECK_THROWS_WITH_AS(block_traces(a, parts_of(m), {.block_costs = {1, 2}}),
                       doctest::Contains("2 block costs"), Error);
  CHECK_THROWS_AS(block_traces(a, parts_of(m), {.joint_cost = 0}), Error);
  CHECK_THROWS_AS(block_traces(a, parts_of(m), {.pilot = 4}), Error);
  a.products = 0;
  CHECK_THROWS_WITH_AS(block_traces(a, parts_of(m), {.min_samples = 4}),
                       doctest::Contains("min_samples is 4"), Error);
  CHECK_THROWS_AS(block_traces(a, parts_of(m), {.relative_error = -1}), Error);
  CHECK(a.products == 0);  // known before any work
  CHECK_THROWS_AS(block_traces(a, {}, {}), Error);
  const BlockOperator wrong = [&](std::size_t) { return std::make_unique<MatrixOperator>(m, kRows); };
  CHECK_THROWS_WITH_AS(block_traces(a, wrong, {.relative_error = 1e-3}), doctest::Contains("block 0"), Error);
}
