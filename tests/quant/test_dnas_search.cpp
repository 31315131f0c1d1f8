#include <cmath>
#include <doctest/doctest.h>
#include <limits>

#include "autograd/ops.hpp"
#include "core/parallel.hpp"
#include "core/random.hpp"
#include "quant/dnas_search.hpp"
#include "tests/support/scratch_directory.hpp"

using namespace goshawk;

namespace {

// Pictures of 2×2 pixels whose class is a linear function of the twelve numbers with weights of very
// different sizes: one bit a weight loses it.
constexpr float kTeacher[12] = {3.0F,  -1.6F, 0.9F,  -0.5F, 0.28F, 0.15F,
                                -2.2F, 1.2F,  -0.7F, 0.4F,  0.1F,  -0.06F};

std::shared_ptr<const Dataset> toy_pictures(std::int64_t count) {
  Random random(1);
  Tensor images = Tensor::empty({count, 2, 2, 3}, DType::u8);
  Tensor labels = Tensor::empty({count}, DType::i64);
  for (std::int64_t i = 0; i < count; ++i) {
    double score = 0;
    for (int k = 0; k < 12; ++k) {
      const auto value = static_cast<std::uint8_t>(random.below(256));
      images.data<std::uint8_t>()[12 * i + k] = value;
      score += kTeacher[k] * (value / 255.0 - 0.5);
    }
    labels.data<std::int64_t>()[i] = score > 0 ? 1 : 0;
  }
  return std::make_shared<ImageDataset>(images, labels, std::vector<std::string>{"below", "above"}, "toy");
}

// Two linear layers on the same input, of which one has no say.
class Toy : public Module {
 public:
  Toy() : idle({.in = 12, .out = 2}), main({.in = 12, .out = 2}) {
    register_module("idle", idle);
    register_module("main", main);
    for (int k = 0; k < 12; ++k) {
      for (int c = 0; c < 2; ++c) {
        const float w = (c == 0 ? -4 : 4) * kTeacher[k];
        main.weight.value().data<float>()[2 * k + c] = w;
        idle.weight.value().data<float>()[2 * k + c] = w;
      }
    }
  }
  Variable forward(const Variable& x) override {
    const Variable flat = reshape(x, {x.dim(0), -1});
    return main(flat) + scale(idle(flat), 0);
  }
  Linear idle, main;
};

DnasOptions toy_options() {
  DnasOptions options;
  options.epochs = 6;
  options.warmup_epochs = 1;
  options.weight_share = 0.5;
  options.gamma = 1;
  options.temperature = 2;
  options.temperature_decay = 0.3;
  options.weights = {.lr = 1e-3, .momentum = 0.9};
  options.architecture = {.lr = 0.1};
  options.loader = {.batch_size = 32, .shuffle = true, .seed = 5};
  options.loader.normalization = {.mean = {0.5F, 0.5F, 0.5F}, .stddev = {1, 1, 1}};
  return options;
}

const SuperNetOptions kCandidates{.candidates = {1, 2, 4, 8}};

struct Outcome {
  std::vector<DnasEpoch> log;
  std::vector<float> theta, weights, step;
  std::vector<int> bits;

  // All but the seconds.
  bool operator==(const Outcome& o) const {
    if (log.size() != o.log.size()) return false;
    for (std::size_t i = 0; i < log.size(); ++i) {
      const DnasEpoch &a = log[i], &b = o.log[i];
      if (a.epoch != b.epoch || a.temperature != b.temperature || a.lr != b.lr ||
          a.weight_loss != b.weight_loss || a.weight_accuracy != b.weight_accuracy ||
          a.architecture_loss != b.architecture_loss || a.penalty != b.penalty ||
          a.expected_bytes != b.expected_bytes || a.most_probable_bytes != b.most_probable_bytes ||
          a.confidence != b.confidence)
        return false;
    }
    return theta == o.theta && weights == o.weights && step == o.step && bits == o.bits;
  }
};

Outcome run(const DnasOptions& options) {
  Toy model;
  SuperNet net(model, kCandidates);
  Outcome outcome;
  outcome.log = search(net, toy_pictures(640), options);
  outcome.theta = net.theta().value().to_vector<float>();
  outcome.weights = model.main.weight.value().to_vector<float>();
  outcome.step = net.named_parameters().back().variable.value().to_vector<float>();
  for (const LayerBits& layer : net.most_probable().layers) outcome.bits.push_back(layer.weight);
  return outcome;
}

}  // namespace

TEST_CASE("the layer that matters gets the bits, and the idle one as few as there are") {
  const Outcome outcome = run(toy_options());
  REQUIRE(outcome.log.size() == 6);
  CHECK(outcome.bits[0] == 1);
  CHECK(outcome.bits[1] >= 4);
  const DnasEpoch &first = outcome.log.front(), &last = outcome.log.back();
  // Warm-up: θ stays, and every precision is equally likely.
  CHECK(first.architecture_loss == 0);
  CHECK(first.confidence == doctest::Approx(0.25));
  CHECK(first.expected_bytes == doctest::Approx(48 * 15.0 / 4 / 8));
  CHECK(first.temperature == 2);
  CHECK(last.temperature == doctest::Approx(2 * std::exp(-1.5)));
  CHECK(last.confidence > 0.5);
  CHECK(last.most_probable_bytes == 24.0 * (outcome.bits[0] + outcome.bits[1]) / 8);
  CHECK(last.architecture_loss < outcome.log[1].architecture_loss);
  // The penalty is 1 where the search starts.
  CHECK(outcome.log[1].penalty == doctest::Approx(1).epsilon(0.05));
}

TEST_CASE("a stronger wish for size makes smaller networks") {
  DnasOptions options = toy_options();
  options.gamma = 0;
  const double free = run(options).log.back().expected_bytes;
  options.gamma = 40;
  const Outcome strict = run(options);
  CHECK(strict.log.back().expected_bytes < free);
  CHECK(strict.bits == std::vector<int>{1, 1});
}

TEST_CASE("the same bits for any number of threads, and after an interruption") {
  const ScratchDirectory scratch;
  const std::string file = (scratch.path() / "search.safetensors").string();
  set_num_threads(1);
  const Outcome whole = run(toy_options());
  set_num_threads(3);
  CHECK(run(toy_options()) == whole);
  set_num_threads(0);

  // Stopped in the weights' turn of epoch 3, and again in the architecture's turn of epoch 4.
  struct Stop {};
  DnasOptions options = toy_options();
  options.checkpoint = file;
  // 10 steps of the weights in each epoch and, after the first, 10 of the architecture.
  for (const std::int64_t stop : {10 + 2 * 20 + 4, 10 + 3 * 20 + 17}) {
    options.on_step = [stop](std::int64_t done, std::int64_t total) {
      CHECK(total == 10 + 5 * 20);
      if (done == stop) throw Stop();
    };
    CHECK_THROWS_AS(run(options), Stop);
  }
  std::vector<std::int64_t> epochs;
  options.on_step = {};
  options.on_epoch = [&](const DnasEpoch& e) { epochs.push_back(e.epoch); };
  CHECK(run(options) == whole);
  CHECK(epochs == std::vector<std::int64_t>{4, 5});
  // The checkpoint is that of a search that nothing stopped.
  DnasOptions unstopped = toy_options();
  unstopped.checkpoint = scratch / "unstopped.safetensors";
  CHECK(run(unstopped) == whole);
  CHECK(scratch.read("unstopped.safetensors") == scratch.read("search.safetensors"));
  // A finished search is read back.
  epochs.clear();
  CHECK(run(options) == whole);
  CHECK(epochs.empty());

  DnasOptions other = options;
  other.gamma = 3;
  CHECK_THROWS_AS(run(other), Error);
  other = options;
  other.seed = 9;
  CHECK_THROWS_AS(run(other), Error);
}

TEST_CASE("schedules see the weights' steps; options that make no sense are errors") {
  DnasOptions options = toy_options();
  options.epochs = 2;
  CHECK(weight_steps_per_epoch(640, options) == 10);
  CHECK(weight_steps_per_epoch(650, options) == 11);
  options.loader.drop_last = true;
  CHECK(weight_steps_per_epoch(650, options) == 10);
  options.loader.drop_last = false;
  std::vector<std::int64_t> steps;
  options.schedule = [&](std::int64_t step) {
    steps.push_back(step);
    return 1e-4 * static_cast<double>(step);
  };
  const Outcome outcome = run(options);
  CHECK(steps.size() == 20);
  CHECK(steps.back() == 19);
  CHECK(outcome.log[1].lr == doctest::Approx(19e-4));

  const auto refused = [](const auto& change) {
    DnasOptions bad = toy_options();
    change(bad);
    CHECK_THROWS_AS(run(bad), Error);
  };
  refused([](DnasOptions& o) { o.epochs = 0; });
  refused([](DnasOptions& o) { o.warmup_epochs = o.epochs; });
  refused([](DnasOptions& o) { o.weight_share = 1; });
  refused([](DnasOptions& o) { o.weight_share = 1e-6; });
  refused([](DnasOptions& o) { o.temperature = 0; });
  refused([](DnasOptions& o) { o.temperature_decay = -1; });
  refused([](DnasOptions& o) { o.gamma = -1; });
  Toy model;
  model.main.bias.value().fill(std::numeric_limits<double>::quiet_NaN());
  SuperNet net(model, kCandidates);
  CHECK_THROWS_WITH_AS(search(net, toy_pictures(64), toy_options()),
                       doctest::Contains("the loss of the weights became nan at step 0 of epoch 0"), Error);
}
