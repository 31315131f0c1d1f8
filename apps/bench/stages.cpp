#include "apps/bench/stages.hpp"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <map>
#include <utility>

#include "autograd/curvature/exact_traces.hpp"
#include "autograd/curvature/hessian_operator.hpp"
#include "autograd/curvature/hutchinson.hpp"
#include "autograd/curvature/power_iteration.hpp"
#include "autograd/ops.hpp"
#include "core/error.hpp"
#include "core/memory.hpp"
#include "core/random.hpp"
#include "models/registry.hpp"
#include "nn/layer_recorder.hpp"
#include "nn/layers.hpp"
#include "nn/optimizer.hpp"

namespace goshawk {
namespace {

/// As many as CIFAR-10 has, or ImageNet.
std::int64_t classes(const InputSpec& input) {
  return input.height <= 32 ? 10 : 1000;
}

constexpr std::int64_t kVectors = 8;  // of hvp_eval_k8
constexpr HvpRoad kReverse = HvpRoad::reverse_over_reverse, kForward = HvpRoad::forward_over_reverse,
                  kFaster = HvpRoad::automatic;

/// A model and a batch that all stages share the making of.
struct Bench {
  std::unique_ptr<Module> model;
  Tensor images, labels;
  std::int64_t microbatch = 0;
  std::int64_t graph_bytes = 0;
  double macs = 0;  // of one forward pass over the batch

  /// `vectors`: how many there are at once.
  Bench(const BenchOptions& options, Mode mode, std::int64_t vectors = 1)
      : model(make_model(options.model, {.classes = classes(model_input(options.model))})) {
    const InputSpec input = model_input(options.model);
    Random random(1);
    images = random_normal({options.batch, input.height, input.width, input.channels}, DType::f32, random);
    labels = Tensor::empty({options.batch}, DType::i64);
    for (std::int64_t& label : labels.span<std::int64_t>()) {
      label = static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(classes(input))));
    }
    constexpr std::int64_t kMicrobatchPixels = std::int64_t{32} * 32 * 32;
    // Each of several vectors has transformed weights of its own, which more pictures share.
    const std::int64_t pixels = (vectors > 1 ? 2 : 1) * kMicrobatchPixels;
    microbatch = options.microbatch > 0 ? options.microbatch
                                        : std::max<std::int64_t>(1, pixels / (input.height * input.width));
    graph_bytes = options.graph_megabytes << 20;
    model->set_mode(Mode::eval);
    const NoGrad no_grad;
    model->forward(rows(0, 1));
    for (const auto& [name, layer] : weighted_layers(*model)) macs += static_cast<double>(layer->last_macs());
    macs *= static_cast<double>(options.batch);
    model->set_mode(mode);
  }

  std::int64_t batch() const { return labels.dim(0); }
  Tensor rows(std::int64_t begin, std::int64_t end) const { return ::goshawk::rows(images, begin, end); }

  Variable loss(std::int64_t begin, std::int64_t end) const {
    return softmax_cross_entropy(model->forward(rows(begin, end)), ::goshawk::rows(labels, begin, end));
  }

  /// Of the microbatches, where batch norm is in eval mode.
  std::vector<std::int64_t> sizes() const {
    std::vector<std::int64_t> all;
    for (std::int64_t i = 0; i < batch(); i += microbatch) all.push_back(std::min(microbatch, batch() - i));
    return all;
  }
  std::pair<std::int64_t, std::int64_t> range(std::size_t b) const {
    const auto begin = static_cast<std::int64_t>(b) * microbatch;
    return {begin, std::min(batch(), begin + microbatch)};
  }
  ClassifierPass pass() const {
    return [this](std::size_t b) {
      const auto [begin, end] = range(b);
      return record_classifier(*model, rows(begin, end), ::goshawk::rows(labels, begin, end));
    };
  }
  /// The Hessian over the batch in microbatches; batch norm in eval mode.
  HessianOperator hessian(HvpRoad road) const {
    return {model->parameters(),
            sizes(),
            [this](std::size_t b) {
              const auto [begin, end] = range(b);
              return loss(begin, end);
            },
            {.graph_bytes = graph_bytes},
            road};
  }
  Vector direction(std::uint64_t seed) const {
    std::vector<Shape> shapes;
    for (const Variable& p : model->parameters()) shapes.push_back(p.shape());
    Random random(seed);
    return rademacher_vector(shapes, DType::f32, random);
  }
};

ReadyStage forward_eval(const BenchOptions& options) {
  const auto bench = std::make_shared<Bench>(options, Mode::eval);
  return {[bench] {
            const NoGrad no_grad;
            bench->model->forward(bench->images);
          },
          static_cast<double>(bench->batch()), bench->macs};
}

ReadyStage train_step(const BenchOptions& options) {
  const auto bench = std::make_shared<Bench>(options, Mode::train);
  const auto sgd = std::make_shared<Sgd>(bench->model->named_parameters(),
                                         SgdOptions{.lr = 0.01, .momentum = 0.9, .weight_decay = 1e-4});
  return {[bench, sgd] { sgd->step(grad(bench->loss(0, bench->batch()), sgd->parameters())); },
          static_cast<double>(bench->batch()), 3 * bench->macs};
}

ReadyStage gradient_eval(const BenchOptions& options) {
  const auto bench = std::make_shared<Bench>(options, Mode::eval);
  return {[bench] { grad(bench->loss(0, bench->batch()), bench->model->parameters()); },
          static_cast<double>(bench->batch()), 3 * bench->macs};
}

template <HvpRoad kRoad>
ReadyStage hvp_eval(const BenchOptions& options) {
  const auto bench = std::make_shared<Bench>(options, Mode::eval);
  const auto hessian = std::make_shared<HessianOperator>(bench->hessian(kRoad));
  return {[bench, hessian, v = bench->direction(2)] { hessian->apply(v); },
          static_cast<double>(bench->batch()), 6 * bench->macs};
}

template <HvpRoad kRoad>
ReadyStage hvp_train(const BenchOptions& options) {
  const auto bench = std::make_shared<Bench>(options, Mode::train);
  const auto graph =
      std::make_shared<GradientGraph>(bench->loss(0, bench->batch()), bench->model->parameters(), kRoad);
  return {[bench, graph, v = bench->direction(2)] { graph->apply(v); }, static_cast<double>(bench->batch()),
          6 * bench->macs};
}

template <HvpRoad kRoad>
ReadyStage hvp_eval_k8(const BenchOptions& options) {
  const auto bench = std::make_shared<Bench>(options, Mode::eval, kVectors);
  const auto hessian = std::make_shared<HessianOperator>(bench->hessian(kRoad));
  std::vector<Vector> vectors;
  for (std::uint64_t k = 0; k < kVectors; ++k) vectors.push_back(bench->direction(2 + k));
  return {[bench, hessian, vectors] { hessian->quadratic_forms(vectors); },
          static_cast<double>(kVectors * bench->batch()), 6 * kVectors * bench->macs};
}

/// Neither may stop early, so that the work is the same each time.
ReadyStage top_eigenvalue(const BenchOptions& options) {
  constexpr int kIterations = 10;
  const auto bench = std::make_shared<Bench>(options, Mode::eval);
  const auto hessian = std::make_shared<HessianOperator>(bench->hessian(kReverse));
  return {
      [bench, hessian] { power_iteration(*hessian, {.tolerance = 1e-15, .max_iterations = kIterations}); },
      static_cast<double>(kIterations * bench->batch()), 6 * kIterations * bench->macs};
}

ReadyStage all_layer_traces(const BenchOptions& options) {
  constexpr int kProbes = 8;
  const auto bench = std::make_shared<Bench>(options, Mode::eval, kProbes);
  const auto hessian = std::make_shared<HessianOperator>(bench->hessian(kReverse));
  return {[bench, hessian] {
            layer_traces(*hessian, {.relative_error = 1e-9,
                                    .min_samples = kProbes,
                                    .max_samples = kProbes,
                                    .probes_per_pass = kProbes});
          },
          static_cast<double>(kProbes * bench->batch()), 6 * kProbes * bench->macs};
}

/// Every direction needs the gradients by all inputs and, for their norms, by all weights.
ReadyStage exact_trace_stage(const BenchOptions& options) {
  constexpr std::int64_t kManyClasses = 128;
  constexpr int kRandomDirections = 32;
  const auto bench = std::make_shared<Bench>(options, Mode::eval);
  const std::int64_t count = classes(model_input(options.model));
  const int samples = count > kManyClasses ? kRandomDirections : 0;
  const auto directions = static_cast<double>(samples > 0 ? samples : count - 1);
  return {[bench, samples] { exact_traces(bench->pass(), bench->sizes(), {.samples = samples}); },
          static_cast<double>(bench->batch()), (1 + 2 * directions) * bench->macs};
}

double peak_rss_mb() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stod(line.substr(6)) / 1024;
  }
  return 0;
}

// Linux forgets the high-water mark when 5 is written there; elsewhere it stays that of the whole process.
void reset_peak_rss() {
  release_cached_memory();
  reset_peak_memory();
  std::ofstream("/proc/self/clear_refs") << "5\n";
}

}  // namespace

double quantile(std::vector<double> values, double share) {
  const auto at = static_cast<std::ptrdiff_t>(share * static_cast<double>(values.size() - 1) + 0.5);
  std::nth_element(values.begin(), values.begin() + at, values.end());
  return values[static_cast<std::size_t>(at)];
}

const std::vector<StageKind>& stage_kinds() {
  static const std::vector<StageKind> kinds{
      {"forward_eval", "logits of the batch, batch norm in eval mode", forward_eval},
      {"train_step", "loss, gradient and SGD step, batch norm in train mode", train_step},
      {"gradient_eval", "loss and gradient, batch norm in eval mode", gradient_eval},
      {"hvp_eval", "Hessian-vector product on kept graphs by reverse over reverse, batch norm in eval mode",
       hvp_eval<kReverse>},
      {"hvp_train", "the same on one graph, batch norm in train mode", hvp_train<kReverse>},
      {"hvp_eval_k8",
       "quadratic forms of eight vectors at once by the road that is measured to be faster, batch norm in "
       "eval mode",
       hvp_eval_k8<kFaster>},
      {"top_eigenvalue", "ten power iterations, batch norm in eval mode", top_eigenvalue},
      {"all_layer_traces", "Hutchinson's traces of all blocks from eight probes, batch norm in eval mode",
       all_layer_traces},
      {"exact_traces", "exact traces of all layers and activations (of 1000 classes 32 random directions)",
       exact_trace_stage},
      {"hvp_eval_forward", "hvp_eval by forward over reverse", hvp_eval<kForward>},
      {"hvp_eval_k8_reverse", "hvp_eval_k8 by reverse over reverse", hvp_eval_k8<kReverse>},
      {"hvp_eval_k8_forward", "hvp_eval_k8 by forward over reverse", hvp_eval_k8<kForward>},
      {"hvp_train_forward", "hvp_train by forward over reverse", hvp_train<kForward>},
  };
  return kinds;
}

std::vector<StageResult> run_stages(const BenchOptions& options) {
  struct Record {
    std::vector<double> seconds;
    StageResult result;
  };
  std::map<std::string, Record> records;
  std::int64_t done = 0;
  const auto wanted = [&](const StageKind& kind) {
    return options.only.empty() ||
           std::find(options.only.begin(), options.only.end(), kind.name) != options.only.end();
  };
  for (int round = 0; round < options.rounds; ++round) {
    for (const StageKind& kind : stage_kinds()) {
      if (!wanted(kind)) continue;
      reset_peak_rss();
      const ReadyStage stage = kind.set_up(options);
      stage.run();
      const MemoryStats before = memory_stats();
      Record& record = records[kind.name];
      for (int r = 0; r < options.repetitions; ++r) {
        const auto start = std::chrono::steady_clock::now();
        stage.run();
        record.seconds.push_back(
            std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
      }
      const MemoryStats after = memory_stats();
      StageResult& result = record.result;
      result.name = kind.name;
      result.seconds = quantile(record.seconds, 0.5);
      result.images_per_second = stage.images / result.seconds;
      result.gflops = 2e-9 * stage.macs / result.seconds;
      result.peak_rss_mb = std::max(result.peak_rss_mb, peak_rss_mb());
      result.peak_tensor_mb =
          std::max(result.peak_tensor_mb, static_cast<double>(after.peak_bytes_in_use) / (1024 * 1024));
      result.allocations = static_cast<double>(after.allocations - before.allocations) / options.repetitions;
      result.system_allocations =
          static_cast<double>(after.system_allocations - before.system_allocations) / options.repetitions;
      if (options.progress) options.progress(++done, kind.name);
    }
  }
  std::vector<StageResult> results;
  for (const StageKind& kind : stage_kinds()) {
    if (wanted(kind)) results.push_back(records[kind.name].result);
  }
  return results;
}

}  // namespace goshawk
