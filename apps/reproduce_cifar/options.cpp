#include "apps/reproduce_cifar/options.hpp"

#include <algorithm>
#include <cmath>
#include <map>

#include "apps/reproduce_cifar/rows.hpp"
#include "apps/support/command_line.hpp"
#include "apps/support/config_file.hpp"
#include "apps/support/recipes.hpp"
#include "apps/support/run_directory.hpp"
#include "autograd/curvature/road.hpp"
#include "core/error.hpp"
#include "models/registry.hpp"

namespace goshawk {
namespace {

// Calls f(name of the key and long option without dashes, member) for each option that determines the result.
template <class Options, class F>
void for_each_setting(Options& o, F f) {
  f("data", o.data);
  f("model", o.model);
  f("weights", o.weights);
  f("epochs", o.epochs);
  f("finetune-epochs", o.finetune_epochs);
  f("batch-size", o.batch_size);
  f("recipe", o.recipe);
  f("lr", o.lr);
  f("finetune-lr", o.finetune_lr);
  f("weight-decay", o.weight_decay);
  f("finetune-weight-decay", o.finetune_weight_decay);
  f("compression", o.compression);
  f("bits", o.bits);
  f("activation-bits", o.activation_bits);
  f("activation-widths", o.activation_widths);
  for_each_quantizer_setting(o.quantizer,
                             [&](const char* name, auto& member, const char*) { f(name, member); });
  f("stages", o.stages);
  f("curvature-images", o.curvature_images);
  f("trace-error", o.trace_error);
  f("max-probes", o.max_probes);
  f("road", o.road);
  f("train-images", o.train_images);
  f("test-images", o.test_images);
  f("seed", o.seed);
  f("convolution", o.convolution);
}

const char* description(const std::string& name) {
  static std::map<std::string, const char*> texts{
      {"data",
       "CIFAR-10's binary batches, or train/ and test/ folders of pictures by class; default: a synthetic "
       "set"},
      {"model", "resnet20, resnet32, resnet44 or resnet56"},
      {"weights", "fp32 baseline (safetensors) to load instead of training one"},
      {"epochs", "epochs of the baseline; default 12 (synthetic) or 60"},
      {"finetune-epochs", "epochs of each quantized row; default 6 (synthetic) or 30"},
      {"batch-size", "images a step"},
      {"recipe",
       "of the baseline's training: cosine (one epoch of warm-up, then half a cosine to zero, Nesterov) or "
       "he2016 (that of the ResNet paper: plain momentum, a tenth after half and a hundredth after three "
       "quarters of the epochs)"},
      {"lr", "learning rate of the baseline (its highest)"},
      {"finetune-lr", "learning rate of fine-tuning (cosine)"},
      {"weight-decay", "L2 penalty on the parameters while the baseline is trained"},
      {"finetune-weight-decay", "the same while fine-tuning"},
      {"compression", "weight compression that HAWQ and HAWQ-V2 must reach"},
      {"bits", "candidate weight bits of HAWQ and HAWQ-V2"},
      {"activation-bits", "bits of every activation, and their mean where a row mixes them"},
      {"activation-widths", "candidate bits of the activations where a row mixes them"},
      {"stages", "stages of fine-tuning in the order of Omega"},
      {"curvature-images", "training images the curvature is averaged over; default 256 (synthetic) or 512"},
      {"trace-error", "wanted relative standard error of each layer's trace"},
      {"max-probes", "most Hutchinson probes"},
      {"road",
       "of the eigenvalues and traces: exact (first derivatives), double-backward (Hessian-vector products, "
       "Hutchinson), or automatic: exact where it holds"},
      {"train-images", "use only the first N training images (of class folders N random ones)"},
      {"test-images", "use only the first N test images (of class folders N random ones)"},
      {"seed", "of everything random"},
      {"convolution", kConvolutionHelp},
  };
  const QuantizerSettings any;
  for_each_quantizer_setting(any,
                             [](const char* known, auto&, const char* text) { texts.emplace(known, text); });
  return texts.at(name);
}

void check_values(const ReproduceOptions& o) {
  const auto require = [](bool ok, const std::string& message) {
    if (!ok) throw UsageError(message);
  };
  for (const auto& [name, epochs] :
       {std::pair("epochs", o.epochs), std::pair("finetune-epochs", o.finetune_epochs)})
    require(epochs >= 0 && epochs <= kMaxEpochs, fmt::format("--{} must be 0 to {}", name, kMaxEpochs));
  require(o.finetune_seeds >= 1 && o.finetune_seeds <= kMaxSeeds,
          fmt::format("--finetune-seeds must be 1 to {}", kMaxSeeds));
  require(o.jobs >= 0, "--jobs must not be negative");
  require(o.batch_size > 0, "--batch-size must be positive");
  check_recipe(o.recipe);
  for (const auto& [name, rate] : {std::pair("lr", o.lr), std::pair("finetune-lr", o.finetune_lr)})
    require(rate > 0 && std::isfinite(rate), fmt::format("--{}: {} is not a positive number", name, rate));
  for (const auto& [name, decay] : {std::pair("weight-decay", o.weight_decay),
                                    std::pair("finetune-weight-decay", o.finetune_weight_decay)})
    require(decay >= 0 && std::isfinite(decay),
            fmt::format("--{}: {} is not a non-negative number", name, decay));
  require(o.compression >= 1 && o.compression <= 32, "--compression must lie between 1 and 32");
  if (!o.bits.empty()) {
    const int narrowest = *std::min_element(o.bits.begin(), o.bits.end());
    require(
        o.compression * narrowest <= 32,
        fmt::format("--compression {} cannot be reached: the narrowest of --bits is {}, which gives {:.4g}",
                    o.compression, narrowest, 32.0 / narrowest));
  }
  require(o.activation_bits == 32 || (o.activation_bits >= 1 && o.activation_bits <= 8),
          "--activation-bits must be 1 to 8, or 32 for none");
  require(o.stages > 0, "--stages must be positive");
  require(o.trace_error > 0 && std::isfinite(o.trace_error) && o.max_probes >= 8,
          "--trace-error must be positive and --max-probes at least 8");
  require(o.train_images >= 0 && o.test_images >= 0 && o.curvature_images >= 0,
          "numbers of images must not be negative");
  for (const auto& [name, widths] :
       {std::pair("bits", o.bits), std::pair("activation-widths", o.activation_widths)}) {
    require(!widths.empty(), fmt::format("--{} needs at least one width", name));
    for (int b : widths)
      require(b == 32 || (b >= 1 && b <= 8), fmt::format("--{}: {} is not 1 to 8 or 32", name, b));
  }
  const int narrowest = *std::min_element(o.activation_widths.begin(), o.activation_widths.end());
  require(narrowest <= o.activation_bits,
          fmt::format("--activation-bits {} is below the narrowest of --activation-widths, {}",
                      o.activation_bits, narrowest));
}

}  // namespace

nlohmann::ordered_json to_config(const ReproduceOptions& options) {
  nlohmann::ordered_json config;
  for_each_setting(options, [&](const char* name, const auto& member) { config[name] = member; });
  return config;
}

void add_reproduce_options(CLI::App& program, ReproduceOptions& options) {
  program.option_defaults()->always_capture_default();
  for_each_setting(options, [&](const char* name, auto& member) {
    CLI::Option* option = program.add_option(std::string("--") + name, member, description(name));
    using Member = std::decay_t<decltype(member)>;
    if constexpr (std::is_same_v<Member, std::vector<int>>) option->delimiter(',');
    if constexpr (std::is_unsigned_v<Member>) option->check(non_negative_number());
  });
  add_threads_option(program);
  program.add_option("--out", options.out,
                     "Run directory; default runs/DATA-MODEL-seedN, DATA being \"synthetic\" without --data");
  program.add_flag("--resume", options.resume, "Continue the run in --out where it stopped");
  program
      .add_option("--only", options.only,
                  "Make only these rows, or groups of rows: main, comparators, methods, ablations, all; "
                  "default main (synthetic) or all. The rows: " +
                      row_names())
      ->delimiter(',');
  program
      .add_option("--finetune-seeds", options.finetune_seeds,
                  "Fine-tune each of these rows N times, with the seeds S, S + 1, …")
      ->type_name("N");
  program
      .add_option(
          "--jobs", options.jobs,
          "Make N rows at the same time, each on its share of the threads, 0 for one per thread, up to 8; "
          "results do not depend on it")
      ->type_name("N");
  add_config_option(program);
  program.add_flag("--quiet", options.quiet, "Show no progress");
}

void complete_options(const CLI::App& program, ReproduceOptions& options) {
  for (const std::string& name : options.only) find_rows(name);
  if (options.out.empty()) {
    std::filesystem::path data(options.data.empty() ? "synthetic" : options.data);
    if (!data.has_filename()) data = data.parent_path();
    options.out = fmt::format("runs/{}-{}-seed{}", data.filename().string(), options.model, options.seed);
  }
  if (options.resume) {
    const nlohmann::json stored = RunDirectory::stored_config(options.out);
    for_each_setting(options, [&](const char* name, auto& member) {
      if (stored.is_object() && stored.contains(name) &&
          program.get_option(std::string("--") + name)->count() == 0) {
        stored.at(name).get_to(member);
      }
    });
  }
  check_values(options);
  // These throw for unknown names.
  model_input(options.model);
  road_of(options.road);
  quantization_options(options.quantizer);
  choose_convolution(options.convolution);
  const bool synthetic = options.data.empty();
  if (options.epochs == 0) options.epochs = synthetic ? 12 : 60;
  if (options.finetune_epochs == 0) options.finetune_epochs = synthetic ? 6 : 30;
  if (options.only.empty()) options.only = {synthetic ? "main" : "all"};
  if (options.curvature_images == 0) options.curvature_images = synthetic ? 256 : 512;
}

}  // namespace goshawk
