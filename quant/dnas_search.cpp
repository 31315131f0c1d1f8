#include "quant/dnas_search.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "autograd/grad.hpp"
#include "autograd/ops.hpp"
#include "core/safetensors.hpp"
#include "datasets/streams.hpp"
#include "nn/named_tensors.hpp"

namespace goshawk {
namespace {

using NamedTensors = std::vector<std::pair<std::string, Tensor>>;

// Purposes of random streams, beside those of datasets/streams.hpp.
constexpr std::uint64_t kSplit = 0xE0, kWeightNoise = 0xE1, kArchitectureNoise = 0xE2;

// The numbers of a DnasEpoch, in the order in which a checkpoint keeps them.
template <class Epoch, class F>
void for_each_number(Epoch& e, const F& f) {
  f(e.temperature);
  f(e.lr);
  f(e.weight_loss);
  f(e.weight_accuracy);
  f(e.architecture_loss);
  f(e.penalty);
  f(e.expected_bytes);
  f(e.most_probable_bytes);
  f(e.confidence);
}

Tensor log_tensor(const std::vector<DnasEpoch>& log) {
  std::vector<double> numbers;
  for (const DnasEpoch& epoch : log) for_each_number(epoch, [&](double x) { numbers.push_back(x); });
  return Tensor::from(numbers, {static_cast<std::int64_t>(numbers.size())});
}

std::vector<DnasEpoch> log_from(const Tensor& numbers, std::int64_t epochs, const std::string& source) {
  std::vector<DnasEpoch> log(static_cast<std::size_t>(epochs));
  std::int64_t expected = 0;
  for (DnasEpoch& epoch : log) for_each_number(epoch, [&](double&) { ++expected; });
  check(numbers.dtype() == DType::f64 && numbers.numel() == expected,
        "[dnas search] {} holds a log of {} numbers, not the {} of {} epochs; remove it to start anew",
        source, numbers.numel(), expected, epochs);
  const double* next = numbers.data<double>();
  for (std::size_t e = 0; e < log.size(); ++e) {
    log[e].epoch = static_cast<std::int64_t>(e);
    for_each_number(log[e], [&](double& x) { x = *next++; });
  }
  return log;
}

std::int64_t weight_images(std::int64_t training_images, const DnasOptions& options) {
  return std::llround(options.weight_share * static_cast<double>(training_images));
}

void check_options(const DnasOptions& o) {
  check(o.epochs >= 1 && o.warmup_epochs >= 0 && o.warmup_epochs < o.epochs,
        "[dnas search] {} epochs with {} of warm-up leave none for the architecture", o.epochs,
        o.warmup_epochs);
  check(o.weight_share > 0 && o.weight_share < 1,
        "[dnas search] the weights' share of the data is {}; it must be between 0 and 1", o.weight_share);
  check(o.temperature > 0 && o.temperature_decay >= 0,
        "[dnas search] the temperature {} must be positive and its decay {} not negative", o.temperature,
        o.temperature_decay);
  check(o.gamma >= 0 && o.beta >= 0, "[dnas search] gamma {} and beta {} must not be negative", o.gamma,
        o.beta);
}

// The two parts of the training data.
struct Parts {
  std::shared_ptr<const Dataset> weights, architecture;

  Parts(const std::shared_ptr<const Dataset>& all, const DnasOptions& options) {
    const std::int64_t first = weight_images(all->size(), options);
    check(first > 0 && first < all->size(),
          "[dnas search] {} pictures cannot be split {} to {}; give it more", all->size(),
          options.weight_share, 1 - options.weight_share);
    std::vector<std::int64_t> order =
        Random(options.loader.seed, stream::number(kSplit, 0, 0)).permutation(all->size());
    const auto middle = order.begin() + first;
    weights = std::make_shared<Subset>(all, std::vector(order.begin(), middle));
    architecture = std::make_shared<Subset>(all, std::vector(middle, order.end()));
  }
};

class Search {
 public:
  Search(SuperNet& net, const std::shared_ptr<const Dataset>& train_set, const DnasOptions& options)
      : net_(net),
        options_(options),
        parts_(train_set, options),
        sgd_(groups(), options.weights),
        adam_({{"theta", net.theta()}}, options.architecture) {
    beta_ = options.beta > 0 ? options.beta : unit_beta(net.size_bits(uniform()).item(), options.gamma);
  }

  std::vector<DnasEpoch> run() {
    restore();
    const auto done = static_cast<std::int64_t>(log_.size());
    Loader weights(parts_.weights, options_.loader, {.epoch = done, .step = 0});
    Loader architecture(parts_.architecture, options_.loader,
                        {.epoch = std::max(done, options_.warmup_epochs), .step = 0});
    const std::int64_t weight_steps = weights.steps_per_epoch();
    const std::int64_t architecture_steps = architecture.steps_per_epoch();
    const std::int64_t total =
        options_.epochs * weight_steps + (options_.epochs - options_.warmup_epochs) * architecture_steps;
    for (std::int64_t epoch = done; epoch < options_.epochs; ++epoch) {
      const std::int64_t searching = std::max<std::int64_t>(0, epoch - options_.warmup_epochs);
      std::int64_t steps = epoch * weight_steps + searching * architecture_steps;
      const auto count = [&] {
        if (options_.on_step) options_.on_step(++steps, total);
      };
      DnasEpoch report{.epoch = epoch};
      report.temperature =
          options_.temperature * std::exp(-options_.temperature_decay * static_cast<double>(epoch));
      net_.model().set_mode(Mode::train);
      train_weights(weights, epoch, weight_steps, report, count);
      if (epoch >= options_.warmup_epochs) train_architecture(architecture, report, count);
      describe_architecture(report);
      log_.push_back(report);
      if (options_.on_epoch) options_.on_epoch(report);
      if (!options_.checkpoint.empty()) save();
    }
    net_.mix(net_.probabilities().detach());
    net_.model().set_mode(Mode::eval);
    return log_;
  }

 private:
  std::vector<ParameterGroup> groups() const {
    std::vector<ParameterGroup> groups{{net_.model().named_parameters(), 1, options_.weights.weight_decay}};
    if (const auto steps = net_.named_parameters(); !steps.empty())
      groups.push_back({steps, options_.quantizer_lr_multiplier, 0});
    return groups;
  }

  Tensor uniform() const {
    const Tensor& theta = net_.theta().value();
    return Tensor::full(theta.shape(), theta.dtype(), 1.0 / static_cast<double>(theta.dim(1)));
  }

  Variable draw(std::uint64_t purpose, const Batch& batch, double temperature) const {
    Random random(options_.seed, stream::number(purpose, batch.epoch, batch.step));
    return net_.draw(random, temperature);
  }

  void check_finite(double loss, const char* phase, const Batch& batch) const {
    check(std::isfinite(loss),
          "[dnas search] the loss of the {} became {} at step {} of epoch {}; start again with a lower "
          "learning rate",
          phase, loss, batch.step, batch.epoch);
  }

  template <class F>
  void train_weights(Loader& loader, std::int64_t epoch, std::int64_t steps, DnasEpoch& report,
                     const F& count) {
    double loss_sum = 0;
    std::int64_t images = 0, correct = 0;
    while (const auto batch = loader.next()) {
      report.lr = options_.schedule ? options_.schedule(epoch * steps + batch->step) : options_.weights.lr;
      net_.mix(draw(kWeightNoise, *batch, report.temperature).detach());
      const Variable logits = net_.model()(batch->images);
      const Variable loss = softmax_cross_entropy(logits, batch->labels);
      check_finite(loss.item(), "weights", *batch);
      sgd_.set_lr(report.lr);
      sgd_.step(grad(loss, sgd_.parameters()));
      loss_sum += loss.item() * static_cast<double>(batch->size());
      correct += count_correct(logits.value(), batch->labels);
      images += batch->size();
      count();
    }
    report.weight_loss = loss_sum / static_cast<double>(images);
    report.weight_accuracy = static_cast<double>(correct) / static_cast<double>(images);
  }

  template <class F>
  void train_architecture(Loader& loader, DnasEpoch& report, const F& count) {
    double loss_sum = 0, penalty_sum = 0;
    std::int64_t images = 0;
    while (const auto batch = loader.next()) {
      const Variable m = draw(kArchitectureNoise, *batch, report.temperature);
      net_.mix(m);
      const Variable loss = softmax_cross_entropy(net_.model()(batch->images), batch->labels);
      const Variable penalty = size_penalty(net_.size_bits(m), beta_, options_.gamma);
      check_finite(loss.item(), "architecture", *batch);
      adam_.step(grad(loss * penalty, adam_.parameters()));
      const auto size = static_cast<double>(batch->size());
      loss_sum += loss.item() * size;
      penalty_sum += penalty.item() * size;
      images += batch->size();
      count();
    }
    report.architecture_loss = loss_sum / static_cast<double>(images);
    report.penalty = penalty_sum / static_cast<double>(images);
  }

  void describe_architecture(DnasEpoch& report) const {
    const NoGrad no_grad;
    const Variable p = net_.probabilities();
    report.expected_bytes = net_.size_bits(p).item() / 8;
    report.most_probable_bytes = size_report(net_.most_probable()).weight_bytes();
    const Tensor rows = p.value().to(DType::f64);
    const std::int64_t candidates = rows.dim(1);
    for (std::int64_t g = 0; g < rows.dim(0); ++g) {
      const double* row = rows.data<double>() + g * candidates;
      report.confidence += *std::max_element(row, row + candidates) / static_cast<double>(rows.dim(0));
    }
  }

  // Everything that goes on changing, under names of its own.
  std::vector<NamedBuffer> state() const {
    std::vector<NamedBuffer> all;
    for (const NamedParameter& p : net_.model().named_parameters())
      all.push_back({"model." + p.name, p.variable.value()});
    for (const NamedBuffer& b : net_.model().named_buffers()) all.push_back({"model." + b.name, b.tensor});
    for (const auto& [name, tensor] : net_.state()) all.push_back({"net." + name, tensor});
    for (const NamedBuffer& b : sgd_.state()) all.push_back({"weights." + b.name, b.tensor});
    for (const NamedBuffer& b : adam_.state()) all.push_back({"architecture." + b.name, b.tensor});
    return all;
  }

  // What a checkpoint must agree with to be continued.
  std::string plan() const {
    const DnasOptions& o = options_;
    std::string text = fmt::format(
        "{} epochs, {} warm-up, {} + {} pictures in batches of {}, seeds {} and {}, T {} decaying by {}, "
        "gamma {}, "
        "beta {}, bits {}, {}",
        o.epochs, o.warmup_epochs, parts_.weights->size(), parts_.architecture->size(), o.loader.batch_size,
        o.loader.seed, o.seed, o.temperature, o.temperature_decay, o.gamma, beta_,
        fmt::join(net_.options().candidates, " "), describe(net_.options().quantizer));
    for (const SuperNetGroup& group : net_.groups()) text += fmt::format(" {}", group.name);
    return text;
  }

  void save() const {
    NamedTensors tensors{{"log", log_tensor(log_)}};
    for (const NamedBuffer& b : state()) tensors.emplace_back(b.name, b.tensor);
    write_safetensors(
        options_.checkpoint, tensors,
        {{"format", "goshawk-dnas-search"}, {"epochs_done", std::to_string(log_.size())}, {"plan", plan()}});
  }

  void restore() {
    const std::string& file = options_.checkpoint;
    if (file.empty() || !std::filesystem::exists(file)) return;
    SafeTensors checkpoint = read_safetensors(file);
    const auto metadata = [&](const std::string& key) {
      const auto it = checkpoint.metadata.find(key);
      check(it != checkpoint.metadata.end(),
            "[dnas search] {} is no checkpoint of a search: it has no '{}'; remove it to start anew", file,
            key);
      return it->second;
    };
    check(metadata("plan") == plan(),
          "[dnas search] {} belongs to another search ({}, now {}); use another file or remove it", file,
          metadata("plan"), plan());
    log_ = log_from(checkpoint.at("log"), std::stoll(metadata("epochs_done")), file);
    std::erase_if(checkpoint.tensors, [](const auto& entry) { return entry.first == "log"; });
    copy_named_tensors(state(), checkpoint.tensors, file, "dnas search");
  }

  SuperNet& net_;
  const DnasOptions& options_;
  Parts parts_;
  Sgd sgd_;
  Adam adam_;
  double beta_ = 0;
  std::vector<DnasEpoch> log_;
};

}  // namespace

std::int64_t weight_steps_per_epoch(std::int64_t training_images, const DnasOptions& options) {
  const std::int64_t images = weight_images(training_images, options), batch = options.loader.batch_size;
  return options.loader.drop_last ? images / batch : (images + batch - 1) / batch;
}

std::vector<DnasEpoch> search(SuperNet& net, std::shared_ptr<const Dataset> train_set,
                              const DnasOptions& options) {
  check_options(options);
  return Search(net, train_set, options).run();
}

}  // namespace goshawk
