#include "apps/goshawk/sensitivity_problem.hpp"

#include <algorithm>
#include <numeric>

#include "apps/support/config_file.hpp"
#include "datasets/loader.hpp"
#include "models/registry.hpp"

namespace goshawk {
namespace {

constexpr std::int64_t kDefaultImages = 1024;
constexpr std::int64_t kReadAtOnce = 64;

Tensor joined(const std::vector<Tensor>& pictures, std::int64_t begin, std::int64_t end) {
  const Tensor& first = pictures[static_cast<std::size_t>(begin)];
  Shape shape = first.shape();
  shape[0] = end - begin;
  Tensor all = Tensor::empty(shape, first.dtype());
  std::byte* to = all.raw();
  for (std::int64_t i = begin; i < end; ++i) {
    const Tensor& picture = pictures[static_cast<std::size_t>(i)];
    to = std::copy_n(picture.raw(), picture.bytes(), to);
  }
  return all;
}

std::pair<std::string, int> pin_of(const std::string& text) {
  const std::size_t equals = text.rfind('=');
  int bits = 0;
  if (equals != std::string::npos) {
    const std::string digits = text.substr(equals + 1);
    if (!digits.empty() && digits.size() <= 2 && std::all_of(digits.begin(), digits.end(), ::isdigit)) {
      bits = std::stoi(digits);
    }
  }
  if (bits == 0) throw UsageError(fmt::format("--pin: '{}' is not LAYER=BITS, such as conv1=8", text));
  return {text.substr(0, equals), bits};
}

}  // namespace

void add_sensitivity_problem_options(CLI::App& command, SensitivityProblemOptions& options) {
  add_model_options(command, options.model, options.weights);
  CLI::Option& data = add_picture_options(command, options.pictures);
  command.add_option("--batch", options.batch, kBatchHelp)->type_name("FILE")->excludes(&data);
  command
      .add_option("--microbatch", options.microbatch,
                  "Images at a time; results depend on it by rounding only")
      ->check(positive_number())
      ->type_name("N")
      ->capture_default_str();
  command
      .add_option(
          "--weight-scheme", options.weight_scheme,
          "Levels of the weight quantizer: symmetric, mid_rise, asymmetric, twos_complement, dorefa or "
          "lq_nets")
      ->type_name("NAME")
      ->capture_default_str();
  command.add_option("--granularity", options.granularity, "One weight step per layer or per channel")
      ->type_name("NAME")
      ->capture_default_str();
  command.add_option("--clip", options.clip, "Range of the weight quantizer: min_max, mse or percentile")
      ->type_name("NAME")
      ->capture_default_str();
  command.add_option("--percentile", options.percentile, "Of --clip percentile")
      ->type_name("P")
      ->capture_default_str();
  command.add_option("--seed", options.seed, "Of the choice of images and of everything random")
      ->check(non_negative_number())
      ->type_name("S")
      ->capture_default_str();
  command.add_option("--dtype", options.dtype, "f32 or f64: type of the computation")
      ->check(CLI::IsMember({"f32", "f64"}))
      ->type_name("TYPE")
      ->capture_default_str();
  add_threads_option(command);
  add_convolution_option(command, options.convolution);
  add_quiet_option(command);
  add_config_option(command);
}

nlohmann::ordered_json sensitivity_problem_config(const SensitivityProblemOptions& options) {
  const NormalizationOptions& normalization = options.pictures.normalization;
  nlohmann::ordered_json config{{"model", options.model},
                                {"weights", options.weights},
                                {"data", options.pictures.source.path},
                                {"split", options.pictures.split},
                                {"batch", options.batch},
                                {"microbatch", options.microbatch},
                                {"weight-scheme", options.weight_scheme},
                                {"granularity", options.granularity},
                                {"clip", options.clip},
                                {"percentile", options.percentile},
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

WeightSpec weight_spec_of(const SensitivityProblemOptions& options) {
  const WeightSpec spec{.scheme = parse_weight_scheme(options.weight_scheme),
                        .granularity = parse_granularity(options.granularity),
                        .clip = parse_clip_rule(options.clip),
                        .percentile = options.percentile};
  if (has_learned_step(spec)) {
    throw UsageError(fmt::format(
        "--clip: '{}' trains its step, and nothing is trained here; use min_max, mse or percentile",
        options.clip));
  }
  try {
    check_spec(spec, "--weight-scheme, --granularity, --clip");
  } catch (const Error& e) {
    throw UsageError(e.what());
  }
  return spec;
}

CLI::Option& add_widths_option(CLI::App& command, const std::string& name, std::vector<int>& widths,
                               const std::string& help) {
  return *command.add_option(name, widths, help)
              ->delimiter(',')
              ->check(bit_width())
              ->type_name("B,B,...")
              ->default_str(fmt::format("{}", fmt::join(widths, ",")));
}

CLI::Validator bit_width() {
  // CLI::IsMember has no message for what is no number. Its description is what help and completion show.
  return CLI::Validator(
      [](const std::string& text) -> std::string {
        int bits = 0;
        const bool known = CLI::detail::lexical_cast(text, bits) && ((bits >= 1 && bits <= 8) || bits == 32);
        return known ? "" : fmt::format("'{}' is not among 1 ... 8, 32", text);
      },
      "{1,2,3,4,5,6,7,8,32}");
}

std::vector<std::pair<std::string, int>> pins_of(const std::vector<std::string>& texts) {
  std::vector<std::pair<std::string, int>> pins;
  for (const std::string& text : texts) {
    const std::pair<std::string, int> pin = pin_of(text);
    const auto known =
        std::find_if(pins.begin(), pins.end(), [&](const auto& other) { return other.first == pin.first; });
    if (known == pins.end()) {
      pins.push_back(pin);
    } else if (known->second != pin.second) {
      throw UsageError(fmt::format("--pin: '{}' cannot keep both {} and {} bits; name it once", pin.first,
                                   known->second, pin.second));
    }
  }
  return pins;
}

SensitivityProblem::SensitivityProblem(const SensitivityProblemOptions& options, const std::string& user)
    : microbatch_(options.microbatch) {
  if (options.batch.empty() != options.pictures.given()) {
    throw UsageError("give images with --data, --synthetic or --batch, one of them");
  }
  choose_convolution(options.convolution);
  const DType dtype = options.dtype == "f64" ? DType::f64 : DType::f32;
  loaded_ = load_model(options.model, options.weights, dtype);
  loaded_.model->set_mode(Mode::eval);
  const std::string source = options.batch.empty() ? options.pictures.name() : options.batch;
  const auto count_of = [&](std::int64_t available, std::int64_t otherwise) {
    check(options.images <= available, "[{}] {} has {} images but {} are asked for; give {} at most", user,
          source, available, options.images, available);
    return options.images > 0 ? options.images : std::min(otherwise, available);
  };
  const auto add = [&](const Tensor& images, const Tensor& labels, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) {
      pictures_.push_back(rows(images, i, i + 1));
      labels_.push_back(labels.data<std::int64_t>()[i]);
    }
  };
  if (!options.batch.empty()) {
    const LabelledImages all =
        read_batch(options.batch, model_input(options.model).channels, loaded_.classes, dtype);
    add(all.images, all.labels, count_of(all.size(), all.size()));
    return;
  }
  std::shared_ptr<const Dataset> data =
      open_pictures(options.pictures, options.model, loaded_, options.weights);
  const std::int64_t count = count_of(data->size(), kDefaultImages);
  // Class folders come class by class, so the first pictures would not do.
  data = random_images(data, count, options.seed);
  const Normalization normalization =
      normalization_for(options.pictures.normalization, options.model, loaded_.metadata, options.weights);
  for (std::int64_t begin = 0; begin < count; begin += kReadAtOnce) {
    std::vector<std::int64_t> indices(static_cast<std::size_t>(std::min(kReadAtOnce, count - begin)));
    std::iota(indices.begin(), indices.end(), begin);
    const Batch batch = make_batch(*data, indices, normalization);
    add(batch.images.to(dtype), batch.labels, batch.size());
  }
}

SensitivityData SensitivityProblem::data_for(Module& model, std::int64_t begin, std::int64_t end) const {
  std::vector<Tensor> images, labels;
  for (std::int64_t first = begin; first < end; first += microbatch_) {
    const std::int64_t last = std::min(end, first + microbatch_);
    images.push_back(joined(pictures_, first, last));
    labels.push_back(Tensor::from(std::vector<std::int64_t>(labels_.begin() + first, labels_.begin() + last),
                                  {last - first}));
  }
  return {model, std::move(images), std::move(labels)};
}

}  // namespace goshawk
