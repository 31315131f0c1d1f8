#include "autograd/curvature/activation_hessian.hpp"

#include <utility>

namespace goshawk {
namespace {

const LinearSite& site_of(const ClassifierGraph& graph, const std::string& layer) {
  const LinearSite* found = nullptr;
  std::vector<std::string> names;
  for (const LinearSite& site : graph.sites) {
    names.push_back(site.name);
    if (site.name != layer) continue;
    check(found == nullptr,
          "[ActivationHessian] layer '{}' is used more than once; its input is not one tensor", layer);
    found = &site;
  }
  check(found != nullptr, "[ActivationHessian] there is no layer '{}'; there are {}", layer,
        fmt::join(names, ", "));
  return *found;
}

// The sites' weights as the model holds them; what a quantizer makes of one is new in every pass.
std::vector<Tensor> weights_of(const ClassifierGraph& graph) {
  std::vector<Tensor> weights;
  for (const LinearSite& site : graph.sites) {
    const bool computed = site.weight.requires_grad() && site.weight.node()->op != nullptr;
    if (site.weight.defined() && !computed) weights.push_back(site.weight.value());
  }
  return weights;
}

}  // namespace

ActivationHessian::ActivationHessian(std::string layer, std::vector<std::int64_t> microbatch_sizes,
                                     ClassifierPass pass, MicrobatchOptions options)
    : layer_(std::move(layer)),
      pass_(std::move(pass)),
      graphs_(MicrobatchSizes(std::move(microbatch_sizes), "ActivationHessian"), options,
              "ActivationHessian"),
      losses_(graphs_.sizes().count()) {
  check(pass_ != nullptr, "[ActivationHessian] the forward pass is empty");
  const RecordingGuard on(true);
  const MeasuringGuard measuring;
  const ClassifierGraph graph = pass_(0);
  const Variable& input = site_of(graph, layer_).input;
  dtype_ = input.dtype();
  weights_ = FixedParameters(weights_of(graph));
  for (std::size_t b = 0; b < graphs_.sizes().count(); ++b) {
    Shape shape = input.shape();
    shape[0] = graphs_.sizes()[b];
    shapes_.push_back(shape);
  }
}

GradientGraph ActivationHessian::build(std::size_t microbatch) const {
  const RecordingGuard on(true);
  const MeasuringGuard measuring;
  const ClassifierGraph graph = pass_(microbatch);
  const Variable& input = site_of(graph, layer_).input;
  check(input.shape() == shapes_[microbatch],
        "[ActivationHessian] the input of {} is {} in microbatch {} instead of {}", layer_, input.shape(),
        microbatch, shapes_[microbatch]);
  check(
      !uses_batch_statistics(graph.logits),
      "[ActivationHessian] batch normalisation is in train mode, where an image's loss depends on the other "
      "images' activations; set eval mode");
  GradientGraph gradient(softmax_cross_entropy(graph.logits, graph.labels, Reduction::sum), {input});
  losses_.confirm(microbatch, gradient.loss(), "ActivationHessian");
  return gradient;
}

Vector ActivationHessian::apply(const Vector& v) const {
  check_blocks(*this, v, "ActivationHessian");
  weights_.confirm("ActivationHessian");
  Vector result(v.size());
  const double scale = 1 / static_cast<double>(graphs_.sizes().samples());
  graphs_.for_each(
      [this](std::size_t b) { return build(b); },
      [&](std::size_t b, const GradientGraph& graph) { return graph.apply(std::span(&v[b], 1)); },
      [&](std::size_t b, Vector product) {
        result[b] = product[0].unique() ? product[0] : product[0].clone();
        rescale({result[b]}, scale);
      });
  return result;
}

std::vector<QuadraticForms> ActivationHessian::quadratic_forms(std::span<const Vector> vectors) const {
  for (const Vector& v : vectors) check_blocks(*this, v, "ActivationHessian");
  weights_.confirm("ActivationHessian");
  const std::size_t microbatches = graphs_.sizes().count();
  std::vector<QuadraticForms> result(vectors.size());
  for (QuadraticForms& f : result) {
    f.blocks.assign(microbatches, 0.0);
    f.subsets.assign(microbatches, std::vector<double>(microbatches, 0.0));
  }
  const auto compute = [&](std::size_t b, const GradientGraph& graph) {
    std::vector<double> forms;
    for (const Vector& v : vectors) {
      forms.push_back(v[b].defined() ? block_dot(v[b], graph.apply(std::span(&v[b], 1))[0]) : 0.0);
    }
    return forms;
  };
  graphs_.for_each([this](std::size_t b) { return build(b); }, compute,
                   [&](std::size_t b, const std::vector<double>& forms) {
                     for (std::size_t k = 0; k < forms.size(); ++k) {
                       result[k].blocks[b] = forms[k] / static_cast<double>(graphs_.sizes().samples());
                       result[k].subsets[b][b] = forms[k] / static_cast<double>(graphs_.sizes()[b]);
                     }
                   });
  return result;
}

std::vector<double> ActivationHessian::per_sample_forms(const Vector& v) const {
  check_blocks(*this, v, "ActivationHessian");
  weights_.confirm("ActivationHessian");
  std::vector<double> forms;
  graphs_.for_each(
      [this](std::size_t b) { return build(b); },
      [&](std::size_t b, const GradientGraph& graph) { return graph.apply(std::span(&v[b], 1)); },
      [&](std::size_t b, const Vector& product) {
        for (std::int64_t n = 0; n < graphs_.sizes()[b]; ++n) {
          forms.push_back(v[b].defined() ? block_dot(rows(v[b], n, n + 1), rows(product[0], n, n + 1)) : 0.0);
        }
      });
  return forms;
}

Vector ActivationHessian::per_sample_gradients() const {
  weights_.confirm("ActivationHessian");
  Vector result(graphs_.sizes().count());
  graphs_.for_each([this](std::size_t b) { return build(b); },
                   [](std::size_t, const GradientGraph& graph) { return graph.gradient()[0].value(); },
                   [&](std::size_t b, const Tensor& gradient) { result[b] = gradient; });
  return result;
}

}  // namespace goshawk
