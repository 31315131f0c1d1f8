#include "apps/support/trainer.hpp"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <numeric>
#include <sstream>

#include "apps/support/interrupt.hpp"
#include "apps/support/progress.hpp"
#include "autograd/grad.hpp"
#include "core/safetensors.hpp"
#include "nn/layers.hpp"

namespace goshawk {
namespace {

using NamedTensors = std::vector<std::pair<std::string, Tensor>>;

// A checkpoint holds the memory layout and all state of a run; it goes back into this program only.
constexpr std::string_view kModelPrefix = "model.";
constexpr std::string_view kOptimizerPrefix = "optimizer.";
constexpr std::string_view kQuantizerPrefix = "quantizer.";

NamedTensors with_prefix(const NamedTensors& tensors, std::string_view prefix) {
  NamedTensors result;
  for (const auto& [name, tensor] : tensors) {
    if (name.starts_with(prefix)) result.emplace_back(name.substr(prefix.size()), tensor);
  }
  return result;
}

NamedTensors model_tensors(const Module& model) {
  NamedTensors tensors;
  for (const NamedParameter& p : model.named_parameters()) tensors.emplace_back(p.name, p.variable.value());
  for (const NamedBuffer& b : model.named_buffers()) tensors.emplace_back(b.name, b.tensor);
  return tensors;
}

// How far a run is: whole epochs, and what the present one has seen of its pictures.
struct Position {
  std::int64_t epochs_done = 0;
  std::int64_t step = 0;  // done in the present epoch
  double loss = 0;        // summed over its pictures
  std::int64_t images = 0, correct = 0;
};

class Run {
 public:
  Run(Module& model, QuantizedModel* quantized, const std::vector<Stage>& stages,
      const TrainerOptions& options)
      : model_(model), quantized_(quantized), stages_(stages), options_(options) {
    if (stages_.empty()) stages_ = {{.layers = {}, .epochs = static_cast<int>(options.epochs)}};
    std::int64_t total = 0;
    for (const Stage& stage : stages_) total += stage.epochs;
    check(total == options.epochs,
          "[train] the stages have {} epochs together, not the {} that were asked for", total,
          options.epochs);
  }

  // Enters a stage: its layers become quantized and a new optimiser takes over.
  void enter(std::int64_t stage) {
    stage_ = stage;
    if (quantized_ != nullptr) quantized_->enable(stages_[static_cast<std::size_t>(stage)].layers);
    std::vector<ParameterGroup> groups{{model_.named_parameters(), 1, options_.sgd.weight_decay}};
    if (quantized_ != nullptr) {
      ParameterGroup clips{{}, options_.quantizer_lr_multiplier, options_.clip_weight_decay};
      ParameterGroup steps{{}, options_.quantizer_lr_multiplier, 0};
      for (const NamedParameter& p : quantized_->named_parameters()) {
        (p.name.ends_with(".act_clip") ? clips : steps).parameters.push_back(p);
      }
      for (ParameterGroup* group : {&clips, &steps}) {
        if (!group->parameters.empty()) groups.push_back(std::move(*group));
      }
    }
    sgd_ = std::make_unique<Sgd>(std::move(groups), options_.sgd);
  }

  std::int64_t stage_of(std::int64_t epoch) const {
    std::int64_t first = 0;
    for (std::size_t k = 0; k < stages_.size(); ++k) {
      first += stages_[k].epochs;
      if (epoch < first) return static_cast<std::int64_t>(k);
    }
    return static_cast<std::int64_t>(stages_.size()) - 1;
  }

  void save(const Position& position) const {
    NamedTensors tensors;
    const auto append = [&](const NamedTensors& more, std::string_view prefix) {
      for (const auto& [name, tensor] : more) tensors.emplace_back(std::string(prefix) + name, tensor);
    };
    append(model_tensors(model_), kModelPrefix);
    for (const NamedBuffer& b : sgd_->state())
      tensors.emplace_back(std::string(kOptimizerPrefix) + b.name, b.tensor);
    if (quantized_ != nullptr) append(quantized_->state(), kQuantizerPrefix);
    std::map<std::string, std::string> metadata{{"format", "goshawk-training"},
                                                {"epochs_done", std::to_string(position.epochs_done)},
                                                {"plan", plan()},
                                                {"quantization", quantization()}};
    if (position.step > 0) {
      metadata["step"] = std::to_string(position.step);
      metadata["loss"] = fmt::format("{}", position.loss);  // all digits
      metadata["images"] = std::to_string(position.images);
      metadata["correct"] = std::to_string(position.correct);
    }
    write_safetensors(options_.checkpoint, tensors, metadata);
  }

  // The checkpoint's position, its state being in place now; the beginning when there is none.
  Position restore() {
    const std::string& file = options_.checkpoint;
    if (!std::filesystem::exists(file)) {
      enter(0);
      return {};
    }
    const auto checkpoint = read_safetensors(file);
    const auto metadata = [&](const std::string& key) {
      const auto it = checkpoint.metadata.find(key);
      check(it != checkpoint.metadata.end(),
            "[train] {} is no training checkpoint: it has no '{}'; remove it to start anew", file, key);
      return it->second;
    };
    check(metadata("plan") == plan(),
          "[train] {} belongs to another training plan ({}, now {}); use another run directory or remove it",
          file, metadata("plan"), plan());
    check_quantization(checkpoint.metadata, file);
    const auto number = [&](const std::string& key, auto value) {
      const std::string text = metadata(key);
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
      check(error == std::errc() && end == text.data() + text.size(),
            "[train] {}: its '{}' is no number; remove it to start anew", file, key);
      return value;
    };
    Position position{.epochs_done = number("epochs_done", std::int64_t{})};
    if (checkpoint.metadata.contains("step")) {
      position.step = number("step", std::int64_t{});
      position.loss = number("loss", double{});
      position.images = number("images", std::int64_t{});
      position.correct = number("correct", std::int64_t{});
    }
    // Between epochs the last one's stage is still in place.
    const std::int64_t epoch =
        position.step > 0 ? position.epochs_done : std::max<std::int64_t>(0, position.epochs_done - 1);
    // Stages are entered in order, because entering one decides which quantizer parameters there are.
    for (std::int64_t k = 0, last = stage_of(epoch); k <= last; ++k) enter(k);

    const NamedTensors stored = with_prefix(checkpoint.tensors, kModelPrefix);
    for (const auto& wanted : model_tensors(model_)) {
      const auto& [name, tensor] = wanted;
      const auto it =
          std::find_if(stored.begin(), stored.end(), [&](const auto& s) { return s.first == wanted.first; });
      check(it != stored.end() && it->second.shape() == tensor.shape(),
            "[train] {} does not hold the model's tensor '{}' of shape {}; it belongs to another model", file,
            name, tensor.shape());
      tensor.copy_from(it->second);
    }
    sgd_->load_state(with_prefix(checkpoint.tensors, kOptimizerPrefix), file);
    if (quantized_ != nullptr)
      quantized_->load_state(with_prefix(checkpoint.tensors, kQuantizerPrefix), file);
    return position;
  }

  // Sets the learning rate, takes one step and returns {summed loss, correct}.
  std::pair<double, std::int64_t> step(const Batch& batch, double lr) {
    const Variable logits = model_(batch.images);
    const Variable loss = softmax_cross_entropy(logits, batch.labels);
    check(std::isfinite(loss.item()),
          "[train] the loss became {} in {} at step {} of epoch {}; start again in another run directory "
          "with a learning rate below {:g}, which the schedule had made {:g} by then",
          loss.item(), options_.label, batch.step, batch.epoch, options_.sgd.lr, lr);
    sgd_->set_lr(lr);
    sgd_->step(grad(loss, sgd_->parameters()));
    return {loss.item() * static_cast<double>(batch.size()), count_correct(logits.value(), batch.labels)};
  }

  std::int64_t stage() const { return stage_; }

 private:
  // What a checkpoint must agree with to be continued.
  std::string plan() const {
    std::string text = fmt::format("{}:", options_.label);
    for (const Stage& stage : stages_) text += fmt::format(" {}x{}", stage.layers.size(), stage.epochs);
    return text;
  }

  // The quantizers, then each layer's bits and stage, one a line: a step for every channel has the same shape
  // whatever the bits are, so a checkpoint of other bits would fit.
  std::string quantization() const {
    if (quantized_ == nullptr) return "none";
    const QuantizationOptions& o = quantized_->options();
    std::string text = fmt::format("{} {} {} weights, {} activations", weight_scheme_name(o.weight_scheme),
                                   granularity_name(o.weight_granularity), clip_rule_name(o.weight_clip),
                                   activation_scheme_name(o.activation_scheme));
    for (const LayerBits& layer : quantized_->bits().layers) {
      text += fmt::format("\n{} at {}/{} bits", layer.name, layer.weight, layer.activation);
      for (std::size_t k = 0; k < stages_.size(); ++k) {
        if (std::ranges::count(stages_[k].layers, layer.name) == 0) continue;
        text += fmt::format(" from stage {} on", k + 1);
        break;
      }
    }
    return text;
  }

  void check_quantization(const std::map<std::string, std::string>& metadata, const std::string& file) const {
    const auto stored = metadata.find("quantization");
    if (stored == metadata.end()) {
      check(quantized_ == nullptr,
            "[train] {} was written by an older version, which did not note the bits that it was trained "
            "with; use another run directory or remove it",
            file);
      return;
    }
    std::istringstream then(stored->second), now(quantization());
    std::string before, after;
    for (;;) {
      const bool more_before = !!std::getline(then, before), more_after = !!std::getline(now, after);
      if (!more_before && !more_after) return;
      check(more_before && more_after && before == after,
            "[train] {} was trained with {} where this run has {}; use another run directory or remove it",
            file, more_before ? before : "nothing", more_after ? after : "nothing");
    }
  }

  Module& model_;
  QuantizedModel* quantized_;
  std::vector<Stage> stages_;
  const TrainerOptions& options_;
  std::unique_ptr<Sgd> sgd_;
  std::int64_t stage_ = 0;
};

}  // namespace

void train(Module& model, QuantizedModel* quantized, const std::vector<Stage>& stages,
           std::shared_ptr<const Dataset> train_set, std::shared_ptr<const Dataset> test_set,
           const TrainerOptions& options) {
  using Clock = std::chrono::steady_clock;
  Run run(model, quantized, stages, options);
  Position position = run.restore();
  if (position.epochs_done >= options.epochs) {
    model.set_mode(Mode::eval);
    return;
  }
  Loader loader(std::move(train_set), options.loader, {.epoch = position.epochs_done, .step = position.step});
  const std::int64_t steps = loader.steps_per_epoch();
  Progress progress(options.label, options.epochs * steps, position.epochs_done * steps + position.step);
  const DeferInterrupt defer;

  while (position.epochs_done < options.epochs) {
    const std::int64_t epoch = position.epochs_done;
    const std::int64_t stage = run.stage_of(epoch);
    if (stage != run.stage()) run.enter(stage);
    model.set_mode(Mode::train);
    EpochReport report;
    report.epoch = epoch;
    report.stage = stage;
    const auto start = Clock::now();
    const std::int64_t images_before = position.images;
    report.lr = options.schedule(epoch * steps + std::max<std::int64_t>(0, position.step - 1));
    while (const auto batch = loader.next()) {
      const std::int64_t step = epoch * steps + batch->step;
      report.lr = options.schedule(step);
      const auto [batch_loss, batch_correct] = run.step(*batch, report.lr);
      position.loss += batch_loss;
      position.correct += batch_correct;
      position.images += batch->size();
      position.step = batch->step + 1;
      if (DeferInterrupt::interrupted()) {
        run.save(position);
        throw_interrupted();
      }
      progress.update(step + 1, fmt::format("epoch {}/{}  loss {:.3f}", epoch + 1, options.epochs,
                                            position.loss / static_cast<double>(position.images)));
    }
    const double training_seconds = std::chrono::duration<double>(Clock::now() - start).count();
    const auto images = static_cast<double>(position.images);
    report.train_loss = position.loss / images;
    report.train_accuracy = static_cast<double>(position.correct) / images;
    report.images_per_second =
        static_cast<double>(position.images - images_before) / std::max(training_seconds, 1e-9);
    report.test = evaluate(model, test_set, {.normalization = options.loader.normalization});
    report.seconds = std::chrono::duration<double>(Clock::now() - start).count();
    if (options.on_epoch) options.on_epoch(report);
    position = {.epochs_done = epoch + 1};
    run.save(position);
    if (DeferInterrupt::interrupted()) throw_interrupted();
  }
  model.set_mode(Mode::eval);
}

}  // namespace goshawk
