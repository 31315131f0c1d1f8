// Classifiers small enough for a dense Hessian, with their layers recorded by hand.
#pragma once

#include <string>
#include <vector>

#include "autograd/curvature/exact_traces.hpp"
#include "tests/autograd/curvature/small_problems.hpp"

namespace goshawk::testing {

enum class Architecture : std::uint8_t {
  plain,     ///< conv 3×3 – relu – conv 3×3 / 2 – relu – global average pool – linear
  residual,  ///< conv – bn (eval) – relu – [conv – bn – relu – conv – bn + identity – relu] – max pool – … –
             ///< linear with bias
  pooled,  ///< conv 1×3 – relu – average pool – conv 3×1 / 2 – relu – flatten – linear – relu – linear
  grouped,  ///< conv 3×3 in two groups – relu – depthwise conv 3×3 / 2 – relu – global average pool – linear
  tanh,  ///< plain with tanh
};

/// Weights (all layers', in order), pictures and labels, cut into microbatches.
struct ClassifierNet {
  static constexpr std::int64_t kClasses = 4;

  Architecture architecture;
  std::vector<std::int64_t> sizes;
  std::vector<std::string> names;
  std::vector<Variable> weights;
  std::vector<Tensor> images, labels;
  std::vector<Tensor> scales, shifts;  // of batch norms in eval mode
  Tensor bias;

  ClassifierNet(Architecture a, const std::vector<std::int64_t>& microbatches, DType dtype = DType::f64,
                double weight_scale = 0.6)
      : architecture(a), sizes(microbatches) {
    std::vector<Shape> shapes;
    switch (a) {
      case Architecture::plain:
      case Architecture::tanh:
        shapes = {{3, 3, 2, 3}, {3, 3, 3, 3}, {3, kClasses}};
        break;
      case Architecture::residual:
        shapes = {{3, 3, 2, 3}, {3, 3, 3, 3}, {3, 3, 3, 3}, {3, kClasses}};
        break;
      case Architecture::pooled:
        shapes = {{1, 3, 2, 3}, {3, 1, 3, 4}, {16, 5}, {5, kClasses}};
        break;
      case Architecture::grouped:
        shapes = {{3, 3, 1, 4}, {3, 3, 1, 4}, {4, kClasses}};
        break;
    }
    Random random(5, 0);
    for (const Shape& shape : shapes) {
      const Tensor w = random_normal(shape, DType::f64, random);
      rescale({w}, weight_scale);
      weights.push_back(Variable::leaf(w.to(dtype)));
      names.push_back("layer" + std::to_string(names.size()));
    }
    for (int i = 0; i < 3; ++i) {
      scales.push_back(random_uniform({3}, DType::f64, random, 0.5, 1.5).to(dtype));
      shifts.push_back(random_normal({3}, DType::f64, random).to(dtype));
    }
    bias = random_normal({kClasses}, DType::f64, random).to(dtype);
    // Drawn sample by sample, so that the data set does not depend on how it is cut.
    Random pictures(5, 1), classes(5, 2);
    for (std::int64_t n : sizes) {
      images.push_back(random_normal({n, 6, 6, 2}, DType::f64, pictures).to(dtype));
      std::vector<std::int64_t> y;
      for (std::int64_t i = 0; i < n; ++i) y.push_back(static_cast<std::int64_t>(classes.below(kClasses)));
      labels.push_back(Tensor::from(y, {n}));
    }
  }

  ClassifierGraph graph(std::size_t b) const {
    ClassifierGraph g;
    g.labels = labels[b];
    const auto add_site = [&](LinearKind kind, const Variable& x, const ConvParams& params) {
      LinearSite site;
      site.name = names[g.sites.size()];
      site.kind = kind;
      site.weight = weights[g.sites.size()];
      site.input = x.requires_grad() ? reshape(x, x.shape()) : Variable::leaf(x.value());
      site.params = params;
      site.output = kind == LinearKind::conv2d ? conv2d(site.input, site.weight, params)
                                               : matmul(site.input, site.weight);
      g.sites.push_back(site);
      return site.output;
    };
    const auto conv = [&](const Variable& x, const ConvParams& p) {
      return add_site(LinearKind::conv2d, x, p);
    };
    const auto linear = [&](const Variable& x) { return add_site(LinearKind::linear, x, {}); };
    const ConvParams same{.pad_h = 1, .pad_w = 1};
    const ConvParams strided{.stride_h = 2, .stride_w = 2, .pad_h = 1, .pad_w = 1};
    switch (architecture) {
      case Architecture::plain:
      case Architecture::tanh: {
        const auto activate = [&](const Variable& v) {
          return architecture == Architecture::plain ? relu(v) : goshawk::tanh(v);
        };
        g.logits = linear(global_avg_pool(activate(conv(activate(conv(images[b], same)), strided))));
        break;
      }
      case Architecture::residual: {
        const auto norm = [&](const Variable& v, std::size_t i, const Variable& residual) {
          return channel_affine(v, scales[i], shifts[i], {.relu = true, .residual = residual});
        };
        const Variable x = norm(conv(images[b], same), 0, {});
        const Variable y = norm(conv(norm(conv(x, same), 1, {}), same), 2, x);
        const PoolParams pool{.kernel_h = 2, .kernel_w = 2, .stride_h = 2, .stride_w = 2};
        g.logits = add(linear(global_avg_pool(max_pool2d(y, pool))), bias);
        break;
      }
      case Architecture::pooled: {
        const PoolParams pool{.kernel_h = 2, .kernel_w = 2, .stride_h = 2, .stride_w = 2};
        const Variable x = avg_pool2d(relu(conv(images[b], {.pad_w = 1})), pool);
        const Variable y = relu(conv(x, {.stride_h = 2, .stride_w = 2, .pad_h = 1}));
        g.logits = linear(relu(linear(reshape(y, {sizes[b], -1}))));
        break;
      }
      case Architecture::grouped: {
        const Variable x = relu(conv(images[b], {.pad_h = 1, .pad_w = 1, .groups = 2}));
        const ConvParams depthwise{.stride_h = 2, .stride_w = 2, .pad_h = 1, .pad_w = 1, .groups = 4};
        g.logits = linear(global_avg_pool(relu(conv(x, depthwise))));
        break;
      }
    }
    return g;
  }
  ClassifierPass pass() const {
    return [this](std::size_t b) { return graph(b); };
  }
  HessianOperator hessian() const {
    return {weights, sizes, [this](std::size_t b) {
              const ClassifierGraph g = graph(b);
              return softmax_cross_entropy(g.logits, g.labels);
            }};
  }
};

inline const std::vector<Architecture> kPiecewiseLinear{Architecture::plain, Architecture::residual,
                                                        Architecture::pooled, Architecture::grouped};

}  // namespace goshawk::testing
