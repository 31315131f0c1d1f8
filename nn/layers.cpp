#include "nn/layers.hpp"

#include <algorithm>
#include <cmath>
#include <typeinfo>

#include "core/error.hpp"
#include "nn/layer_recorder.hpp"

namespace goshawk {
namespace {

Variable zero_parameter(const Shape& shape) {
  return Variable::leaf(Tensor::zeros(shape, DType::f32));
}

PoolParams pool_params(const Pool2dConfig& config) {
  return {.kernel_h = config.kernel,
          .kernel_w = config.kernel,
          .stride_h = config.stride,
          .stride_w = config.stride,
          .pad_h = config.padding,
          .pad_w = config.padding,
          .ceil = config.ceil};
}

/// `module` as an M; null if it is another class, also one derived from M, which may do something else.
template <class M>
M* exactly(Module* module) {
  return typeid(*module) == typeid(M) ? static_cast<M*>(module) : nullptr;
}

}  // namespace

// ---- layers with weights
// ---------------------------------------------------------------------------------------

Variable WeightedLayer::forward(const Variable& x) {
  LayerRecorder* const recorder = LayerRecorder::of(*this);
  Variable input = transformed_input(x);
  if (recorder != nullptr) input = LayerRecorder::separate(input);
  const Variable w = transformed_weight();
  const Variable y = apply(input, w);
  if (recorder != nullptr) recorder->add(*this, input, w, y);
  note_sizes(x, y);
  return y;
}

void WeightedLayer::note_sizes(const Variable& x, const Variable& y) {
  const std::int64_t images = std::max<std::int64_t>(1, x.dim(0));
  output_pixels_.store(y.numel() / images / out_channels(), std::memory_order_relaxed);
  input_elements_.store(x.numel() / images, std::memory_order_relaxed);
}

std::vector<std::pair<std::string, WeightedLayer*>> weighted_layers(Module& model) {
  std::vector<std::pair<std::string, WeightedLayer*>> layers;
  for (const NamedModule& named : model.named_modules()) {
    if (auto* layer = dynamic_cast<WeightedLayer*>(named.module)) layers.emplace_back(named.name, layer);
  }
  return layers;
}

Conv2d::Conv2d(Config config) : config_(config) {
  const HeightWidth kernel = config.kernel, stride = config.stride, padding = config.padding;
  check(
      config.in > 0 && config.out > 0 && kernel.height > 0 && kernel.width > 0 && stride.height > 0 &&
          stride.width > 0 && padding.height >= 0 && padding.width >= 0,
      "[Conv2d] in {}, out {}, kernel {}x{} and stride {}x{} must be positive and padding {}x{} not negative",
      config.in, config.out, kernel.height, kernel.width, stride.height, stride.width, padding.height,
      padding.width);
  check(config.groups > 0 && config.in % config.groups == 0 && config.out % config.groups == 0,
        "[Conv2d] {} groups do not divide the {} input and {} output channels; choose a common divisor",
        config.groups, config.in, config.out);
  weight = zero_parameter({kernel.height, kernel.width, config.in / config.groups, config.out});
  register_parameter("weight", weight);
  if (config.bias) {
    bias = zero_parameter({config.out});
    register_parameter("bias", bias);
  }
}

ConvParams Conv2d::params() const {
  return {.stride_h = config_.stride.height,
          .stride_w = config_.stride.width,
          .pad_h = config_.padding.height,
          .pad_w = config_.padding.width,
          .groups = config_.groups};
}

Variable Conv2d::apply(const Variable& x, const Variable& w) const {
  return conv2d(x, w, params(), bias);
}

Variable Conv2d::forward(const Variable& x, BatchNorm2d& norm, const Epilogue& epilogue) {
  const bool one = norm.mode() == Mode::eval && LayerRecorder::of(*this) == nullptr;
  if (!one) return norm.forward(forward(x), epilogue);
  check(norm.config().channels == config_.out,
        "[Conv2d] a batch norm of {} channels cannot follow {} output channels", norm.config().channels,
        config_.out);
  const Variable input = transformed_input(x);
  const auto [s, t] = norm.map();
  const Variable w = channel_scale(transformed_weight(), s);
  const Variable shift = bias.defined() ? add(t, mul(bias, s)) : t;
  const Variable y = conv2d(input, w, params(), shift, epilogue);
  note_sizes(x, y);
  return y;
}

Linear::Linear(Config config) : config_(config) {
  check(config.in > 0 && config.out > 0, "[Linear] in {} and out {} must be positive", config.in, config.out);
  weight = zero_parameter({config.in, config.out});
  register_parameter("weight", weight);
  if (config.bias) {
    bias = zero_parameter({config.out});
    register_parameter("bias", bias);
  }
}

Variable Linear::apply(const Variable& x, const Variable& w) const {
  check(x.shape().size() == 2 && x.dim(1) == config_.in,
        "[Linear] the input has shape {} but the layer needs [N, {}]; flatten it or change .in", x.shape(),
        config_.in);
  const Variable y = matmul(x, w);
  return bias.defined() ? channel_shift(y, bias) : y;
}

// ---- batch normalisation
// ---------------------------------------------------------------------------------------

BatchNorm2d::BatchNorm2d(Config config) : config_(config) {
  check(config.channels > 0 && config.eps > 0 && config.momentum >= 0 && config.momentum <= 1,
        "[BatchNorm2d] channels {} and eps {} must be positive and momentum {} between 0 and 1",
        config.channels, config.eps, config.momentum);
  weight = Variable::leaf(Tensor::full({config.channels}, DType::f32, 1));
  bias = zero_parameter({config.channels});
  running_mean = Tensor::zeros({config.channels}, DType::f32);
  running_var = Tensor::full({config.channels}, DType::f32, 1);
  register_parameter("weight", weight);
  register_parameter("bias", bias);
  register_buffer("running_mean", running_mean);
  register_buffer("running_var", running_var);
}

Variable BatchNorm2d::forward(const Variable& x, const Epilogue& epilogue) {
  check(x.shape().size() >= 2 && x.shape().back() == config_.channels,
        "[BatchNorm2d] the input has shape {} but the layer needs [..., {}]; images are NHWC", x.shape(),
        config_.channels);
  if (mode() == Mode::eval) return normalise(x, epilogue, nullptr);
  check(x.numel() > config_.channels,
        "[BatchNorm2d] the input has shape {}, one value per channel, which has no variance; use a larger "
        "batch or "
        "eval mode",
        x.shape());
  BatchStatistics statistics;
  const Variable y = normalise(x, epilogue, &statistics);
  if (!measuring()) update_running(x.numel() / config_.channels, statistics);
  return y;
}

Variable BatchNorm2d::normalise(const Variable& x, const Epilogue& epilogue,
                                BatchStatistics* statistics) const {
  if (statistics == nullptr) {
    return batch_norm_eval(x, weight, bias, running_mean, running_var, config_.eps, epilogue);
  }
  BatchNormTrain result = batch_norm_train(x, weight, bias, config_.eps, epilogue);
  *statistics = {result.mean, result.var};
  return std::move(result.y);
}

ChannelMap BatchNorm2d::map() const {
  return batch_norm_map(weight, bias, running_mean, running_var, config_.eps);
}

void BatchNorm2d::update_running(std::int64_t values, const BatchStatistics& statistics) const {
  const double momentum = config_.momentum;
  const double unbiased = static_cast<double>(values) / static_cast<double>(values - 1);
  dispatch_floating(running_mean.dtype(), "BatchNorm2d", [&]<class T>() {
    const auto fold = [&](const Tensor& running, const Tensor& batch, double factor) {
      T* const into = running.data<T>();
      const T* const from = batch.data<T>();
      for (std::int64_t c = 0; c < config_.channels; ++c) {
        into[c] = static_cast<T>((1 - momentum) * static_cast<double>(into[c]) +
                                 momentum * factor * static_cast<double>(from[c]));
      }
    };
    fold(running_mean, statistics.mean, 1);
    fold(running_var, statistics.var, unbiased);
  });
}

// ---- the rest
// --------------------------------------------------------------------------------------------------

Variable AvgPool2d::forward(const Variable& x) {
  return avg_pool2d(x, pool_params(config_));
}

Variable MaxPool2d::forward(const Variable& x) {
  return max_pool2d(x, pool_params(config_));
}

Variable Flatten::forward(const Variable& x) {
  const Shape& shape = x.shape();
  check(shape.size() >= 1, "[Flatten] the input has no dimensions; it needs [N, ...]");
  std::int64_t elements = 1;  // counted, since a batch may be empty
  for (int i = 1; i < shape.size(); ++i) elements *= x.dim(i);
  const bool orders_differ = shape.size() == 4 && x.dim(1) * x.dim(2) > 1 && x.dim(3) > 1;
  if (!orders_differ || x.numel() == 0) return reshape(x, {x.dim(0), elements});
  const Tensor places = Tensor::empty(shape, DType::i64);
  std::int64_t place = 0;
  for (std::int64_t& p : places.span<std::int64_t>()) p = place++;
  return gather(x, permute(places, {0, 3, 1, 2}).reshape({x.dim(0), elements}));
}

Module& Sequential::operator[](std::size_t i) {
  check(i < modules_.size(), "[Sequential] there is no module {} among {}", i, modules_.size());
  return *modules_[i];
}

Module& Sequential::append(std::unique_ptr<Module> module, std::string name) {
  check(module != nullptr, "[Sequential] cannot append a null module");
  register_module(name.empty() ? std::to_string(modules_.size()) : std::move(name), *module);
  modules_.push_back(std::move(module));
  return *modules_.back();
}

Variable Sequential::forward(const Variable& x) {
  Variable y = x;
  for (std::size_t i = 0; i < modules_.size(); ++i) {
    Module& module = *modules_[i];
    auto* const conv = exactly<Conv2d>(&module);
    auto* const norm =
        conv != nullptr && i + 1 < modules_.size() ? exactly<BatchNorm2d>(modules_[i + 1].get()) : nullptr;
    if (norm == nullptr) {
      y = module.forward(y);
      continue;
    }
    ++i;
    const bool relu = i + 1 < modules_.size() && exactly<ReLU>(modules_[i + 1].get()) != nullptr;
    if (relu) ++i;
    y = conv->forward(y, *norm, {.relu = relu});
  }
  return y;
}

Tensor predicted_classes(const Tensor& logits) {
  check(logits.ndim() == 2 && logits.dim(1) > 0,
        "[predicted_classes] logits {} are not of shape [N, classes]", logits.shape());
  const std::int64_t classes = logits.dim(1);
  Tensor predicted = Tensor::empty({logits.dim(0)}, DType::i64);
  dispatch_floating(logits.dtype(), "predicted_classes", [&]<class T>() {
    const T* row = logits.data<T>();
    for (std::int64_t& prediction : predicted.span<std::int64_t>()) {
      const bool ordered = std::none_of(row, row + classes, [](T x) { return std::isnan(x); });
      prediction = ordered ? std::max_element(row, row + classes) - row : -1;
      row += classes;
    }
  });
  return predicted;
}

std::int64_t count_correct(const Tensor& logits, const Tensor& labels) {
  check(logits.ndim() == 2 && labels.dtype() == DType::i64 && labels.shape() == Shape{logits.dim(0)},
        "[count_correct] logits {} need labels of type i64 and shape [N] but were given {} {}",
        logits.shape(), labels.dtype(), labels.shape());
  const Tensor predicted = predicted_classes(logits);
  const auto* prediction = predicted.data<std::int64_t>();
  std::int64_t correct = 0;
  for (const std::int64_t label : labels.span<std::int64_t>()) {
    check(label >= 0 && label < logits.dim(1), "[count_correct] label {} is not one of the {} classes", label,
          logits.dim(1));
    correct += *prediction++ == label ? 1 : 0;
  }
  return correct;
}

}  // namespace goshawk
