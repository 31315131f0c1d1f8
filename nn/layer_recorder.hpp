// Records what every weighted layer of a forward pass was given and made of it.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "autograd/curvature/linear_site.hpp"
#include "nn/layers.hpp"

namespace goshawk {

/// While it lives, every forward of a weighted layer of `model` on this thread adds a LinearSite. Recorders
/// on different threads do not know of each other, so several may run the same model's forward at once; on
/// one thread the youngest that knows a layer records it. Layers of other models are left alone. It ends on
/// the thread that it began on. A recorded pass may round otherwise than one that is not (see
/// Conv2d::forward).
class LayerRecorder {
 public:
  /// Throws Error when the model has no weighted layers.
  explicit LayerRecorder(Module& model);
  ~LayerRecorder();
  LayerRecorder(const LayerRecorder&) = delete;
  LayerRecorder& operator=(const LayerRecorder&) = delete;

  /// In the order in which the model's layers were registered, and the uses of one layer in theirs.
  const std::vector<LinearSite>& sites() const { return sites_; }
  std::vector<LinearSite> take_sites();

  // What the layers' forward calls.
  /// The recorder on this thread that knows `layer`, or null.
  static LayerRecorder* of(const WeightedLayer& layer);
  /// x as a node of its own that gradients can be taken with respect to.
  static Variable separate(const Variable& x);
  void add(const WeightedLayer& layer, const Variable& input, const Variable& weight, const Variable& output);

 private:
  struct Layer {
    std::string name;
    std::size_t place;  // among the model's layers
  };
  std::unordered_map<const WeightedLayer*, Layer> layers_;
  std::vector<LinearSite> sites_;
  std::vector<std::size_t> places_;  // of the sites' layers
  LayerRecorder* older_;
};

/// One recorded forward pass: images [N,H,W,C] of the model's dtype, labels i64 [N]. The model stays in the
/// mode it is in; curvature over several microbatches needs eval mode. May be called from several threads at
/// once in eval mode.
ClassifierGraph record_classifier(Module& model, const Tensor& images, const Tensor& labels);

}  // namespace goshawk
