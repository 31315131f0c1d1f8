#include <cmath>
#include <doctest/doctest.h>
#include <string>

#include "core/error.hpp"
#include "quant/bits.hpp"
#include "quant/sensitivity.hpp"
#include "resnet20_layers.hpp"
#include "tests/support/scratch_directory.hpp"

using namespace goshawk;
using namespace goshawk::test;

namespace {

bool equal(const LayerBits& a, const LayerBits& b) {
  return a.name == b.name && a.parameters == b.parameters && a.input_elements == b.input_elements &&
         a.weight == b.weight && a.activation == b.activation && a.pinned == b.pinned;
}

Sensitivity example() {
  Sensitivity s{
      .model = "resnet20", .weights = "w.safetensors", .quantizer = "symmetric channel mse", .images = 512};
  LayerSensitivity a;
  a.name = "conv1";
  a.parameters = 432;
  a.macs = 442368;
  a.input_elements = 3072;
  a.lambda_max = 12.345678901234567;
  a.lambda_residual = 1e-3;
  a.trace = {.value = 86.4, .standard_error = 0.1 + 0.2, .samples = 300};
  a.perturbation = {{2, 7.5}, {4, 0.125}, {8, 1.0 / 3}};
  LayerSensitivity b = a;
  b.name = "linear";
  b.parameters = 640;
  b.lambda_max = -2;
  b.trace.value = -6.4;
  s.layers = {a, b};
  return s;
}

// `text` with the first `from` replaced.
std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

}  // namespace

TEST_CASE("ResNet-20 by hand: 268,336 weights, 16 times smaller at 2 bits") {
  const BitAssignment direct = uniform_assignment(resnet20_layers(), 2, 4);
  CHECK(direct.layers.size() == 20);
  const SizeReport size = size_report(direct);
  CHECK(size.weight_count == 432 + 6 * 2304 + 4608 + 5 * 9216 + 18432 + 5 * 36864 + 640);
  CHECK(size.weight_count == 268336);
  CHECK(size.weight_bytes() == 268336.0 * 2 / 8);
  CHECK(size.weight_compression() == 16);
  CHECK(size.activation_compression() == 8);
  CHECK(size.mean_activation_bits_by_element == 4);

  // First and last layer at 8 bits: 6 more bits on 1072 weights.
  BitAssignment pinned = direct;
  pinned.layers.front().weight = pinned.layers.back().weight = 8;
  CHECK(size_report(pinned).weight_bits == 2 * 268336 + 6 * (432 + 640));
  CHECK(size_report(pinned).weight_compression() == doctest::Approx(32.0 * 268336 / 543104));

  // Everything that is not a weight tensor: BN 2·(7·16 + 6·32 + 6·64), as much for its statistics, 10 biases.
  const SizeReport total = size_report(direct, {.other_parameters = 1376 + 1376 + 10, .scales = 20});
  CHECK(total.weight_compression() == 16);
  CHECK(total.total_bytes() == 67084 + 4 * 2782);
  CHECK(total.total_compression() == doctest::Approx(4.0 * (268336 + 2762) / (67084 + 4 * 2782)));
}

TEST_CASE("mean activation bits: the picture is left out unless asked for; by element when sizes are known") {
  BitAssignment bits = uniform_assignment(resnet20_layers(), 4, 4);
  bits.layers[0].activation = 8;
  bits.layers[19].activation = 8;
  CHECK(size_report(bits).mean_activation_bits == doctest::Approx((18 * 4 + 8) / 19.0));
  CHECK(size_report(bits, {.count_network_input = true}).mean_activation_bits ==
        doctest::Approx((18 * 4 + 16) / 20.0));
  const double elements = 7 * 16384 + 6 * 8192 + 5 * 4096 + 64;
  CHECK(size_report(bits).mean_activation_bits_by_element == doctest::Approx(4 + 4 * 64 / elements));
  bits.layers[4].input_elements = 0;
  CHECK(size_report(bits).mean_activation_bits_by_element == 0);
  CHECK_THROWS_AS(size_report({}), Error);
}

TEST_CASE("bits.json: what is written is read back") {
  BitAssignment bits = uniform_assignment(resnet20_layers(), 2, 4);
  bits.method = "hawq";
  bits.budget_bytes = 81873.25;
  bits.omega = 0.1;
  bits.layers[3].weight = 8;
  bits.layers[0].pinned = true;
  bits.layers[5].activation = 32;
  const ScratchDirectory scratch;
  const auto path = scratch.path() / "bits.json";
  write_bits(path, bits);
  const BitAssignment read = read_bits(path);
  CHECK(read.method == "hawq");
  CHECK(read.budget_bytes == bits.budget_bytes);
  CHECK(read.omega == bits.omega);
  REQUIRE(read.layers.size() == 20);
  for (std::size_t i = 0; i < 20; ++i) CHECK(equal(read.layers[i], bits.layers[i]));
  CHECK(to_json(read) == to_json(bits));
  CHECK(read.layer("layer1.1.conv1").weight == 8);
  CHECK_THROWS_AS(read.layer("layer9"), Error);
}

TEST_CASE("bits.json: a damaged file is an error that names it") {
  const std::string good = to_json(uniform_assignment(resnet20_layers(), 2, 4));
  const auto fails = [&](const std::string& text, const std::string& part) {
    try {
      bits_from_json(text, "run/bits.json");
      FAIL("accepted: ", text.substr(0, 200));
    } catch (const Error& e) {
      const std::string message = e.what();
      CHECK_MESSAGE(message.find("run/bits.json") != std::string::npos, message);
      CHECK_MESSAGE(message.find(part) != std::string::npos, message);
      CHECK(message.find('\n') == std::string::npos);
    }
  };
  fails("", "run/bits.json");
  fails("[1]", "object");
  for (std::size_t length : {1UL, good.size() / 2, good.size() - 3})
    fails(good.substr(0, length), "run/bits.json");
  fails(replaced(good, "goshawk-bits-1", "goshawk-stages-1"), "goshawk-bits-1");
  fails(replaced(good, "\"weight_bits\": 2", "\"weight_bits\": 9"), "weight_bits");
  fails(replaced(good, "\"weight_bits\": 2", "\"weight_bits\": 2.5"), "integer");
  fails(replaced(good, "\"weight_bits\": 2", "\"weight_bits\": \"2\""), "integer");
  fails(replaced(good, "\"weight_bits\": 2,", ""), "lacks");
  fails(replaced(good, "\"pinned\": false", "\"pinned\": 0"), "true or false");
  fails(replaced(good, "\"parameters\": 432", "\"parameters\": 0"), "parameters");
  fails(replaced(good, "\"parameters\": 432", "\"parameters\": 18446744073709551615"), "integer");
  fails(replaced(good, "\"parameters\": 432", "\"parameters\": 576460752303423488"),
        "parameters");  // 32 of them overflow
  fails(replaced(good, "layer1.0.conv1", "conv1"), "twice");
  CHECK_THROWS_AS(read_bits("no/such/bits.json"), Error);
}

TEST_CASE("sensitivity.json: what is written is read back, to the bit") {
  const Sensitivity s = example();
  const ScratchDirectory scratch;
  const auto path = scratch.path() / "sensitivity.json";
  write_sensitivity(path, s);
  const Sensitivity read = read_sensitivity(path);
  CHECK(read.model == s.model);
  CHECK(read.weights == s.weights);
  CHECK(read.quantizer == s.quantizer);
  CHECK(read.images == s.images);
  REQUIRE(read.layers.size() == 2);
  for (std::size_t i = 0; i < 2; ++i) {
    CHECK(read.layers[i].name == s.layers[i].name);
    CHECK(read.layers[i].parameters == s.layers[i].parameters);
    CHECK(read.layers[i].macs == s.layers[i].macs);
    CHECK(read.layers[i].input_elements == s.layers[i].input_elements);
    CHECK(read.layers[i].lambda_max == s.layers[i].lambda_max);
    CHECK(read.layers[i].lambda_residual == s.layers[i].lambda_residual);
    CHECK(read.layers[i].trace.value == s.layers[i].trace.value);
    CHECK(read.layers[i].trace.standard_error == s.layers[i].trace.standard_error);
    CHECK(read.layers[i].trace.samples == s.layers[i].trace.samples);
    CHECK(read.layers[i].perturbation == s.layers[i].perturbation);
  }
}

TEST_CASE("sensitivity.json: what is not finite is not written, and a damaged file is not read") {
  Sensitivity broken = example();
  broken.layers[1].trace.standard_error = INFINITY;
  CHECK_THROWS_AS(to_json(broken), Error);
  const std::string good = to_json(example());
  CHECK_THROWS_AS(sensitivity_from_json(replaced(good, "86.4", "null"), "s.json"), Error);
  CHECK_THROWS_AS(sensitivity_from_json(replaced(good, "\"2\": 7.5", "\"two\": 7.5"), "s.json"), Error);
  CHECK_THROWS_AS(sensitivity_from_json(replaced(good, "\"2\": 7.5", "\"9\": 7.5"), "s.json"), Error);
  CHECK_THROWS_AS(sensitivity_from_json(replaced(good, "\"2\": 7.5", "\"2\": -7.5"), "s.json"), Error);
  CHECK_THROWS_AS(sensitivity_from_json(replaced(good, "\"linear\"", "\"conv1\""), "s.json"), Error);
  CHECK_THROWS_AS(sensitivity_from_json(replaced(good, "\"trace\": {", "\"trail\": {"), "s.json"), Error);
  CHECK_THROWS_AS(sensitivity_from_json(good.substr(0, good.size() / 2), "s.json"), Error);
}
