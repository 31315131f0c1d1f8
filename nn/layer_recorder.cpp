#include "nn/layer_recorder.hpp"

#include <algorithm>
#include <utility>

#include "core/error.hpp"

namespace goshawk {
namespace {

thread_local LayerRecorder* youngest = nullptr;

}  // namespace

LayerRecorder::LayerRecorder(Module& model) : older_(youngest) {
  for (auto& [name, layer] : weighted_layers(model)) layers_.emplace(layer, Layer{name, layers_.size()});
  check(!layers_.empty(), "[LayerRecorder] the model has no convolution or linear layers to record");
  youngest = this;
}

LayerRecorder::~LayerRecorder() {
  // Not always the youngest: two may end in either order.
  LayerRecorder** place = &youngest;
  while (*place != nullptr && *place != this) place = &(*place)->older_;
  if (*place == this) *place = older_;
}

std::vector<LinearSite> LayerRecorder::take_sites() {
  places_.clear();
  return std::exchange(sites_, {});
}

LayerRecorder* LayerRecorder::of(const WeightedLayer& layer) {
  LayerRecorder* recorder = youngest;
  while (recorder != nullptr && !recorder->layers_.contains(&layer)) recorder = recorder->older_;
  return recorder;
}

Variable LayerRecorder::separate(const Variable& x) {
  return x.requires_grad() ? reshape(x, x.shape()) : Variable::leaf(x.value());
}

void LayerRecorder::add(const WeightedLayer& layer, const Variable& input, const Variable& weight,
                        const Variable& output) {
  const Layer& known = layers_.at(&layer);
  const auto after = std::upper_bound(places_.begin(), places_.end(), known.place);
  LinearSite& site = *sites_.insert(sites_.begin() + (after - places_.begin()), LinearSite());
  places_.insert(after, known.place);
  site.name = known.name;
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
