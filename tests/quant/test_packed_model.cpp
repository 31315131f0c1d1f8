#include <cmath>
#include <doctest/doctest.h>
#include <filesystem>

#include "core/error.hpp"
#include "core/random.hpp"
#include "core/safetensors.hpp"
#include "models/registry.hpp"
#include "nn/init.hpp"
#include "quant/packed_model.hpp"
#include "quant/qat.hpp"
#include "tests/support/scratch_directory.hpp"

using namespace goshawk;

namespace {

Tensor pictures() {
  Random random(5);
  return random_normal({4, 32, 32, 3}, DType::f32, random);
}

std::vector<float> logits(Module& model) {
  const NoGrad no_grad;
  model.set_mode(Mode::eval);
  return model(pictures()).value().to_vector<float>();
}

std::unique_ptr<Module> resnet(std::uint64_t seed) {
  return make_model("resnet20", {.classes = 10, .seed = seed});
}

// Widths that leave no layer on a byte boundary by chance, one layer at 32 bits.
BitAssignment mixed_bits(Module& model, int activation_bits) {
  BitAssignment bits = uniform_assignment(layer_list(model), 2, activation_bits);
  for (std::size_t i = 0; i < bits.layers.size(); ++i) bits.layers[i].weight = 1 + static_cast<int>(i % 8);
  bits.layers[9].weight = kFullPrecision;
  return bits;
}

struct Quantizer {
  QuantizationOptions options;
  int activation_bits = 4;
};

Quantizer quantizer(WeightScheme weights, Granularity granularity, ClipRule clip,
                    ActivationScheme activations, int activation_bits) {
  Quantizer q{.options = {}, .activation_bits = activation_bits};
  q.options.weight_scheme = weights;
  q.options.weight_granularity = granularity;
  q.options.weight_clip = clip;
  q.options.activation_scheme = activations;
  return q;
}

std::vector<Quantizer> quantizers() {
  using W = WeightScheme;
  using A = ActivationScheme;
  using C = ClipRule;
  constexpr auto layer = Granularity::layer, channel = Granularity::channel;
  return {quantizer(W::mid_rise, channel, C::learned, A::pact, 4),
          quantizer(W::asymmetric, layer, C::min_max, A::asymmetric, 4),
          quantizer(W::asymmetric, channel, C::mse, A::fixed, 3),
          quantizer(W::symmetric, channel, C::mse, A::fixed, 4),
          quantizer(W::twos_complement, layer, C::lsq, A::lsq, 2),
          quantizer(W::dorefa, layer, C::min_max, A::dorefa, 4),
          quantizer(W::lq_nets, channel, C::min_max, A::lq_nets, 3),
          quantizer(W::lq_nets, layer, C::min_max, A::pact, kFullPrecision)};
}

/// A copy of the file in which the last number of the tensor is another.
std::string damaged_copy(const ScratchDirectory& scratch, const std::string& path, const std::string& name,
                         float number) {
  SafeTensors file = read_safetensors(path);
  bool found = false;
  for (auto& [key, tensor] : file.tensors) {
    if (key != name) continue;
    tensor = tensor.clone();
    tensor.data<float>()[tensor.numel() - 1] = number;
    found = true;
  }
  REQUIRE_MESSAGE(found, name);
  std::string damaged = scratch / "damaged.safetensors";
  write_safetensors(damaged, file.tensors, file.metadata);
  return damaged;
}

}  // namespace

TEST_CASE("a packed model comes back with the same logits, to the bit, from b bits a weight") {
  const ScratchDirectory scratch;
  for (const Quantizer& q : quantizers()) {
    const std::string name = fmt::format("{}-{}", weight_scheme_name(q.options.weight_scheme),
                                         activation_scheme_name(q.options.activation_scheme));
    CAPTURE(name);
    const std::string path = (scratch.path() / (name + ".safetensors")).string();
    const auto model = resnet(1);
    const BitAssignment bits = mixed_bits(*model, q.activation_bits);
    QuantizedModel quantized(*model, bits, q.options);
    const std::vector<Tensor> calibration{pictures()};
    quantized.calibrate(calibration);
    quantized.enable_all();
    const std::vector<float> before = logits(*model);
    const PackedSize size = write_packed_model(path, quantized, {{"model", "resnet20"}});

    // Every byte of the file is accounted for, and the codes are as many as the bits say.
    CHECK(size.total() == static_cast<std::int64_t>(std::filesystem::file_size(path)));
    std::int64_t codes = 0, full = 0;
    for (const LayerBits& layer : bits.layers) {
      if (layer.weight == kFullPrecision) {
        full += 4 * layer.parameters;
      } else {
        codes += (layer.parameters * layer.weight + 7) / 8;
      }
    }
    CHECK(size.codes == codes);
    CHECK(size.full_weights == full);
    const SizeReport report = measure_size(quantized);
    std::int64_t scales = 0;
    for (const WeightTensorReport& layer : count_bits(quantized)) scales += 4 * layer.scales;
    CHECK(size.scales == scales);
    CHECK(size.other == 4 * report.other_parameters);

    const auto other = resnet(2);
    const PackedModel packed = load_packed_model(path, *other);
    CHECK((logits(*other) == before));
    CHECK(packed.metadata.at("model") == "resnet20");
    REQUIRE(packed.bits.layers.size() == bits.layers.size());
    for (std::size_t i = 0; i < bits.layers.size(); ++i)
      CHECK(packed.bits.layers[i].weight == bits.layers[i].weight);
  }
}

TEST_CASE("codes and levels belong together for every width") {
  Random random(3);
  const Tensor w = random_normal({3, 3, 2, 5}, DType::f32, random);
  for (const WeightScheme scheme :
       {WeightScheme::symmetric, WeightScheme::mid_rise, WeightScheme::asymmetric,
        WeightScheme::twos_complement, WeightScheme::dorefa, WeightScheme::lq_nets}) {
    for (int bits = 1; bits <= 8; ++bits) {
      for (const Granularity granularity : {Granularity::layer, Granularity::channel}) {
        if (scheme == WeightScheme::dorefa && granularity == Granularity::channel) continue;
        const WeightSpec spec{.bits = bits, .scheme = scheme, .granularity = granularity};
        const QuantizedTensor q = quantize_weights(w, spec);
        CHECK(q.codes.dtype() == code_type(spec));
        CHECK((dequantize(q.codes, spec, q.grid).to_vector<float>() == q.dequantized.to_vector<float>()));
      }
    }
  }
  CHECK_THROWS_AS(dequantize(w, {.bits = 2}, choose_grid(w, {.bits = 2})), Error);
}

TEST_CASE("weights that another quantizer has rounded are codes and a table of the values they take") {
  const ScratchDirectory scratch;
  const std::string path = scratch / "packed.safetensors";
  for (const Granularity granularity : {Granularity::layer, Granularity::channel}) {
    const auto model = resnet(1);
    const BitAssignment widths = mixed_bits(*model, 4);
    // Levels that no scale and offset describe.
    RoundedWeights rounded{.bits = {}, .granularity = granularity};
    std::int64_t codes = 0;
    for (const auto& [name, layer] : weighted_layers(*model)) {
      const int bits = widths.layer(name).weight;
      if (bits == kFullPrecision) continue;
      const WeightSpec spec{.bits = bits, .scheme = WeightScheme::lq_nets, .granularity = granularity};
      layer->weight.value().copy_from(quantize_weights(layer->weight.value(), spec).dequantized);
      rounded.bits[name] = bits;
      codes += (layer->weight_count() * bits + 7) / 8;
    }
    QuantizedModel quantized(*model, uniform_assignment(layer_list(*model), kFullPrecision, 4), {});
    const std::vector<Tensor> calibration{pictures()};
    quantized.calibrate(calibration);
    quantized.enable_all();
    const std::vector<float> before = logits(*model);
    const PackedSize size = write_packed_model(path, quantized, {}, rounded);
    CHECK(size.codes == codes);
    CHECK(size.total() == static_cast<std::int64_t>(std::filesystem::file_size(path)));

    const auto other = resnet(2);
    const PackedModel packed = load_packed_model(path, *other);
    CHECK((logits(*other) == before));
    for (const LayerBits& layer : packed.bits.layers) {
      CHECK(layer.weight == widths.layer(layer.name).weight);
      CHECK(layer.activation == 4);
    }

    // Too few bits, a layer that is none, one that is quantized already, and codes beyond the table.
    RoundedWeights wrong = rounded;
    wrong.bits["layer1.0.conv1"] = 1;
    CHECK_THROWS_WITH_AS(write_packed_model(path, quantized, {}, wrong),
                         doctest::Contains("1 bits have 2 levels"), Error);
    CHECK_THROWS_WITH_AS(write_packed_model(path, quantized, {}, {.bits = {{"conv9", 2}}}),
                         doctest::Contains("'conv9'"), Error);
    CHECK_THROWS_WITH_AS(write_packed_model(path, quantized, {}, {.bits = {{"conv1", 9}}}),
                         doctest::Contains("9 bits"), Error);
    for (const float bad : {NAN, -INFINITY}) {
      const std::string damaged = damaged_copy(scratch, path, "layer1.0.conv1.weight.levels", bad);
      CHECK_THROWS_WITH_AS(load_packed_model(damaged, *resnet(3)),
                           doctest::Contains("'layer1.0.conv1.weight.levels' in "), Error);
    }
    SafeTensors file = read_safetensors(path);
    for (auto& [name, tensor] : file.tensors) {
      if (name != "layer1.0.conv1.weight.levels") continue;
      CHECK(tensor.dim(0) == (granularity == Granularity::layer ? 1 : 16));
      tensor = Tensor::zeros({tensor.dim(0), 1}, DType::f32);
    }
    write_safetensors(path, file.tensors, file.metadata);
    CHECK_THROWS_WITH_AS(load_packed_model(path, *resnet(3)),
                         doctest::Contains("'layer1.0.conv1.weight.codes'"), Error);
  }
}

TEST_CASE("what does not fit is refused with the file's name") {
  const ScratchDirectory scratch;
  const std::string path = (scratch.path() / "packed.safetensors").string();
  const auto model = resnet(1);
  QuantizedModel quantized(*model, uniform_assignment(layer_list(*model), 3, kFullPrecision), {});
  CHECK_THROWS_WITH_AS(write_packed_model(path, quantized), doctest::Contains("'conv1' is not quantized yet"),
                       Error);
  CHECK_FALSE(std::filesystem::exists(path));
  quantized.enable_all();
  write_packed_model(path, quantized);
  const auto deeper = make_model("resnet32", {.classes = 10, .seed = 1});
  CHECK_THROWS_AS(load_packed_model(path, *deeper), Error);

  SafeTensors file = read_safetensors(path);
  const auto rewrite = [&](auto change) {
    SafeTensors changed = file;
    change(changed);
    write_safetensors(path, changed.tensors, changed.metadata);
  };
  const auto fresh = resnet(3);
  rewrite([](SafeTensors& f) { f.metadata.erase("format"); });
  CHECK_THROWS_WITH_AS(load_packed_model(path, *fresh), doctest::Contains("no packed model"), Error);
  rewrite([](SafeTensors& f) { f.metadata["quantizer"] = "{}"; });
  CHECK_THROWS_WITH_AS(load_packed_model(path, *fresh), doctest::Contains("packed.safetensors"), Error);
  rewrite([](SafeTensors& f) {
    for (auto& [name, tensor] : f.tensors) {
      if (name == "layer1.0.conv1.weight.codes") tensor = Tensor::zeros({tensor.numel() - 1}, DType::u8);
    }
  });
  CHECK_THROWS_WITH_AS(load_packed_model(path, *fresh), doctest::Contains("layer1.0.conv1.weight.codes"),
                       Error);
  rewrite([](SafeTensors& f) {
    const std::string text = f.metadata.at("quantizer");
    f.metadata["quantizer"] = std::string(text).replace(text.find("mid_rise"), 8, "mid_fall");
  });
  CHECK_THROWS_WITH_AS(load_packed_model(path, *fresh), doctest::Contains("packed.safetensors: "), Error);
  for (const float bad : {NAN, INFINITY, -1.0F}) {
    rewrite([&](SafeTensors& f) {
      for (auto& [name, tensor] : f.tensors) {
        if (name != "conv1.weight.scale") continue;
        tensor = tensor.clone();
        tensor.data<float>()[3] = bad;
      }
    });
    CHECK_THROWS_WITH_AS(load_packed_model(path, *fresh), doctest::Contains("'conv1.weight.scale' in "),
                         Error);
  }
}

TEST_CASE("a range of activations that no quantizer has is damage, by the tensor's name") {
  const ScratchDirectory scratch;
  const std::string path = scratch / "packed.safetensors";
  const std::vector<Tensor> calibration{pictures()};
  const auto fresh = resnet(3);
  struct Case {
    ActivationScheme scheme;
    std::string tensor;
    std::vector<float> bad;
  };
  const std::vector<Case> cases{
      {ActivationScheme::pact, "quantizer.layer1.0.conv1.act_clip", {NAN, INFINITY, 0.0F, -1.0F}},
      {ActivationScheme::pact, "quantizer.conv1.input_scale", {NAN, INFINITY, 0.0F, -1.0F}},
      {ActivationScheme::asymmetric, "quantizer.layer1.0.conv1.input_scale", {NAN, 0.0F}},
      {ActivationScheme::asymmetric, "quantizer.layer1.0.conv1.input_offset", {NAN, -INFINITY}},
      {ActivationScheme::lsq, "quantizer.layer1.0.conv1.act_step", {NAN, INFINITY, 0.0F}},
      {ActivationScheme::lq_nets, "quantizer.layer1.0.conv1.act_basis", {NAN, INFINITY}}};
  for (const Case& c : cases) {
    const auto model = resnet(1);
    QuantizedModel quantized(
        *model, uniform_assignment(layer_list(*model), 3, 4),
        quantizer(WeightScheme::mid_rise, Granularity::channel, ClipRule::min_max, c.scheme, 4).options);
    quantized.calibrate(calibration);
    quantized.enable_all();
    write_packed_model(path, quantized);
    for (const float bad : c.bad) {
      CAPTURE(c.tensor);
      CAPTURE(bad);
      const std::string damaged = damaged_copy(scratch, path, c.tensor, bad);
      const std::string message = error_of([&] { load_packed_model(damaged, *fresh); });
      CHECK_MESSAGE(contains(message, fmt::format("'{}' in {} holds ", c.tensor, damaged)), message);
    }
    // A learned step counts by its magnitude.
    if (c.scheme == ActivationScheme::lsq)
      CHECK_NOTHROW(load_packed_model(damaged_copy(scratch, path, c.tensor, -0.5F), *fresh));
  }
}

TEST_CASE("a code beyond the quantizer's levels is damage, not a weight") {
  const ScratchDirectory scratch;
  const std::string path = (scratch.path() / "packed.safetensors").string();
  const auto model = resnet(1);
  // 8 symmetric bits have 255 levels.
  QuantizedModel quantized(
      *model, uniform_assignment(layer_list(*model), 8, kFullPrecision),
      {.weight_scheme = WeightScheme::symmetric, .weight_clip = ClipRule::min_max, .calibration = {}});
  quantized.enable_all();
  write_packed_model(path, quantized);
  SafeTensors file = read_safetensors(path);
  for (auto& [name, tensor] : file.tensors) {
    if (name != "conv1.weight.codes") continue;
    tensor = tensor.clone();
    tensor.data<std::uint8_t>()[5] = 255;
  }
  write_safetensors(path, file.tensors, file.metadata);
  CHECK_THROWS_WITH_AS(load_packed_model(path, *resnet(3)),
                       doctest::Contains("code 5 of 'conv1.weight.codes' in"), Error);
}
