// What sensitivities are measured on: a classifier and labelled pictures in microbatches.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "autograd/curvature/exact_traces.hpp"
#include "autograd/curvature/hessian_operator.hpp"
#include "datasets/loader.hpp"
#include "nn/layers.hpp"

namespace goshawk {

/// The model, which must outlive this and stay as it is, and the pictures that sensitivities are averaged
/// over. All means are over pictures, whatever the sizes of the microbatches.
class SensitivityData {
 public:
  /// images[b]: [N,H,W,C] of the model's dtype; labels[b]: i64 [N]. Throws Error unless there are pictures,
  /// the model is in eval mode and has weighted layers without transforms (quantizers) of their own.
  SensitivityData(Module& model, std::vector<Tensor> images, std::vector<Tensor> labels);
  /// Converts the pictures to the model's dtype.
  SensitivityData(Module& model, std::span<const Batch> batches);

  // What pass() and hessian() give refers to this object.
  SensitivityData(const SensitivityData&) = delete;
  SensitivityData& operator=(const SensitivityData&) = delete;

  Module& model() const { return *model_; }
  const std::vector<std::pair<std::string, WeightedLayer*>>& layers() const { return layers_; }
  const std::vector<std::int64_t>& sizes() const { return sizes_; }
  const Tensor& images(std::size_t b) const { return images_[b]; }
  const Tensor& labels(std::size_t b) const { return labels_[b]; }
  std::int64_t size() const { return size_; }
  DType dtype() const { return layers_.front().second->weight.dtype(); }

  /// Recorded forward passes.
  ClassifierPass pass() const;
  /// The weights of all layers, and the Hessian of the mean loss in them by double backward.
  std::vector<Variable> weights() const;
  HessianOperator hessian(MicrobatchOptions options = {}) const;
  /// Mean cross-entropy of the model as it is now, in f64 from its logits. The result does not depend on
  /// `concurrency`, the microbatches at work at the same time (0: as many as threads).
  double loss(int concurrency = 0) const;

 private:
  Module* model_;
  std::vector<std::pair<std::string, WeightedLayer*>> layers_;
  std::vector<Tensor> images_, labels_;
  std::vector<std::int64_t> sizes_;
  std::int64_t size_ = 0;
};

/// While it lives, some layers of a model multiply by other weights than their own. Not to be used on one
/// layer twice at the same time.
class ReplacedWeights {
 public:
  ReplacedWeights() = default;
  ~ReplacedWeights();
  ReplacedWeights(const ReplacedWeights&) = delete;
  ReplacedWeights& operator=(const ReplacedWeights&) = delete;

  /// `weight` is of the shape and type of the layer's.
  void replace(WeightedLayer& layer, Tensor weight);

 private:
  std::vector<WeightedLayer*> layers_;
};

}  // namespace goshawk
