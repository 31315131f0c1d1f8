#include "apps/goshawk/finetune_options.hpp"

#include <cctype>
#include <cmath>

#include "apps/goshawk/model_file.hpp"
#include "apps/goshawk/pictures.hpp"
#include "apps/goshawk/sensitivity_problem.hpp"
#include "apps/support/normalization.hpp"
#include "apps/support/progress.hpp"
#include "apps/support/recipes.hpp"
#include "quant/qat.hpp"

namespace goshawk {
namespace {

constexpr const char* kBaseline = "baseline.json";
// A run may go on on a machine that rounds differently; other weights differ by more.
constexpr double kMachineTolerance = 1e-5;
constexpr const char* kJob = "model";  // model.safetensors, model.packed.safetensors, order-model.json

}  // namespace

void add_finetune_options(FineTuneOptions& options) {
  Settings& settings = options.settings;
  add_run_options(settings, options.run);
  settings.add("weights", options.weights, "Full-precision state dict (safetensors)", "FILE").required();
  settings
      .add("activation-bits", options.activation_bits,
           "Bits of every layer's input, unless a run's bits.json says them; 32 leaves them as they are", "B")
      .check(bit_width());
  for_each_quantizer_setting(options.quantizer, [&](const char* name, auto& member, const char* help) {
    std::string text = help;
    text.front() = static_cast<char>(std::toupper(static_cast<unsigned char>(text.front())));
    settings.add(name, member, text, std::is_same_v<std::decay_t<decltype(member)>, double> ? "P" : "NAME");
  });
  settings.add("epochs", options.epochs, "Epochs of fine-tuning; 0 only calibrates", "N")
      .check(CLI::Range(std::int64_t{0}, kMaxEpochs));
  settings
      .add(
          "stages", options.stages,
          "Half of the epochs go to so many stages, the layers that cost most first; 1 quantizes all at once",
          "N")
      .check(CLI::Range(1, 10000));
  settings.add("lr", options.lr, "Learning rate of fine-tuning (half a cosine to zero)", "LR")
      .check(positive_number());
  settings.add("weight-decay", options.weight_decay, "L2 penalty on parameters and activation clips", "W")
      .check(non_negative_number());
}

FineTuneProblem::FineTuneProblem(const FineTuneOptions& options) : options_(options) {
  quantization_options(options.quantizer);
  choose_convolution(options.run.convolution);
  check_source(options.run.source);
  const LoadedModel loaded = load_model(options.run.model, options.weights, DType::f32);
  data_ = open_run_data(options.run);
  const std::int64_t classes = data_.train->num_classes();
  check(loaded.classes == classes,
        "[data] {} has {} classes but the model in {} has {}; give the data it was trained for",
        data_.train->name(), classes, options.weights, loaded.classes);
  normalization_ =
      normalization_for(options.run.normalization, options.run.model, loaded.metadata, options.weights);
  // The layers learn their sizes from a forward pass.
  loaded.model->set_mode(Mode::eval);
  const NoGrad no_grad;
  (*loaded.model)(random_batches(data_.train, 1, 1, options.run.seed, normalization_).front().images);
  layers_ = layer_list(*loaded.model);
}

void FineTuneProblem::announce() const {
  say(fmt::format("{}: {} training and {} test pictures of {} classes", data_.train->name(),
                  data_.train->size(), data_.test->size(), data_.train->num_classes()));
}

std::unique_ptr<Module> FineTuneProblem::baseline() const {
  LoadedModel loaded = load_model(options_.run.model, options_.weights, DType::f32);
  loaded.model->set_mode(Mode::eval);
  return std::move(loaded.model);
}

nlohmann::ordered_json FineTuneProblem::evaluate_baseline(const RunDirectory& directory) const {
  const bool finished = has_result(directory);
  if (finished && !directory.has(kBaseline)) return nullptr;
  if (!finished) {
    const auto model = baseline();
    const Evaluation evaluation = evaluate(*model, data_.test, {.normalization = normalization_});
    check(std::isfinite(evaluation.loss),
          "[weights] the model in {} has loss {} on the test pictures; check that weights, --mean and --std "
          "belong together",
          options_.weights, evaluation.loss);
    if (directory.has(kBaseline)) {
      check_same_loss(directory.file(kBaseline), directory.read_json(kBaseline, &evaluation_from_json).loss,
                      evaluation.loss, kMachineTolerance);
    }
    directory.write_json(kBaseline, evaluation_json(evaluation));
  }
  return evaluation_json(directory.read_json(kBaseline, &evaluation_from_json));
}

nlohmann::ordered_json FineTuneProblem::fine_tune(const RunDirectory& directory, const BitAssignment& bits,
                                                  const std::vector<Stage>& stages) const {
  check(!directory.has("bits.json") || to_json(read_bits(directory.file("bits.json"))) == to_json(bits),
        "[bits] {} has other bits than this run would have now; give another --out",
        directory.file("bits.json"));
  write_bits(directory.file("bits.json"), bits);
  auto metadata = normalization_metadata(normalization_);
  metadata.emplace("model", options_.run.model);
  std::int64_t epochs = 0;
  for (const Stage& stage : stages) epochs += stage.epochs;
  const FineTuned tuned =
      goshawk::fine_tune(directory, {.job = kJob,
                                     .baseline = [&] { return baseline(); },
                                     .bits = bits,
                                     .quantizer = quantization_options(options_.quantizer),
                                     .stages = stages,
                                     .training = finetuning_recipe(directory,
                                                                   {.label = "fine-tuning",
                                                                    .job = kJob,
                                                                    .epochs = epochs,
                                                                    .batch_size = options_.run.batch_size,
                                                                    .lr = options_.lr,
                                                                    .weight_decay = options_.weight_decay,
                                                                    .seed = options_.run.seed,
                                                                    .normalization = normalization_,
                                                                    .random_regions = data_.random_regions},
                                                                   data_.train->size()),
                                     .train_set = data_.train,
                                     .test_set = data_.test,
                                     .calibration_seed = options_.run.seed,
                                     .metadata = std::move(metadata)});
  nlohmann::ordered_json result = evaluation_json(tuned.test);
  result["untuned"] = evaluation_json(tuned.untuned);
  result["weight_compression"] = tuned.size.weight_compression();
  result["activation_compression"] = tuned.size.activation_compression();
  result["total_compression"] = tuned.size.total_compression();
  result["packed_bytes"] = packed_to_json(tuned.packed);
  result["packed"] = fmt::format("{}.packed.safetensors", kJob);
  return result;
}

bool has_result(const RunDirectory& directory) {
  return directory.has(kResultFile) && directory.has(fmt::format("{}.safetensors", kJob)) &&
         directory.has(fmt::format("{}.packed.safetensors", kJob));
}

void print_finetune_result(const FineTuneOptions& options, const RunDirectory& directory) {
  directory.read_json(kResultFile, [&](const nlohmann::json& result) {
    if (options.run.json) {
      print_result("{}\n", result.dump());
      return;
    }
    if (result.contains("baseline")) {
      print_result("full precision: {}\n", evaluation_text(evaluation_from_json(result.at("baseline"))));
    }
    print_result("quantized:      {}\n", evaluation_text(evaluation_from_json(result)));
    print_result(
        "{}/{}: {} bytes, weights {:.2f}x smaller, activations {:.2f}x\n", options.run.out,
        result.at("packed").get<std::string>(), result.at("packed_bytes").at("total").get<std::int64_t>(),
        result.at("weight_compression").get<double>(), result.at("activation_compression").get<double>());
  });
}

}  // namespace goshawk
