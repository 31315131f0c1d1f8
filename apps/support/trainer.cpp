#include "apps/support/trainer.hpp"

#include <chrono>
#include <cmath>
#include <filesystem>
#include <numeric>

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

  void save(std::int64_t epochs_done) const {
    NamedTensors tensors;
    const auto append = [&](const NamedTensors& more, std::string_view prefix) {
      for (const auto& [name, tensor] : more) tensors.emplace_back(std::string(prefix) + name, tensor);
    };
    append(model_tensors(model_), kModelPrefix);
    for (const NamedBuffer& b : sgd_->state())
      tensors.emplace_back(std::string(kOptimizerPrefix) + b.name, b.tensor);
    if (quantized_ != nullptr) append(quantized_->state(), kQuantizerPrefix);
    write_safetensors(
        options_.checkpoint, tensors,
        {{"format", "goshawk-training"}, {"epochs_done", std::to_string(epochs_done)}, {"plan", plan()}});
  }

  // Epochs done according to the checkpoint, whose state is now in place; 0 when there is none.
  std::int64_t restore() {
    const std::string& file = options_.checkpoint;
    if (!std::filesystem::exists(file)) {
      enter(0);
      return 0;
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
    const std::int64_t done = std::stoll(metadata("epochs_done"));
    // Stages are entered in order, because entering one decides which quantizer parameters there are.
    for (std::int64_t k = 0, last = stage_of(std::max<std::int64_t>(0, done - 1)); k <= last; ++k) enter(k);

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
    return done;
  }

  // Sets the learning rate, takes one step and returns {summed loss, correct}.
  std::pair<double, std::int64_t> step(const Batch& batch, double lr) {
    const Variable logits = model_(batch.images);
    const Variable loss = softmax_cross_entropy(logits, batch.labels);
    check(std::isfinite(loss.item()),
          "[train] the loss became {} in {} at step {} of epoch {}; lower the learning rate (now {:g}) and "
          "resume",
          loss.item(), options_.label, batch.step, batch.epoch, lr);
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
  const std::int64_t done = run.restore();
  Loader loader(std::move(train_set), options.loader, {.epoch = done, .step = 0});
  const std::int64_t steps = loader.steps_per_epoch();
  Progress progress(options.label, options.epochs * steps, done * steps);

  for (std::int64_t epoch = done; epoch < options.epochs; ++epoch) {
    const std::int64_t stage = run.stage_of(epoch);
    if (stage != run.stage()) run.enter(stage);
    model.set_mode(Mode::train);
    EpochReport report;
    report.epoch = epoch;
    report.stage = stage;
    const auto start = Clock::now();
    std::int64_t images = 0, correct = 0;
    double loss = 0;
    while (const auto batch = loader.next()) {
      const std::int64_t step = epoch * steps + batch->step;
      report.lr = options.schedule(step);
      const auto [batch_loss, batch_correct] = run.step(*batch, report.lr);
      loss += batch_loss;
      correct += batch_correct;
      images += batch->size();
      progress.update(step + 1, fmt::format("epoch {}/{}  loss {:.3f}", epoch + 1, options.epochs,
                                            loss / static_cast<double>(images)));
    }
    const double training_seconds = std::chrono::duration<double>(Clock::now() - start).count();
    report.train_loss = loss / static_cast<double>(images);
    report.train_accuracy = static_cast<double>(correct) / static_cast<double>(images);
    report.images_per_second = static_cast<double>(images) / training_seconds;
    report.test = evaluate(model, test_set, {.normalization = options.loader.normalization});
    report.seconds = std::chrono::duration<double>(Clock::now() - start).count();
    progress.clear();
    if (options.on_epoch) options.on_epoch(report);
    run.save(epoch + 1);
  }
  model.set_mode(Mode::eval);
}

}  // namespace goshawk
