#include "apps/reproduce_cifar/pipeline.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "apps/support/command_line.hpp"
#include "apps/support/normalization.hpp"
#include "apps/support/progress.hpp"
#include "autograd/curvature/hessian_operator.hpp"
#include "autograd/curvature/hutchinson.hpp"
#include "autograd/curvature/power_iteration.hpp"
#include "autograd/ops.hpp"
#include "core/file.hpp"
#include "core/safetensors.hpp"
#include "datasets/open.hpp"
#include "datasets/synthetic.hpp"
#include "models/registry.hpp"
#include "nn/checkpoint.hpp"
#include "nn/layers.hpp"
#include "nn/state_dict.hpp"
#include "quant/qat.hpp"

namespace goshawk {
namespace {

constexpr std::int64_t kSyntheticTrain = 10000, kSyntheticTest = 2000;
/// Pictures that set the activation clips before fine-tuning.
constexpr std::int64_t kCalibrationImages = 1024;
/// Pictures per gradient graph: its activations should stay near the caches.
constexpr std::int64_t kCurvatureBatch = 64;

constexpr const char* kBaselineFile = "baseline.safetensors";

std::shared_ptr<const Dataset> open_split(const ReproduceOptions& options, Split split) {
  const bool train = split == Split::train;
  const std::int64_t limit = train ? options.train_images : options.test_images;
  if (options.data.empty()) {
    const std::int64_t all = train ? kSyntheticTrain : kSyntheticTest;
    return make_synthetic(split, limit > 0 ? limit : all, {.seed = options.seed});
  }
  auto dataset = open_dataset(options.data, split, {.size = 32, .resize = 32});
  if (limit > 0) dataset = first_images(dataset, limit);
  return load_into_memory(*dataset);
}

// The weight quantizer the perturbations ‖Q(W) − W‖² are measured with: the one fine-tuning starts from.
WeightSpec weight_spec(const ReproduceOptions& options) {
  const QuantizationOptions q = quantization_options(options);
  return {.bits = 8,
          .scheme = q.weight_scheme,
          .granularity = q.weight_granularity,
          .clip = q.weight_clip == ClipRule::learned ? ClipRule::mse : q.weight_clip,
          .percentile = q.weight_percentile};
}

// `count` training pictures drawn under the seed, unaugmented, in batches.
std::vector<Batch> sample_batches(const std::shared_ptr<const Dataset>& dataset, std::int64_t count,
                                  std::int64_t batch_size, std::uint64_t seed,
                                  const Normalization& normalization) {
  const auto sample = random_images(dataset, count, seed);
  std::vector<Batch> batches;
  for (std::int64_t begin = 0; begin < sample->size(); begin += batch_size) {
    std::vector<std::int64_t> indices(static_cast<std::size_t>(std::min(batch_size, sample->size() - begin)));
    std::iota(indices.begin(), indices.end(), begin);
    batches.push_back(make_batch(*sample, indices, normalization));
  }
  return batches;
}

SensitivityMetric metric_of(const Row& row) {
  return row.kind == RowKind::hawq_v2 ? SensitivityMetric::hawq_v2 : SensitivityMetric::hawq;
}

// "2", or "2 MP" when wider layers are mixed in.
std::string describe_bits(const BitAssignment& bits) {
  int low = kFullPrecision, high = 0;
  for (const LayerBits& layer : bits.layers) {
    low = std::min(low, layer.weight);
    high = std::max(high, layer.weight);
  }
  return low == high ? std::to_string(low) : fmt::format("{} MP", low);
}

}  // namespace

Pipeline::Pipeline(const ReproduceOptions& options)
    : options_(options),
      train_set_(open_split(options, Split::train)),
      test_set_(open_split(options, Split::test)),
      run_(options.out, to_config(options), options.resume) {
  say(fmt::format("run directory {}", options_.out));
  if (run_.has(kBaselineFile)) {
    const std::string file = run_.file(kBaselineFile);
    normalization_ = normalization_of(read_safetensors(file).metadata, file).value_or(normalization_);
  }
  say(fmt::format("{}: {} training and {} test pictures of {} classes", train_set_->name(),
                  train_set_->size(), test_set_->size(), train_set_->num_classes()));
  if (run_.has("sensitivity.json")) sensitivity_ = read_sensitivity(run_.file("sensitivity.json"));
  if (run_.has("bits.json")) {
    const nlohmann::json stored = run_.read_json("bits.json");
    for (const auto& [slug, value] : stored.items()) {
      bits_.emplace(slug, bits_from_json(value.dump(), run_.file("bits.json")));
    }
  }
  if (run_.has("table.json")) {
    const nlohmann::json stored = run_.read_json("table.json");
    for (const auto& value : stored.at("rows")) {
      RowResult result = row_result_from_json(value);
      results_.emplace(result.slug, std::move(result));
    }
  }
}

void Pipeline::run() {
  make_baseline();
  for (const Row& row : rows()) {
    if (row.kind == RowKind::baseline || !wanted(row) || results_.contains(row.slug)) continue;
    if (row.kind != RowKind::direct) measure_sensitivity();
    assign_bits(row);
    finetune(row);
  }
  write_table();
  print_result(read_file(run_.file("table.md")));
}

bool Pipeline::wanted(const Row& row) const {
  return options_.only.empty() ||
         std::any_of(options_.only.begin(), options_.only.end(),
                     [&](const std::string& name) { return find_row(name).kind == row.kind; });
}

void Pipeline::say(const std::string& text) const {
  if (!options_.quiet) fmt::print(stderr, "{}\n", text);
}

std::unique_ptr<Module> Pipeline::new_model() const {
  return make_model(options_.model, {.classes = train_set_->num_classes(), .seed = options_.seed});
}

std::unique_ptr<Module> Pipeline::baseline_model() const {
  auto model = new_model();
  load_checkpoint(run_.file(kBaselineFile), *model);
  model->set_mode(Mode::eval);
  return model;
}

std::map<std::string, std::string> Pipeline::checkpoint_metadata() const {
  auto metadata = normalization_metadata(normalization_);
  metadata.emplace("model", options_.model);
  return metadata;
}

TrainerOptions Pipeline::trainer_options(const Row& row, std::int64_t epochs) const {
  TrainerOptions t;
  t.label = row.name;
  t.epochs = epochs;
  t.loader = {.batch_size = options_.batch_size,
              .shuffle = true,
              .drop_last = true,
              .seed = options_.seed,
              .augmentation = {.horizontal_flip = true, .crop_padding = 4},
              .normalization = normalization_};
  const std::int64_t steps = train_set_->size() / options_.batch_size;
  const bool baseline = row.kind == RowKind::baseline;
  // He et al., Deep Residual Learning, 2016, section 4.2, in epochs: 200 of them there.
  const bool step_recipe = baseline && options_.recipe == "he2016";
  t.sgd = {.lr = baseline ? options_.lr : options_.finetune_lr,
           .momentum = 0.9,
           .nesterov = !step_recipe,
           .weight_decay = baseline ? options_.weight_decay : options_.finetune_weight_decay};
  t.clip_weight_decay = t.sgd.weight_decay;
  t.schedule = CosineSchedule{.lr = t.sgd.lr, .total = epochs * steps};
  if (step_recipe) {
    t.schedule = StepSchedule{.lr = t.sgd.lr, .milestones = {epochs / 2 * steps, epochs * 3 / 4 * steps}};
  } else if (baseline) {
    t.schedule = with_warmup(t.schedule, steps);
  }
  t.checkpoint = run_.file(fmt::format("checkpoints/{}.training.safetensors", row.slug));
  t.on_epoch = [this, row, first = true](const EpochReport& e) mutable {
    if (first) {
      run_.trim_log([&](const nlohmann::json& line) {
        return line.value("row", "") != row.slug || line.value("epoch", std::int64_t{0}) < e.epoch;
      });
      first = false;
    }
    run_.log({{"row", row.slug},
              {"stage", e.stage},
              {"epoch", e.epoch},
              {"lr", e.lr},
              {"train_loss", e.train_loss},
              {"train_accuracy", e.train_accuracy},
              {"test_loss", e.test.loss},
              {"test_accuracy", e.test.accuracy()},
              {"seconds", e.seconds},
              {"images_per_second", e.images_per_second}});
    say(fmt::format("{} epoch {:3}  loss {:.4f}  train {:5.2f} %  test {:5.2f} %  {:.0f} images/s", row.name,
                    e.epoch + 1, e.train_loss, 100 * e.train_accuracy, 100 * e.test.accuracy(),
                    e.images_per_second));
  };
  return t;
}

void Pipeline::make_baseline() {
  const Row& row = rows().front();
  if (results_.contains(row.slug)) return;
  auto model = new_model();
  if (!run_.has(kBaselineFile)) {
    if (options_.weights.empty()) {
      train(*model, nullptr, {}, train_set_, test_set_, trainer_options(row, options_.epochs));
    } else {
      normalization_ = normalization_of(load_checkpoint(options_.weights, *model), options_.weights)
                           .value_or(normalization_);
    }
    save_checkpoint(run_.file(kBaselineFile), *model, checkpoint_metadata());
  }
  const Evaluation test = evaluate(*baseline_model(), test_set_, {.normalization = normalization_});
  finish({.slug = row.slug,
          .weight_bits = "32",
          .activation_bits = "32",
          .correct = test.correct,
          .images = test.images});
}

void Pipeline::measure_sensitivity() {
  if (sensitivity_) return;
  const auto model = baseline_model();
  const std::vector<Batch> batches =
      sample_batches(train_set_, options_.curvature_images, kCurvatureBatch, options_.seed, normalization_);
  std::vector<std::int64_t> sizes;
  for (const Batch& batch : batches) sizes.push_back(batch.size());
  const auto layers = weighted_layers(*model);
  std::vector<Variable> weights;
  for (const auto& [name, layer] : layers) weights.push_back(layer->weight);
  // Thousands of products come, so speed goes before memory.
  const HessianOperator hessian(
      weights, sizes,
      [&](std::size_t b) { return softmax_cross_entropy((*model)(batches[b].images), batches[b].labels); },
      {.graph_bytes = std::int64_t{4} << 30});
  {
    // The layers learn their sizes from a forward pass.
    const NoGrad no_grad;
    (*model)(batches.front().images);
  }
  Sensitivity s = measure_perturbations(*model, options_.bits, weight_spec(options_));
  s.model = options_.model;
  s.weights = kBaselineFile;
  s.quantizer = describe(weight_spec(options_));
  s.images = std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0});

  Progress probes("traces", options_.max_probes);
  HutchinsonOptions hutchinson_options{.seed = options_.seed, .relative_error = options_.trace_error};
  hutchinson_options.max_samples = options_.max_probes;
  // A small budget is the user's to choose; its standard error is reported with it.
  hutchinson_options.min_samples = std::min(hutchinson_options.min_samples, options_.max_probes);
  hutchinson_options.progress = [&](const HutchinsonState& state, std::span<const Estimate> estimates) {
    double worst = 0;
    for (const Estimate& e : estimates) worst = std::max(worst, e.standard_error / std::abs(e.value));
    probes.update(
        static_cast<std::int64_t>(state.samples.size()),
        fmt::format("largest error {:.1f} % (wanted {:.1f} %)", 100 * worst, 100 * options_.trace_error));
    return true;
  };
  const std::vector<Estimate> traces = layer_traces(hessian, hutchinson_options);
  probes.clear();
  hessian.release_graphs();

  Progress eigenvalues("eigenvalues", static_cast<std::int64_t>(layers.size()));
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const Eigenpair top = power_iteration(hessian.block(l), {.seed = options_.seed, .stream = l}).front();
    LayerSensitivity& layer = s.layers[l];
    layer.lambda_max = top.value;
    layer.lambda_residual = top.residual;
    layer.trace = {traces[l].value, traces[l].standard_error, traces[l].samples};
    eigenvalues.update(static_cast<std::int64_t>(l) + 1,
                       fmt::format("{} {:.3g} after {} products", layer.name, top.value, top.iterations));
  }
  eigenvalues.clear();
  write_sensitivity(run_.file("sensitivity.json"), s);
  sensitivity_ = std::move(s);
}

void Pipeline::assign_bits(const Row& row) {
  if (bits_.contains(row.slug)) return;
  BitAssignment bits;
  if (row.kind == RowKind::direct) {
    const auto model = baseline_model();
    bits = uniform_assignment(layer_list(*model), 2, options_.activation_bits);
  } else {
    const MonotoneAllocator allocator(
        *sensitivity_, metric_of(row),
        {.candidates = options_.bits, .activation_bits = options_.activation_bits});
    write_frontier(row, allocator);
    bits = allocator.allocate(budget_for_compression(*sensitivity_, options_.compression));
  }
  bits_.emplace(row.slug, std::move(bits));
  nlohmann::ordered_json all;
  for (const auto& [slug, assignment] : bits_) all[slug] = nlohmann::ordered_json::parse(to_json(assignment));
  run_.write_json("bits.json", all);
}

void Pipeline::write_frontier(const Row& row, const MonotoneAllocator& allocator) const {
  nlohmann::ordered_json frontier{{"order", allocator.order()},
                                  {"widths", allocator.widths()},
                                  {"candidates", allocator.candidates().size()},
                                  {"points", nlohmann::ordered_json::array()}};
  for (const Candidate& point : allocator.pareto_frontier()) {
    frontier["points"].push_back({{"bytes", static_cast<double>(point.weight_bits) / 8},
                                  {"omega", point.omega},
                                  {"layers_per_width", point.counts}});
  }
  run_.write_json(fmt::format("pareto-{}.json", row.slug), frontier);
}

void Pipeline::finetune(const Row& row) {
  const BitAssignment& bits = bits_.at(row.slug);
  const auto model = baseline_model();
  QuantizedModel quantized(*model, bits, quantization_options(options_));
  std::vector<Tensor> calibration;
  for (Batch& batch : sample_batches(train_set_, kCalibrationImages, 256, options_.seed, normalization_)) {
    calibration.push_back(std::move(batch.images));
  }
  quantized.calibrate(calibration);

  const auto epochs = static_cast<int>(options_.finetune_epochs);
  std::vector<Stage> stages = single_stage(bits, epochs);
  if (row.kind != RowKind::direct) {
    // Half of the epochs go to the stages one after another, the rest to the whole network.
    const int count = std::min(options_.stages, epochs);
    const int each = std::max(1, epochs / (2 * count));
    stages = stage_plan(*sensitivity_, bits, metric_of(row),
                        {.stages = count, .epochs_per_stage = each, .final_epochs = epochs - count * each});
  }
  write_stages(run_.file(fmt::format("order-{}.json", row.slug)), stages);
  train(*model, &quantized, stages, train_set_, test_set_, trainer_options(row, epochs));

  const Evaluation test = evaluate(*model, test_set_, {.normalization = normalization_});
  const SizeReport size = measure_size(quantized);
  write_safetensors(run_.file(fmt::format("{}.safetensors", row.slug)), dequantized_state_dict(quantized),
                    checkpoint_metadata());
  finish({.slug = row.slug,
          .weight_bits = describe_bits(bits),
          .activation_bits = std::to_string(options_.activation_bits),
          .correct = test.correct,
          .images = test.images,
          .weight_compression = size.weight_compression(),
          .activation_compression = size.activation_compression(),
          .total_compression = size.total_compression()});
}

void Pipeline::finish(const RowResult& result) {
  results_.insert_or_assign(result.slug, result);
  write_table();
  say(fmt::format("{}: {:.2f} % ({} of {})", result.slug, result.accuracy(), result.correct, result.images));
}

void Pipeline::write_table() const {
  nlohmann::ordered_json table{
      {"model", options_.model}, {"data", train_set_->name()}, {"rows", nlohmann::ordered_json::array()}};
  for (const Row& row : rows()) {
    if (const auto it = results_.find(row.slug); it != results_.end())
      table["rows"].push_back(to_json(it->second));
  }
  run_.write_json("table.json", table);
  write_file_atomic(run_.file("table.md"),
                    table_markdown(results_, sensitivity_ ? &*sensitivity_ : nullptr, bits_));
}

}  // namespace goshawk
