// goshawk curvature: eigenvalues, traces and more of a trained model, layer by layer, with their errors.
#include <memory>
#include <utility>

#include "apps/goshawk/commands.hpp"
#include "apps/goshawk/curvature_measurements.hpp"
#include "apps/goshawk/curvature_problem.hpp"
#include "apps/goshawk/curvature_report.hpp"
#include "apps/support/command_line.hpp"
#include "apps/support/config_file.hpp"
#include "apps/support/hvp_roads.hpp"
#include "apps/support/interrupt.hpp"
#include "apps/support/run_directory.hpp"
#include "autograd/curvature/road.hpp"
#include "core/file.hpp"

namespace goshawk {
namespace {

/// Null for what was left to the program: in a configuration, as if not given.
nlohmann::ordered_json or_null(bool given, nlohmann::ordered_json value) {
  return given ? std::move(value) : nlohmann::ordered_json();
}

/// Everything that a result depends on.
nlohmann::ordered_json configuration(const CurvatureOptions& options) {
  const NormalizationOptions& normalization = options.pictures.normalization;
  const bool usual_products = options.hvp_road == CurvatureOptions().hvp_road;
  nlohmann::ordered_json config{{"program", "goshawk curvature"},
                                {"model", options.model},
                                {"weights", options.weights},
                                {"data", options.pictures.source.path},
                                {"split", options.pictures.split},
                                {"batch", options.batch},
                                {"images", or_null(options.images > 0, options.images)},
                                {"microbatch", options.microbatch},
                                {"what", options.what},
                                {"per", options.per},
                                {"layer", options.only},
                                {"parameters", options.parameters},
                                {"road", options.road},
                                {"hvp-road", or_null(!usual_products, options.hvp_road)},
                                {"top", options.top},
                                {"bottom", options.bottom},
                                {"error", options.error},
                                {"max-samples", options.max_samples},
                                {"max-products", options.max_products},
                                {"directions", or_null(options.directions >= 0, options.directions)},
                                {"density-steps", options.density_steps},
                                {"density-probes", options.density_probes},
                                {"landscape-points", options.landscape_points},
                                {"seed", options.seed},
                                {"dtype", options.dtype},
                                {"convolution", options.convolution}};
  if (options.pictures.source.synthetic) {
    config["synthetic"] = true;
    config["synthetic-seed"] = options.pictures.source.synthetic_seed;
  }
  config["mean"] = normalization.mean_given ? nlohmann::ordered_json(normalization.value.mean) : nullptr;
  config["std"] = normalization.std_given ? nlohmann::ordered_json(normalization.value.stddev) : nullptr;
  return config;
}

void run(const CurvatureOptions& options) {
  choose_convolution(options.convolution);
  if (options.batch.empty() != options.pictures.given()) {
    throw UsageError("give images with --data, --synthetic or --batch; see goshawk curvature --help");
  }
  if (options.wants("activations") && options.per != "layer") {
    throw UsageError("--what activations is about layers; use --per layer");
  }
  const CurvatureProblem problem(options);
  const RunDirectory directory(options.out, configuration(options), options.resume);
  const FileLock lock = directory.lock("curvature");
  const InterruptHandler on_interrupt("goshawk", resume_hint("goshawk curvature", options.out));
  const nlohmann::ordered_json curvature = measure_curvature(options, problem, directory);
  const std::string table = curvature_table(curvature);
  directory.write_json("curvature.json", curvature);
  write_file_atomic(directory.file("curvature.md"), table);
  print_result(table);
}

void add_measurement_options(CLI::App& command, CurvatureOptions& options) {
  command
      .add_option(
          "--what", options.what,
          "What to measure, with commas between: eigenvalues, trace, density (of all eigenvalues), "
          "activations (trace of the Hessian in each layer's input), fisher (trace and eigenvalues of "
          "the empirical Fisher matrix), landscape (the loss around the weights)")
      ->delimiter(',')
      ->check(CLI::IsMember({"eigenvalues", "trace", "density", "activations", "fisher", "landscape"}))
      ->type_name("LIST")
      ->default_str("eigenvalues,trace");
  command
      .add_option("--per", options.per, "Report on each layer, on each block of layers, or on the network")
      ->check(CLI::IsMember({"layer", "block", "network"}))
      ->type_name("NAME")
      ->capture_default_str();
  command.add_option("--layer", options.only, "Only this layer or block; may be given several times")
      ->type_name("NAME");
  command
      .add_option("--parameters", options.parameters,
                  "weights: of convolutions and linear layers; all: biases and normalisation too")
      ->check(CLI::IsMember({"weights", "all"}))
      ->type_name("NAME")
      ->capture_default_str();
  command
      .add_option("--road", options.road,
                  "exact (from first derivatives, for networks that are piecewise linear in each layer), "
                  "double-backward (any network), or automatic: exact where it holds")
      ->check(CLI::IsMember({"automatic", "exact", "double-backward"}))
      ->type_name("ROAD")
      ->capture_default_str();
  command
      .add_option(
          "--hvp-road", options.hvp_road,
          "How the Hessian's products are computed where the exact road is not taken: reverse-over-reverse, "
          "forward-over-reverse, which may be faster with many probes at a time, or automatic, which "
          "measures both, so that the last digits differ from run to run")
      ->check(CLI::IsMember(hvp_road_names()))
      ->type_name("ROAD")
      ->capture_default_str();
  command.add_option("--top", options.top, "Largest eigenvalues of each part")
      ->check(CLI::Range(1, 1000))
      ->type_name("K")
      ->capture_default_str();
  command
      .add_option("--bottom", options.bottom,
                  "Most negative eigenvalues of each part, unless it is known to have none")
      ->check(CLI::Range(0, 1000))
      ->type_name("K")
      ->capture_default_str();
  command.add_option("--error", options.error, "Wanted standard error of a trace, relative to it")
      ->check(CLI::Range(1e-6, 1.0))
      ->type_name("E")
      ->capture_default_str();
  command.add_option("--max-samples", options.max_samples, "Random probes for a trace at most")
      ->check(CLI::Range(16, 1000000))
      ->type_name("N")
      ->capture_default_str();
  command
      .add_option("--max-products", options.max_products,
                  "Products with a matrix for its eigenvalues at most")
      ->check(CLI::Range(2, 1000000))
      ->type_name("N")
      ->capture_default_str();
  command
      .add_option(
          "--directions", options.directions,
          "On the exact road: random directions per image, or 0 for the exact sum over all; by default 0 "
          "up to 128 classes and otherwise 32")
      ->check(CLI::Range(0, 100000))
      ->check(CLI::Validator(
          [](const std::string& text) -> std::string {
            int directions = 0;
            const bool one = CLI::detail::lexical_cast(text, directions) && directions == 1;
            return one ? "1 has no spread to take an error from; give 2 or more, or 0" : "";
          },
          ""))
      ->type_name("N");
  command
      .add_option("--density-steps", options.density_steps,
                  "Lanczos steps for a spectral density: its resolution")
      ->check(CLI::Range(2, 10000))
      ->type_name("N")
      ->capture_default_str();
  command
      .add_option("--density-probes", options.density_probes, "Random vectors for a spectral density at most")
      ->check(CLI::Range(2, 10000))
      ->type_name("N")
      ->capture_default_str();
  command
      .add_option("--landscape-points", options.landscape_points,
                  "Points of the landscape along each direction (odd)")
      ->check(CLI::Range(3, 1001))
      ->check(CLI::Validator(
          [](const std::string& text) {
            const bool even = !text.empty() && (text.back() - '0') % 2 == 0;
            return even ? fmt::format(
                              "{} is even; the middle point is the network itself, so give an odd number",
                              text)
                        : std::string();
          },
          ""))
      ->type_name("N")
      ->capture_default_str();
}

}  // namespace

void add_curvature_command(CLI::App& program) {
  const auto options = std::make_shared<CurvatureOptions>();
  CLI::App& command = *program.add_subcommand(
      "curvature",
      "Eigenvalues, traces and more of the Hessian of a trained model, layer by layer, with their errors");
  add_model_options(command, options->model, options->weights);
  CLI::Option& data = add_picture_options(command, options->pictures);
  command.add_option("--batch", options->batch, kBatchHelp)->type_name("FILE")->excludes(&data);
  command
      .add_option(
          "--images", options->images,
          "Number of images: drawn at random from a data set (1024 or all, if not given), the first of a "
          "batch file (all)")
      ->check(positive_number())
      ->type_name("N");
  command
      .add_option(
          "--microbatch", options->microbatch,
          "Images at a time; the spread between microbatches gives the error from the choice of images")
      ->check(positive_number())
      ->type_name("N")
      ->capture_default_str();
  command
      .add_option(
          "--graph-memory", options->graph_megabytes,
          "MiB for gradient graphs that are kept between products, by default a quarter of the machine's; "
          "those of the other microbatches are built again for each product")
      ->check(non_negative_number())
      ->type_name("MIB");
  add_measurement_options(command, *options);
  command.add_option("--seed", options->seed, "Of the choice of images and of all random vectors")
      ->check(non_negative_number())
      ->type_name("S")
      ->capture_default_str();
  command.add_option("--dtype", options->dtype, "f32 or f64: type of the computation")
      ->check(CLI::IsMember({"f32", "f64"}))
      ->type_name("TYPE")
      ->capture_default_str();
  command
      .add_option("--out", options->out,
                  "Directory for curvature.json, curvature.md and what belongs to them")
      ->required()
      ->type_name("DIR");
  command.add_flag("--resume", options->resume,
                   "Continue the run in --out where it stopped, with its options; ends with the same bits");
  add_threads_option(command);
  add_quiet_option(command);
  add_config_option(command);
  add_convolution_option(command, options->convolution);
  command.footer(
      "Batch normalisation is in eval mode. Example:\n  goshawk curvature --model resnet20 --weights "
      "resnet20.safetensors --data cifar-10-batches-bin --images 4096 --out runs/curvature");
  command.callback([options] { run(*options); });
}

}  // namespace goshawk
