#include "nn/layer_recorder.hpp"

#include "core/error.hpp"

namespace goshawk {
namespace {

thread_local LayerRecorder* youngest = nullptr;

}  // namespace

LayerRecorder::LayerRecorder(Module& model) : older_(youngest) {
  for (auto& [name, layer] : weighted_layers(model)) names_.emplace(layer, name);
  check(!names_.empty(), "[LayerRecorder] the model has no convolution or linear layers to record");
  youngest = this;
}

LayerRecorder::~LayerRecorder() {
  // Not always the youngest: two may end in either order.
  LayerRecorder** place = &youngest;
  while (*place != nullptr && *place != this) place = &(*place)->older_;
  if (*place == this) *place = older_;
}

LayerRecorder* LayerRecorder::of(const WeightedLayer& layer) {
  LayerRecorder* recorder = youngest;
  while (recorder != nullptr && !recorder->names_.contains(&layer)) recorder = recorder->older_;
  return recorder;
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
