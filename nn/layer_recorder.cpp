#include "nn/layer_recorder.hpp"

#include "core/error.hpp"

namespace goshawk {
namespace {

thread_local LayerRecorder* innermost = nullptr;

}  // namespace

LayerRecorder::LayerRecorder(Module& model) : outer_(innermost) {
  for (auto& [name, layer] : weighted_layers(model)) names_.emplace(layer, name);
  check(!names_.empty(), "[LayerRecorder] the model has no convolution or linear layers to record");
  innermost = this;
}

LayerRecorder::~LayerRecorder() {
  innermost = outer_;
}

LayerRecorder* LayerRecorder::of(const WeightedLayer& layer) {
  return innermost != nullptr && innermost->names_.contains(&layer) ? innermost : nullptr;
}

Variable LayerRecorder::separate(const Variable& x) {
  return x.requires_grad() ? reshape(x, x.shape()) : Variable::leaf(x.value());
}

void LayerRecorder::add(const WeightedLayer& layer, const Variable& input, const Variable& weight,
                        const Variable& output) {
  LinearSite& site = sites_.emplace_back();
  site.name = names_.at(&layer);
  site.kind = layer.kind() == LayerKind::conv2d ? LinearKind::conv2d : LinearKind::linear;
  site.input = input;
  site.weight = weight;
  site.output = output;
  if (const auto* conv = dynamic_cast<const Conv2d*>(&layer)) site.params = conv->params();
}

ClassifierGraph record_classifier(Module& model, const Tensor& images, const Tensor& labels) {
  const RecordingGuard on(true);
  LayerRecorder recorder(model);
  ClassifierGraph graph;
  graph.logits = model(images);
  graph.labels = labels;
  graph.sites = recorder.take_sites();
  return graph;
}

}  // namespace goshawk
