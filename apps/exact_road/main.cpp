// exact_road: times the exact road on a trained model and holds it against double backward.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "apps/goshawk/model_file.hpp"
#include "apps/support/command_line.hpp"
#include "apps/support/normalization.hpp"
#include "apps/support/program.hpp"
#include "autograd/curvature/activation_hessian.hpp"
#include "autograd/curvature/gauss_newton.hpp"
#include "autograd/curvature/hessian_operator.hpp"
#include "autograd/curvature/hutchinson.hpp"
#include "autograd/curvature/logit_changes.hpp"
#include "autograd/curvature/road.hpp"
#include "core/file.hpp"
#include "core/parallel.hpp"
#include "core/timer.hpp"
#include "datasets/loader.hpp"
#include "datasets/open.hpp"
#include "models/registry.hpp"
#include "nn/layer_recorder.hpp"

namespace goshawk {
namespace {

struct Options {
  std::string model = "resnet20", weights, data, out;
  std::int64_t images = 4096;
  std::int64_t microbatch = 32;
  int samples = 0;
  std::int64_t check_images = 0;
  int probes = 0;
  int rounds = 1;
  std::uint64_t seed = 0;
};

/// The first pictures of a data set, cut into microbatches, and the model that reads them.
struct Problem {
  LoadedModel loaded;
  std::vector<Tensor> images, labels;
  std::vector<std::int64_t> sizes;

  Problem(const Options& options, std::int64_t count, DType dtype)
      : loaded(load_model(options.model, options.weights, dtype)) {
    const InputSpec input = model_input(options.model);
    Normalization normalization;
    for (std::size_t c = 0; c < 3; ++c) {
      normalization.mean[c] = static_cast<float>(input.mean[c]);
      normalization.stddev[c] = static_cast<float>(input.std[c]);
    }
    normalization = normalization_of(loaded.metadata, options.weights).value_or(normalization);
    const std::shared_ptr<const Dataset> data = open_dataset(options.data, Split::train);
    // What is to be checked at the end counts from the start.
    const std::int64_t most = std::max(count, options.check_images);
    check(most <= data->size(), "[exact_road] {} has {} pictures and {} were asked for; ask for fewer",
          options.data, data->size(), most);
    loaded.model->set_mode(Mode::eval);
    for (std::int64_t begin = 0; begin < count; begin += options.microbatch) {
      std::vector<std::int64_t> indices(
          static_cast<std::size_t>(std::min(options.microbatch, count - begin)));
      std::iota(indices.begin(), indices.end(), begin);
      const Batch batch = make_batch(*data, indices, normalization);
      images.push_back(batch.images.to(dtype));
      labels.push_back(batch.labels);
      sizes.push_back(batch.size());
    }
  }

  Module& model() const { return *loaded.model; }
  ClassifierPass pass() const {
    return [this](std::size_t b) { return record_classifier(model(), images[b], labels[b]); };
  }
  std::vector<Variable> weights() const {
    std::vector<Variable> all;
    for (const auto& [name, layer] : weighted_layers(model())) all.push_back(layer->weight);
    return all;
  }
  HessianOperator hessian() const {
    return {weights(), sizes,
            [this](std::size_t b) { return softmax_cross_entropy(model().forward(images[b]), labels[b]); }};
  }
};

double relative_difference(const Vector& a, const Vector& b) {
  const Vector difference{a[0].clone()};
  axpy(-1, b, difference);
  return norm(difference) / norm(b);
}

/// GGN block · v against HVP block · v, and quadratic costs against ½ Δwᵀ(HΔw), in f64.
nlohmann::ordered_json check_exactness(const Options& options) {
  const Problem problem(options, options.check_images, DType::f64);
  const HessianOperator hessian = problem.hessian();
  const GaussNewtonOperator gauss_newton(problem.weights(), problem.sizes, problem.pass());
  const auto layers = weighted_layers(problem.model());
  std::vector<WeightChange> changes;
  for (const auto& [name, layer] : layers) {
    const Tensor& w = layer->weight.value();
    const std::vector<double> values = w.to_vector<double>();
    double largest = 0;
    for (double v : values) largest = std::max(largest, std::abs(v));
    Tensor change = w.clone();  // symmetric, layer-wise, 4 bits
    for (double& v : change.span<double>()) v = std::round(v / largest * 7) * largest / 7 - v;
    changes.push_back({name, change});
  }
  const LogitChanges forward =
      logit_changes(problem.pass(), problem.sizes, changes, {.way = JacobianWay::forward});
  const LogitChanges backward =
      logit_changes(problem.pass(), problem.sizes, changes, {.way = JacobianWay::backward});
  nlohmann::ordered_json json;
  double worst_product = 0, worst_cost = 0, worst_ways = 0;
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const HessianOperator block = hessian.block(l);
    Random random(1, l);
    const Vector v = normal_vector(block.shapes(), DType::f64, random);
    const double product = relative_difference(gauss_newton.block(l).apply(v), block.apply(v));
    const Vector dw{changes[l].change};
    const double form = dot(dw, block.apply(dw)) / 2;
    const double cost = std::abs(forward.cost(l).second_order - form) / form;
    const double ways = std::abs(forward.cost(l).second_order - backward.cost(l).second_order) / form;
    worst_product = std::max(worst_product, product);
    worst_cost = std::max(worst_cost, cost);
    worst_ways = std::max(worst_ways, ways);
    json["layers"].push_back({{"name", layers[l].first},
                              {"product_difference", product},
                              {"half_dw_h_dw", form},
                              {"cost_difference", cost}});
  }
  json["images"] = options.check_images;
  json["worst_product_difference"] = worst_product;
  json["worst_cost_difference"] = worst_cost;
  json["worst_difference_of_ways"] = worst_ways;
  return json;
}

void run(const Options& options) {
  check_apart({"--out", options.out}, {{"--weights", options.weights}, {"--data", options.data}});
  const Problem problem(options, options.images, DType::f32);
  const ClassifierGraph first = problem.pass()(0);
  nlohmann::ordered_json json{{"model", options.model},
                              {"images", options.images},
                              {"microbatch", options.microbatch},
                              {"threads", num_threads()},
                              {"road", choose_road(first).reason}};
  ExactTraces traces;
  std::vector<double> seconds;
  for (int round = 0; round < options.rounds; ++round) {
    const Timer timer;
    traces = exact_traces(problem.pass(), problem.sizes, {.samples = options.samples, .seed = options.seed});
    seconds.push_back(timer.seconds());
  }
  json["seconds"] = seconds;
  json["loss"] = traces.loss;
  json["directions"] = traces.directions;
  print_result("{} images, {} directions: {:.2f} s ({:.0f} images/s); loss {:.6g}\n", traces.images,
               traces.directions, *std::min_element(seconds.begin(), seconds.end()),
               static_cast<double>(traces.images) / *std::min_element(seconds.begin(), seconds.end()),
               traces.loss);
  const HessianOperator hessian = problem.hessian();
  for (std::size_t l = 0; l < traces.layers.size(); ++l) {
    const LayerTraces& layer = traces.layers[l];
    nlohmann::ordered_json entry{{"name", layer.name},
                                 {"weights", layer.weight_elements},
                                 {"trace", layer.weight.value},
                                 {"image_error", layer.weight.subset_error.value_or(0)},
                                 {"probe_error", layer.weight.standard_error},
                                 {"activations", layer.activation_elements},
                                 {"activation_trace", layer.activation.value},
                                 {"activation_image_error", layer.activation.subset_error.value_or(0)}};
    std::string hutchinson_text;
    if (options.probes > 0) {
      const HutchinsonOptions probing{.seed = options.seed,
                                      .relative_error = 0,
                                      .min_samples = 8,
                                      .max_samples = options.probes,
                                      .probes_per_pass = 8};
      const HessianOperator block = hessian.block(l);
      const Estimate weight = hutchinson(block, probing);
      block.release_graphs();
      const ActivationHessian activation_block(layer.name, problem.sizes, problem.pass());
      const Estimate activation = hutchinson(activation_block, probing);
      const double z = (weight.value - layer.weight.value) / weight.standard_error;
      const double za = (activation.value - layer.activation.value) / activation.standard_error;
      entry["hutchinson"] = {{"trace", weight.value},
                             {"standard_error", weight.standard_error},
                             {"z", z},
                             {"activation_trace", activation.value},
                             {"activation_standard_error", activation.standard_error},
                             {"activation_z", za}};
      hutchinson_text = fmt::format(
          "   Hutchinson {:>10.4g} ± {:<9.2g} z {:>5.2f}   activation {:>10.4g} ± {:<9.2g} z {:>5.2f}",
          weight.value, weight.standard_error, z, activation.value, activation.standard_error, za);
    }
    json["layers"].push_back(entry);
    print_result("{:<18} trace {:>10.5g} ± {:<9.2g} activation {:>10.5g} ± {:<9.2g}{}\n", layer.name,
                 layer.weight.value, layer.weight.subset_error.value_or(0), layer.activation.value,
                 layer.activation.subset_error.value_or(0), hutchinson_text);
  }
  if (options.check_images > 0) {
    json["exactness_f64"] = check_exactness(options);
    print_result(
        "f64, {} images: block products differ by {:.1e}, quadratic costs by {:.1e}, the two ways by "
        "{:.1e}\n",
        options.check_images, json["exactness_f64"]["worst_product_difference"].get<double>(),
        json["exactness_f64"]["worst_cost_difference"].get<double>(),
        json["exactness_f64"]["worst_difference_of_ways"].get<double>());
  }
  if (!options.out.empty()) write_file_atomic(options.out, json.dump(2) + "\n");
}

}  // namespace
}  // namespace goshawk

int main(int argc, char** argv) {
  using namespace goshawk;
  return run_program("exact_road", [&] {
    Options options;
    CLI::App program(
        "Exact traces of all layers and activations of a trained classifier, timed, and held against double "
        "backward.\n\nExample: exact_road --weights resnet20.safetensors --data data_batch_1.bin --probes 64 "
        "--check 64\n",
        "exact_road");
    set_up_command_line(program);
    program.option_defaults()->always_capture_default();
    program.add_option("--model", options.model, "Name of the model")->check(CLI::IsMember(model_names()));
    program.add_option("--weights", options.weights, "Its state dict (safetensors)")->required();
    program.add_option("--data", options.data, "Data set, as for goshawk evaluate")->required();
    program.add_option("--images", options.images, "The first so many pictures")->check(positive_number());
    program.add_option("--microbatch", options.microbatch, "Pictures of a microbatch")
        ->check(positive_number());
    program.add_option("--samples", options.samples, "Random directions per picture; 0 for the exact sum")
        ->check(non_negative_number());
    program.add_option("--rounds", options.rounds, "Timed repetitions")->check(positive_number());
    program
        .add_option("--probes", options.probes,
                    "Hutchinson probes for each layer by double backward; 8 at least, or 0 for none")
        ->check(non_negative_number())
        ->check(CLI::Validator(
            [](const std::string& text) -> std::string {
              const bool few = text.size() == 1 && text >= "1" && text <= "7";
              return few ? text + " say too little about their own spread; give 8 or more, or 0" : "";
            },
            ""));
    program
        .add_option("--check", options.check_images,
                    "Compare products and quadratic costs with double backward in f64 on so many pictures")
        ->check(non_negative_number());
    program.add_option("--seed", options.seed, "Of the probes and random directions")
        ->check(non_negative_number());
    program.add_option("--out", options.out, "JSON file to write");
    add_threads_option(program);
    std::string convolution = "winograd";
    add_convolution_option(program, convolution);
    program.callback([&] {
      choose_convolution(convolution);
      run(options);
    });
    run_command_line(program, argc, argv);
    return 0;
  });
}
