// goshawk hvp: gradient and Hessian-vector product of one batch, from files to a file.
#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "apps/goshawk/commands.hpp"
#include "apps/goshawk/model_file.hpp"
#include "apps/goshawk/pictures.hpp"
#include "apps/support/command_line.hpp"
#include "apps/support/config_file.hpp"
#include "apps/support/hvp_roads.hpp"
#include "apps/support/output_file.hpp"
#include "autograd/curvature/block_vector.hpp"
#include "autograd/grad.hpp"
#include "autograd/ops.hpp"
#include "core/safetensors.hpp"
#include "models/registry.hpp"
#include "nn/layers.hpp"
#include "nn/state_dict.hpp"

namespace goshawk {
namespace {

struct Options {
  std::string model, weights, batch, vector, out;
  std::string bn;
  std::string dtype = "f32";
  std::string road = "reverse-over-reverse";
  std::string convolution = "direct";  // one product: its accuracy counts, not its speed
};

/// The vector in memory layout, one tensor per parameter; those that the file does not have are zero.
Vector read_vector(const std::string& path, const std::vector<NamedParameter>& parameters, DType dtype) {
  const SafeTensors file = read_safetensors(path);
  for (const auto& entry : file.tensors) {
    const auto& [name, tensor] = entry;
    const auto it = std::find_if(parameters.begin(), parameters.end(), [&](const NamedParameter& parameter) {
      return parameter.name == entry.first;
    });
    check(it != parameters.end(),
          "[hvp] {}: '{}' is no parameter of the model; name the tensors as in its state dict, such as '{}'",
          path, name, parameters.front().name);
    const Shape shape = to_file_layout(it->variable.value()).shape();
    check(tensor.shape() == shape,
          "[hvp] {}: tensor '{}' has shape {} but the parameter has {}; give it that shape", path, name,
          tensor.shape(), shape);
    check(is_floating(tensor.dtype()), "[hvp] {}: tensor '{}' is {}; save it as F32 or F64", path, name,
          tensor.dtype());
    check_finite(tensor, name, path, "repair the vector");
  }
  Vector vector;
  for (const NamedParameter& parameter : parameters) {
    const Tensor* given = file.find(parameter.name);
    vector.push_back(given == nullptr ? Tensor::zeros_like(parameter.variable.value())
                                      : to_memory_layout(*given).to(dtype));
  }
  return vector;
}

struct Derivatives {
  double loss = 0;
  Vector gradient, product;  // f64
};

/// Mean cross-entropy over the batch, its gradient and H v, as sums over `microbatch` images at a time
/// weighted by their share: the same function when the images do not interact, in bounded memory.
Derivatives differentiate(Module& model, const LabelledImages& batch, const Vector& v,
                          std::int64_t microbatch, HvpRoad road) {
  const std::vector<Variable> parameters = model.parameters();
  std::vector<Shape> shapes;
  for (const Variable& parameter : parameters) shapes.push_back(parameter.shape());
  Derivatives total{0, zero_vector(shapes, DType::f64), zero_vector(shapes, DType::f64)};
  const auto add = [](double weight, const Tensor& part, const Tensor& sum) {
    axpy(weight, {part.to(DType::f64)}, {sum});
  };
  const std::int64_t images = batch.labels.dim(0);
  for (std::int64_t begin = 0; begin < images; begin += microbatch) {
    const std::int64_t end = std::min(images, begin + microbatch);
    const double weight = static_cast<double>(end - begin) / static_cast<double>(images);
    const Variable logits = model(rows(batch.images, begin, end));
    const GradientGraph graph(softmax_cross_entropy(logits, rows(batch.labels, begin, end)), parameters,
                              road);
    road = graph.road();  // what was measured on the first microbatch holds for the others
    const Vector product = graph.apply(v);
    total.loss += weight * graph.loss();
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      add(weight, graph.gradient()[i].value(), total.gradient[i]);
      add(weight, product[i], total.product[i]);
    }
  }
  return total;
}

void run(const Options& options) {
  choose_convolution(options.convolution);
  check_apart({"--out", options.out},
              {{"--weights", options.weights}, {"--batch", options.batch}, {"--vector", options.vector}});
  const DType dtype = options.dtype == "f64" ? DType::f64 : DType::f32;
  const bool train = options.bn == "train";
  const LoadedModel loaded = load_model(options.model, options.weights, dtype);
  const std::vector<NamedParameter> parameters = loaded.model->named_parameters();
  const LabelledImages batch =
      read_batch(options.batch, model_input(options.model).channels, loaded.classes, dtype);
  const Vector v = read_vector(options.vector, parameters, dtype);
  check_writable(options.out);

  loaded.model->set_mode(train ? Mode::train : Mode::eval);
  // Batch statistics join all images of a batch, so there is no splitting in train mode.
  constexpr std::int64_t kMicrobatch = 64;
  const Derivatives result = differentiate(*loaded.model, batch, v, train ? batch.labels.dim(0) : kMicrobatch,
                                           hvp_road_of(options.road));
  const double gradient_norm = norm(result.gradient), product_norm = norm(result.product);
  check(std::isfinite(result.loss) && std::isfinite(gradient_norm) && std::isfinite(product_norm),
        "[hvp] loss {}, gradient norm {}, product norm {}: the numbers overflow for {} and {}; check the "
        "weights "
        "and inputs, or use --dtype f64",
        result.loss, gradient_norm, product_norm, options.weights, options.batch);

  StateDict tensors = {{"loss", Tensor::scalar(result.loss, dtype)}};
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    tensors.emplace_back("grad." + parameters[i].name, to_file_layout(result.gradient[i]).to(dtype));
    tensors.emplace_back("hvp." + parameters[i].name, to_file_layout(result.product[i]).to(dtype));
  }
  write_safetensors(
      options.out, tensors,
      {{"model", options.model}, {"bn", options.bn}, {"producer", fmt::format("goshawk {}", version())}});
  double curvature = 0;
  for (std::size_t i = 0; i < v.size(); ++i) curvature += block_dot(v[i].to(DType::f64), result.product[i]);
  print_result("loss {:.9g}, |gradient| {:.9g}, |Hv| {:.9g}, vᵀHv {:.9g}, over {} images\n", result.loss,
               gradient_norm, product_norm, curvature, batch.labels.dim(0));
}

}  // namespace

void add_hvp_command(CLI::App& program) {
  const auto options = std::make_shared<Options>();
  CLI::App& command = *program.add_subcommand(
      "hvp",
      "Gradient and Hessian-vector product of the mean cross-entropy over one batch, from files to a file");
  add_model_options(command, options->model, options->weights);
  command.add_option("--batch", options->batch, kBatchHelp)->required()->type_name("FILE");
  command
      .add_option(
          "--vector", options->vector,
          "Safetensors with tensors named and shaped as the parameters (F32 or F64); missing ones are zero")
      ->required()
      ->type_name("FILE");
  command
      .add_option("--bn", options->bn,
                  "Batch normalisation: eval (running statistics) or train (the batch's)")
      ->required()
      ->check(CLI::IsMember({"eval", "train"}))
      ->type_name("MODE");
  command.add_option("--dtype", options->dtype, "f32 or f64: type of the computation and of the results")
      ->check(CLI::IsMember({"f32", "f64"}))
      ->type_name("TYPE")
      ->capture_default_str();
  command
      .add_option("--out", options->out,
                  "Safetensors to write: loss, grad.NAME and hvp.NAME for every parameter, in the layout of "
                  "the inputs")
      ->required()
      ->type_name("FILE");
  command
      .add_option(
          "--road", options->road,
          "How the product is computed: reverse-over-reverse, forward-over-reverse or automatic, which "
          "takes the one that it measures to be faster; they agree up to rounding")
      ->check(CLI::IsMember(hvp_road_names()))
      ->type_name("ROAD")
      ->capture_default_str();
  add_threads_option(command);
  add_config_option(command);
  add_convolution_option(command, options->convolution);
  command.footer(
      "Example:\n  goshawk hvp --model resnet20 --weights resnet20.safetensors --batch batch.safetensors "
      "--vector v.safetensors --bn eval --out hvp.safetensors");
  command.callback([options] { run(*options); });
}

}  // namespace goshawk
