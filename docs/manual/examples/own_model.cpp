// A network of one's own, all the way: train, measure, allocate bits, fine-tune, pack, read back.
#include <filesystem>

#include "autograd/grad.hpp"
#include "nn/init.hpp"
#include "nn/optimizer.hpp"
#include "quant/cost_allocation.hpp"
#include "quant/packed_model.hpp"
#include "quant/qat.hpp"
#include "quant/sensitivities/registry.hpp"

using namespace goshawk;

namespace {

class TwoPaths : public Module {
 public:
  TwoPaths() {
    register_module("stem", stem_);  // in a checkpoint: "stem.weight"
    register_module("norm1", norm1_);
    register_module("fine", fine_);
    register_module("coarse", coarse_);
    register_module("norm2", norm2_);
    register_module("classifier", classifier_);
  }
  Variable forward(const Variable& x) override {
    const Variable y = stem_.forward(x, norm1_, {.relu = true});  // one op in eval mode
    return classifier_(global_avg_pool(norm2_.forward(fine_(y) + coarse_(y), {.relu = true})));
  }

 private:
  Conv2d stem_{{.in = 3, .out = 16, .kernel = 3, .stride = 2, .padding = 1}};
  Conv2d fine_{{.in = 16, .out = 32, .kernel = 3, .stride = 2, .padding = 1}};
  Conv2d coarse_{{.in = 16, .out = 32, .kernel = 5, .stride = 2, .padding = 2}};
  BatchNorm2d norm1_{{.channels = 16}}, norm2_{{.channels = 32}};
  Linear classifier_{{.in = 32, .out = 3}};
};

void train(Module& model, const Tensor& images, const Tensor& labels, Sgd sgd, int steps) {
  model.set_mode(Mode::train);
  for (int step = 0; step < steps; ++step)
    sgd.step(grad(softmax_cross_entropy(model(images), labels), sgd.parameters()));
  model.set_mode(Mode::eval);
}

}  // namespace

int main() {
  // Noise in three colours, each class with a little more of one.
  Random random(/*seed=*/1);
  const Tensor images = random_normal({96, 16, 16, 3}, DType::f32, random);
  const Tensor labels = Tensor::zeros({96}, DType::i64);
  for (std::int64_t i = 0; i < 96 * 16 * 16; ++i) {
    const std::int64_t label = i / (16 * 16) % 3;
    labels.data<std::int64_t>()[i / (16 * 16)] = label;
    images.data<float>()[3 * i + label] += 0.1F;
  }
  TwoPaths model;
  pytorch_default_init(model, random);
  train(model, images, labels, {model.named_parameters(), {.lr = 0.05, .momentum = 0.9}}, 40);

  const SensitivityData data(model, {images}, {labels});
  fmt::print("trained: loss {:.4f}\n", data.loss());
  const WeightCandidates candidates = weight_candidates(data, {2, 3, 4, 8}, {});
  SensitivityMeasurement measurement(data, candidates);
  const Costs costs = to_costs(candidates, measurement.measure("exact-quadratic"));
  const CostAllocation chosen =
      allocate(costs, AllocationMethod::exact, {.bytes = full_precision_bytes(costs) / 10});

  BitAssignment bits = uniform_assignment(layer_list(model), 8, /*activation_bits=*/8);
  for (std::size_t l = 0; l < bits.layers.size(); ++l) bits.layers[l].weight = chosen.layers[l].bits;
  for (const LayerBits& layer : bits.layers) fmt::print("  {:<10} {} bits\n", layer.name, layer.weight);

  QuantizedModel quantized(model, bits);
  quantized.calibrate(std::vector{images});
  quantized.enable_all();
  const double before = data.loss();
  train(model, images, labels,
        {{{model.named_parameters()}, {quantized.named_parameters()}}, {.lr = 0.01, .momentum = 0.9}}, 10);
  fmt::print("{} bytes: loss {:.4f}, fine-tuned {:.4f}\n", chosen.bytes, before, data.loss());

  const std::string file = std::filesystem::temp_directory_path() / "goshawk-two-paths.packed.safetensors";
  const PackedSize size = write_packed_model(file, quantized);
  TwoPaths again;
  const PackedModel packed = load_packed_model(file, again);
  std::filesystem::remove(file);
  again.set_mode(Mode::eval);
  const bool same = again(images).value().to_vector<float>() == model(images).value().to_vector<float>();
  fmt::print("packed: {} bytes; read back, {}\n", size.total(), same ? "the same bits" : "something else");
  return same ? 0 : 1;
}
