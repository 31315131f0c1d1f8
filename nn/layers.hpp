// The layers, configured with designated initialisers: Conv2d({.in = 3, .out = 16, .kernel = 3, .padding =
// 1}). Images are NHWC. Losses are ops (softmax_cross_entropy in autograd/ops.hpp).
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "autograd/ops.hpp"
#include "nn/module.hpp"

namespace goshawk {

enum class LayerKind : std::uint8_t { conv2d, linear };

/// A layer that is linear in `weight`: what quantization and per-layer curvature are about. The last axis of
/// `weight` is always the output channel; the product of the others is the fan-in. Weights are zero until a
/// checkpoint or nn/init.hpp fills them.
class WeightedLayer : public Module {
 public:
  using Transform = std::function<Variable(const Variable&)>;

  Variable weight;  ///< conv2d: HWIO [KH,KW,In/groups,Out]; linear: [In,Out]
  Variable bias;    ///< [Out], undefined when the layer has none

  /// Applied to the weight and to the input in every forward; empty means identity. A quantizer, with learned
  /// parameters of its own, goes here, and so does an observer of the layer's input.
  Transform weight_transform;
  Transform input_transform;

  Variable forward(const Variable& x) final;

  virtual LayerKind kind() const = 0;
  std::int64_t weight_count() const { return weight.numel(); }
  std::int64_t out_channels() const { return weight.dim(-1); }

  // Sizes seen by the last forward, per image; 0 before the first. Of a layer that is used twice in a pass
  // they are those of its last use alone. Several threads may run forward at once.
  /// Positions of the output: OH · OW, or 1 for a linear layer.
  std::int64_t last_output_pixels() const { return output_pixels_.load(std::memory_order_relaxed); }
  /// Elements of the input.
  std::int64_t last_input_elements() const { return input_elements_.load(std::memory_order_relaxed); }
  /// Multiply-accumulates of one image, without the bias.
  std::int64_t last_macs() const { return weight_count() * last_output_pixels(); }

 protected:
  Variable transformed_input(const Variable& x) const { return input_transform ? input_transform(x) : x; }
  Variable transformed_weight() const { return weight_transform ? weight_transform(weight) : weight; }
  /// To be called by whatever computes the layer's output y, or one of its shape, from x.
  void note_sizes(const Variable& x, const Variable& y);

 private:
  /// The layer as a function of its (transformed) input and weight; adds the bias, where there is one.
  virtual Variable apply(const Variable& x, const Variable& w) const = 0;

  std::atomic<std::int64_t> output_pixels_{0};
  std::atomic<std::int64_t> input_elements_{0};
};

/// All weighted layers of a model in network order (the order of registration), under their state-dict names
/// without
/// ".weight": "conv1", "layer1.0.conv1", ..., "linear".
std::vector<std::pair<std::string, WeightedLayer*>> weighted_layers(Module& model);

/// A size along both axes of an image: one number for a square, as in .kernel = 3, or the two of a rectangle,
/// as in .kernel = {1, 3}.
struct HeightWidth {
  std::int64_t height, width;
  // NOLINTNEXTLINE(google-explicit-constructor): most are square
  constexpr HeightWidth(std::int64_t both) : height(both), width(both) {}
  constexpr HeightWidth(std::int64_t h, std::int64_t w) : height(h), width(w) {}
};

struct Conv2dConfig {
  std::int64_t in = 0, out = 0;  ///< channels
  HeightWidth kernel = 1;
  HeightWidth stride = 1;
  HeightWidth padding = 0;  ///< zeros above and below, and on the left and on the right
  std::int64_t groups = 1;  ///< runs of channels that do not see each other; `in` for a depthwise convolution
  bool bias = false;
};

class BatchNorm2d;

/// [N,H,W,in] → [N,OH,OW,out], cross-correlation.
class Conv2d : public WeightedLayer {
 public:
  using Config = Conv2dConfig;
  explicit Conv2d(Config config);
  using WeightedLayer::forward;
  /// norm.forward((*this)(x), epilogue): [N,H,W,in] → [N,OH,OW,out]. Throws Error unless the norm has `out`
  /// channels and the residual the result's shape. Where `norm` is in eval mode and no LayerRecorder wants
  /// this layer's own output, both are one convolution, with weights · scale and shift of the norm's map,
  /// which spares passes over memory and, where derivatives are recorded, a tensor to keep; it rounds
  /// otherwise.
  Variable forward(const Variable& x, BatchNorm2d& norm, const Epilogue& epilogue);
  LayerKind kind() const override { return LayerKind::conv2d; }
  const Conv2dConfig& config() const { return config_; }
  /// Strides, padding and groups as the op takes them.
  ConvParams params() const;

 private:
  Variable apply(const Variable& x, const Variable& w) const final;
  Conv2dConfig config_;
};

struct LinearConfig {
  std::int64_t in = 0, out = 0;
  bool bias = true;
};

/// [N,in] → [N,out].
class Linear : public WeightedLayer {
 public:
  using Config = LinearConfig;
  explicit Linear(Config config);
  LayerKind kind() const override { return LayerKind::linear; }
  const LinearConfig& config() const { return config_; }

 private:
  Variable apply(const Variable& x, const Variable& w) const override;
  LinearConfig config_;
};

struct BatchNorm2dConfig {
  std::int64_t channels = 0;
  double eps = 1e-5;
  double momentum = 0.1;  ///< weight of the newest batch in the running statistics
};

/// Batch normalisation over all but the last dimension (Ioffe & Szegedy 2015), as in PyTorch: in train mode
/// with the batch's own mean and biased variance, folding mean and *unbiased* variance into the running
/// statistics; in eval mode with the running statistics, which are then constants. Train mode changes
/// buffers, except under a MeasuringGuard: one thread at a time.
class BatchNorm2d : public Module {
 public:
  using Config = BatchNorm2dConfig;
  explicit BatchNorm2d(Config config);

  Variable weight;  ///< [channels], γ, initially 1
  Variable bias;    ///< [channels], β, initially 0
  Tensor running_mean, running_var;

  /// [..., channels] → the same shape.
  Variable forward(const Variable& x) override { return forward(x, {}); }
  /// bn(x), bn(x) + residual, relu(bn(x)) or relu(bn(x) + residual).
  Variable forward(const Variable& x, const Epilogue& epilogue);
  /// What eval mode does, per channel: scale and shift [channels], from the running statistics as they are.
  ChannelMap map() const;
  const BatchNorm2dConfig& config() const { return config_; }

 private:
  struct BatchStatistics {
    Tensor mean, var;  ///< [channels]; the variance is biased
  };
  /// Normalisation and epilogue as ops, in train mode when `statistics` is given, which then receives the
  /// batch's.
  Variable normalise(const Variable& x, const Epilogue& epilogue, BatchStatistics* statistics) const;
  /// Folds the statistics of a batch with `values` values per channel into the running ones.
  void update_running(std::int64_t values, const BatchStatistics& statistics) const;

  BatchNorm2dConfig config_;
};

class ReLU : public Module {
 public:
  Variable forward(const Variable& x) override { return relu(x); }
};

struct Pool2dConfig {
  std::int64_t kernel = 2;
  std::int64_t stride = 2;
  std::int64_t padding = 0;
  bool ceil = false;  ///< also windows that hang over the far edge, see PoolParams
};

/// [N,H,W,C] → [N,OH,OW,C]; padded zeros count in the mean.
class AvgPool2d : public Module {
 public:
  using Config = Pool2dConfig;
  explicit AvgPool2d(Config config) : config_(config) {}
  Variable forward(const Variable& x) override;

 private:
  Pool2dConfig config_;
};

/// [N,H,W,C] → [N,OH,OW,C]; padding never wins.
class MaxPool2d : public Module {
 public:
  using Config = Pool2dConfig;
  explicit MaxPool2d(Config config) : config_(config) {}
  Variable forward(const Variable& x) override;

 private:
  Pool2dConfig config_;
};

/// [N,H,W,C] → [N,C].
class GlobalAvgPool : public Module {
 public:
  Variable forward(const Variable& x) override { return global_avg_pool(x); }
};

/// [N,...] → [N, product of the others]. Maps [N,H,W,C] are laid out as PyTorch does, channel by channel
/// [N, C·H·W], so that a linear layer behind it reads and writes PyTorch's weights.
class Flatten : public Module {
 public:
  Variable forward(const Variable& x) override;
};

/// Modules in a row. Names are given, or are the indices "0", "1", ... as in PyTorch. A Conv2d with the
/// BatchNorm2d, and the ReLU, right behind it run as one (see Conv2d::forward).
class Sequential : public Module {
 public:
  /// Appends and returns a reference to the new module: net.add<Conv2d>({.in = 3, .out = 8}).
  template <class M>
  M& add(const typename M::Config& config, std::string name = "") {
    return static_cast<M&>(append(std::make_unique<M>(config), std::move(name)));
  }
  template <class M>
  M& add() {
    return static_cast<M&>(append(std::make_unique<M>(), ""));
  }
  Module& append(std::unique_ptr<Module> module, std::string name = "");

  bool empty() const { return modules_.empty(); }
  std::size_t size() const { return modules_.size(); }
  /// Throws Error where there are not so many.
  Module& operator[](std::size_t i);
  Variable forward(const Variable& x) override;

 private:
  std::vector<std::unique_ptr<Module>> modules_;
};

/// The place of the largest entry (the first of equals) in each row of `logits` [N,C]: i64 [N]. −1 for a row
/// with a NaN.
Tensor predicted_classes(const Tensor& logits);
/// Number of rows of `logits` [N,C] whose predicted class is the label; labels: i64 [N].
std::int64_t count_correct(const Tensor& logits, const Tensor& labels);

}  // namespace goshawk
