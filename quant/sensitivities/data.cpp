#include "quant/sensitivities/data.hpp"

#include <utility>

#include "autograd/curvature/microbatches.hpp"
#include "autograd/curvature/softmax_output.hpp"
#include "nn/layer_recorder.hpp"

namespace goshawk {
namespace {

std::vector<Tensor> images_of(Module& model, std::span<const Batch> batches) {
  const auto layers = weighted_layers(model);
  std::vector<Tensor> images;
  for (const Batch& batch : batches) {
    images.push_back(layers.empty() ? batch.images : batch.images.to(layers.front().second->weight.dtype()));
  }
  return images;
}

std::vector<Tensor> labels_of(std::span<const Batch> batches) {
  std::vector<Tensor> labels;
  for (const Batch& batch : batches) labels.push_back(batch.labels);
  return labels;
}

}  // namespace

SensitivityData::SensitivityData(Module& model, std::span<const Batch> batches)
    : SensitivityData(model, images_of(model, batches), labels_of(batches)) {}

SensitivityData::SensitivityData(Module& model, std::vector<Tensor> images, std::vector<Tensor> labels)
    : model_(&model),
      layers_(weighted_layers(model)),
      images_(std::move(images)),
      labels_(std::move(labels)) {
  check(!layers_.empty(), "[SensitivityData] the model has no convolution or linear layers");
  for (const NamedModule& named : model.named_modules()) {
    check(named.module->mode() == Mode::eval,
          "[SensitivityData] module '{}' is in train mode; call set_mode(Mode::eval) first", named.name);
  }
  for (const auto& [name, layer] : layers_) {
    check(!layer->weight_transform && !layer->input_transform,
          "[SensitivityData] layer '{}' has transforms already; detach its quantizer first", name);
  }
  check(images_.size() == labels_.size(),
        "[SensitivityData] there are {} microbatches of pictures and {} of labels", images_.size(),
        labels_.size());
  for (std::size_t b = 0; b < images_.size(); ++b) {
    check(images_[b].ndim() == 4 && images_[b].dtype() == dtype() && labels_[b].dtype() == DType::i64 &&
              labels_[b].ndim() == 1 && labels_[b].dim(0) == images_[b].dim(0),
          "[SensitivityData] microbatch {} is {} {} with labels {} {}; give pictures {} [N,H,W,C] and labels "
          "i64 [N]",
          b, images_[b].dtype(), images_[b].shape(), labels_[b].dtype(), labels_[b].shape(), dtype());
    sizes_.push_back(labels_[b].dim(0));
  }
  size_ = MicrobatchSizes(sizes_, "SensitivityData").samples();
}

ClassifierPass SensitivityData::pass() const {
  return [this](std::size_t b) { return record_classifier(*model_, images_[b], labels_[b]); };
}

std::vector<Variable> SensitivityData::weights() const {
  std::vector<Variable> weights;
  for (const auto& [name, layer] : layers_) weights.push_back(layer->weight);
  return weights;
}

HessianOperator SensitivityData::hessian(MicrobatchOptions options) const {
  return {weights(), sizes_,
          [this](std::size_t b) { return softmax_cross_entropy((*model_)(images_[b]), labels_[b]); },
          options};
}

double SensitivityData::loss(int concurrency) const {
  double sum = 0;
  for_each_in_order(
      sizes_.size(), concurrency,
      [this](std::size_t b) {
        const NoGrad no_grad;
        const SoftmaxOutput output((*model_)(images_[b]).value());
        return output.loss_sum(labels_[b]);
      },
      [&](std::size_t, double loss) { sum += loss; });
  return sum / static_cast<double>(size_);
}

ReplacedWeights::~ReplacedWeights() {
  for (WeightedLayer* layer : layers_) layer->weight_transform = nullptr;
}

void ReplacedWeights::replace(WeightedLayer& layer, Tensor weight) {
  check_same(layer.weight.value(), weight, "ReplacedWeights");
  check(!layer.weight_transform,
        "[ReplacedWeights] the layer has a weight transform already; take it off first");
  layers_.push_back(&layer);
  layer.weight_transform = [weight = std::move(weight)](const Variable&) { return Variable(weight); };
}

}  // namespace goshawk
