#include <doctest/doctest.h>

#include "autograd/grad.hpp"
#include "autograd/linearity.hpp"
#include "autograd/ops.hpp"
#include "core/random.hpp"

using namespace goshawk;

namespace {

using V = std::vector<Variable>;

Tensor normal(const Shape& shape, std::uint64_t seed) {
  Random random(seed, 4);
  return random_normal(shape, DType::f64, random);
}

enum class Norm : std::uint8_t { eval, train };

// conv → norm → activation → residual block (conv → norm + skip → relu) → max pool → average pool → linear.
struct Net {
  Variable image = Variable::leaf(normal({2, 6, 6, 3}, 1));
  Variable conv1 = Variable::leaf(normal({3, 3, 3, 4}, 2)), conv2 = Variable::leaf(normal({3, 3, 4, 4}, 3));
  Variable gamma = Variable::leaf(normal({4}, 4)), beta = Variable::leaf(normal({4}, 5));
  Variable fc = Variable::leaf(normal({4, 3}, 6));

  Variable normalise(const Variable& x, Norm norm, const Epilogue& epilogue) const {
    if (norm == Norm::train) return batch_norm_train(x, gamma, beta, 1e-5, epilogue).y;
    return batch_norm_eval(x, gamma, beta, normal({4}, 7), Tensor::full({4}, DType::f64, 0.5), 1e-5,
                           epilogue);
  }
  Variable logits(Norm norm, Variable (*activation)(const Variable&)) const {
    const ConvParams same{.pad_h = 1, .pad_w = 1};
    const Variable a = activation(normalise(conv2d(image, conv1, same), norm, {}));
    const Variable b = normalise(conv2d(a, conv2, same), norm, {.relu = true, .residual = a});
    return matmul(global_avg_pool(max_pool2d(b, {})), fc);
  }
};

const char* offender(const Variable& output, const Variable& input) {
  const Op* op = first_nonlinear_op(output, input);
  return op == nullptr ? "none" : op->name.c_str();
}

}  // namespace

TEST_CASE("the logits of a ReLU net are piecewise linear in each layer's weights and in the image") {
  const Net net;
  const Variable logits = net.logits(Norm::eval, relu);
  for (const Variable& w : {net.conv1, net.conv2, net.fc, net.image}) {
    CHECK(piecewise_linear(logits, w));
    // So their second derivative is zero.
    const Variable g = grad(dot(logits, normal({2, 3}, 8)), V{w}, {.create_graph = true})[0];
    if (!g.requires_grad()) continue;
    const Tensor h =
        grad(std::span(&g, 1), V{w}, {.grad_outputs = {normal(w.shape(), 9)}, .allow_unused = true})[0]
            .value();
    for (double value : h.span<double>()) CHECK(value == 0);
  }
  // Gamma scales both normalisations, and the second one's input depends on the first: a product.
  CHECK(offender(logits, net.gamma) == std::string("channel_affine"));
  CHECK(piecewise_linear(logits, net.beta));
  CHECK(offender(softmax_cross_entropy(logits, Tensor::from<std::int64_t>({0, 2}, {2})), net.fc) ==
        std::string("softmax_cross_entropy"));
}

TEST_CASE("what is not piecewise linear is named, the oldest first") {
  const Net net;
  const Variable smooth = net.logits(Norm::eval, tanh);
  CHECK(offender(smooth, net.conv1) == std::string("tanh"));
  CHECK(piecewise_linear(smooth, net.conv2));  // the tanh is not on its path
  const Variable train = net.logits(Norm::train, relu);
  CHECK(offender(train, net.conv1) == std::string("batch_norm_train"));
  CHECK(offender(train, net.conv2) == std::string("batch_norm_train"));
  CHECK(piecewise_linear(train, net.fc));
}

TEST_CASE("a product of two branches is not linear in what they share") {
  const Variable x = Variable::leaf(normal({4}, 1)), y = Variable::leaf(normal({4}, 2));
  CHECK(offender(mul(relu(x), scale(x, 2)), x) == std::string("mul"));
  CHECK(offender(exp(mul(x, x)), x) == std::string("mul"));
  CHECK(piecewise_linear(mul(relu(x), scale(y, 2)), x));
  CHECK(piecewise_linear(add(relu(x), scale(x, 2)), x));
  CHECK(offender(div(y, x), y) == std::string("div"));  // nothing is known of one input of a general op
  CHECK(piecewise_linear(exp(y), x));
  CHECK(piecewise_linear(x, x));
  CHECK_THROWS_WITH_AS(piecewise_linear(x, Variable(normal({4}, 1))), doctest::Contains("is a constant"),
                       Error);
}
