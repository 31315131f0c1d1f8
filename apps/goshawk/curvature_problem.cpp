#include "apps/goshawk/curvature_problem.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "apps/support/hvp_roads.hpp"
#include "apps/support/suggestions.hpp"
#include "autograd/curvature/microbatches.hpp"
#include "datasets/loader.hpp"
#include "models/registry.hpp"
#include "nn/layer_recorder.hpp"
#include "nn/layers.hpp"
#include "quant/order.hpp"

namespace goshawk {
namespace {

constexpr std::int64_t kDefaultImages = 1024;

/// "layer1.0.conv1" of "layer1.0.conv1.weight".
std::string_view owner(std::string_view parameter) {
  return parameter.substr(0, std::min(parameter.rfind('.'), parameter.size()));
}

std::string part_name(const std::string& parameter, const std::string& per) {
  if (per == "network") return "network";
  return std::string(per == "block" ? block_of(owner(parameter)) : owner(parameter));
}

}  // namespace

bool CurvatureOptions::wants(const std::string& measurement) const {
  return std::find(what.begin(), what.end(), measurement) != what.end();
}

std::int64_t CurvatureOptions::graph_bytes() const {
  return graph_megabytes < 0 ? MicrobatchOptions::for_this_machine().graph_bytes : graph_megabytes << 20;
}

CurvatureProblem::CurvatureProblem(const CurvatureOptions& options)
    : hvp_road_(hvp_road_of(options.hvp_road)), kept_graphs_{.graph_bytes = options.graph_bytes()} {
  const DType dtype = options.dtype == "f64" ? DType::f64 : DType::f32;
  loaded_ = load_model(options.model, options.weights, dtype);
  loaded_.model->set_mode(Mode::eval);
  find_parts(options);
  read_pictures(options, dtype);
}

void CurvatureProblem::read_pictures(const CurvatureOptions& options, DType dtype) {
  const std::string source = options.batch.empty() ? options.pictures.name() : options.batch;
  const auto enough = [&](std::int64_t available) {
    check(options.images <= available,
          "[curvature] {} has {} images but --images asks for {}; give {} at most", source, available,
          options.images, available);
  };
  const auto add = [&](const Tensor& images, const Tensor& labels) {
    images_.push_back(images);
    labels_.push_back(labels);
    sizes_.push_back(labels.dim(0));
    images_count_ += labels.dim(0);
  };
  if (!options.batch.empty()) {
    const LabelledImages all =
        read_batch(options.batch, model_input(options.model).channels, loaded_.classes, dtype);
    enough(all.size());
    const std::int64_t count = options.images > 0 ? options.images : all.size();
    for (std::int64_t begin = 0; begin < count; begin += options.microbatch) {
      const std::int64_t end = std::min(count, begin + options.microbatch);
      add(rows(all.images, begin, end), rows(all.labels, begin, end));
    }
    return;
  }
  std::shared_ptr<const Dataset> data =
      open_pictures(options.pictures, options.model, loaded_, options.weights);
  enough(data->size());
  const std::int64_t count = options.images > 0 ? options.images : std::min(kDefaultImages, data->size());
  // Class folders come class by class, so the first pictures would not do.
  data = random_images(data, count, options.seed);
  const Normalization normalization =
      normalization_for(options.pictures.normalization, options.model, loaded_.metadata, options.weights);
  for (std::int64_t begin = 0; begin < count; begin += options.microbatch) {
    std::vector<std::int64_t> indices(static_cast<std::size_t>(std::min(options.microbatch, count - begin)));
    std::iota(indices.begin(), indices.end(), begin);
    const Batch batch = make_batch(*data, indices, normalization);
    add(batch.images.to(dtype), batch.labels);
  }
}

void CurvatureProblem::find_parts(const CurvatureOptions& options) {
  std::set<std::string> weights;
  for (const auto& [name, layer] : weighted_layers(model())) weights.insert(name + ".weight");
  std::vector<Part> all;
  for (const NamedParameter& parameter : model().named_parameters()) {
    if (options.parameters == "weights" && !weights.contains(parameter.name)) continue;
    const std::string name = part_name(parameter.name, options.per);
    auto part = std::find_if(all.begin(), all.end(), [&](const Part& p) { return p.name == name; });
    if (part == all.end()) {
      part = all.insert(all.end(), Part{.name = name, .parameters = {}, .number = all.size()});
    }
    part->parameters.push_back(parameters_.size());
    part->elements += parameter.variable.numel();
    parameters_.push_back(parameter);
  }
  std::vector<std::string> names;
  for (const Part& part : all) names.push_back(part.name);
  for (const std::string& name : options.only) {
    if (std::find(names.begin(), names.end(), name) == names.end()) {
      throw UsageError(fmt::format("--layer: {} has no {} '{}'; near it are {}", options.model, options.per,
                                   name, nearest_names(name, names)));
    }
  }
  for (const Part& part : all) {
    if (options.only.empty() ||
        std::find(options.only.begin(), options.only.end(), part.name) != options.only.end()) {
      parts_.push_back(part);
    }
  }
  complete_ = parts_.size() == all.size();
  network_ = {.name = "network", .parameters = {}, .number = std::uint64_t{1} << 20};
  for (const Part& part : parts_) {
    network_.parameters.insert(network_.parameters.end(), part.parameters.begin(), part.parameters.end());
    network_.elements += part.elements;
  }
}

std::vector<Variable> CurvatureProblem::variables(const Part& part) const {
  std::vector<Variable> chosen;
  for (const std::size_t i : part.parameters) chosen.push_back(parameters_[i].variable);
  return chosen;
}

HessianOperator::Loss CurvatureProblem::loss_of_microbatch() const {
  return [this](std::size_t b) { return softmax_cross_entropy(model()(images_[b]), labels_[b]); };
}

std::unique_ptr<HessianOperator> CurvatureProblem::hessian(const Part& part) const {
  return std::make_unique<HessianOperator>(variables(part), sizes_, loss_of_microbatch(), kept_graphs_,
                                           hvp_road_);
}

ClassifierPass CurvatureProblem::pass() const {
  return [this](std::size_t b) { return record_classifier(model(), images_[b], labels_[b]); };
}

double CurvatureProblem::loss() const {
  double sum = 0;
  for_each_in_order(
      sizes_.size(), 0,
      [&](std::size_t b) {
        const NoGrad no_grad;
        return loss_of_microbatch()(b).item();
      },
      [&](std::size_t b, double loss) { sum += loss * static_cast<double>(sizes_[b]); });
  return sum / static_cast<double>(images_count_);
}

}  // namespace goshawk
