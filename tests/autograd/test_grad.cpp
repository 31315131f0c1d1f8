#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <type_traits>

#include "autograd/grad.hpp"
#include "autograd/ops.hpp"
#include "core/random.hpp"

using namespace goshawk;

namespace {

Variable leaf(double value) {
  return Variable::leaf(Tensor::scalar(value, DType::f64));
}

template <class T>
Tensor normal_as(const Shape& shape, std::uint64_t seed) {
  Random random(seed);
  return random_normal(shape, dtype_of<T>, random);
}

double inner(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  double s = 0;
  for (std::size_t k = 0; k < a.size(); ++k) {
    for (std::int64_t i = 0; i < a[k].numel(); ++i) s += a[k].data<double>()[i] * b[k].data<double>()[i];
  }
  return s;
}

// A small residual network; `activation` is tanh or relu.
struct Net {
  explicit Net(Variable (*activation_function)(const Variable&)) : activation(activation_function) {
    Random random(11);
    x = random_normal({6, 7, 7, 3}, DType::f64, random);
    labels = Tensor::from<std::int64_t>({0, 3, 1, 2, 3, 0}, {6});
    for (const Shape& shape : {Shape{3, 3, 3, 4}, Shape{3, 3, 4, 4}, Shape{4}, Shape{4}, Shape{4, 4}}) {
      parameters.push_back(Variable::leaf(random_normal(shape, DType::f64, random)));
    }
  }

  Variable loss(const std::vector<Variable>& w) const {
    const ConvParams stride2{.stride_h = 2, .stride_w = 2, .pad_h = 1, .pad_w = 1};
    const ConvParams same{.pad_h = 1, .pad_w = 1};
    const Variable a = activation(conv2d(x, w[0], stride2));
    const Variable b = batch_norm_train(conv2d(a, w[1], same), w[2], w[3], 1e-5).y;
    return softmax_cross_entropy(matmul(global_avg_pool(activation(a + b)), w[4]), labels);
  }
  Variable loss() const { return loss(parameters); }

  std::vector<Tensor> random_direction(std::uint64_t seed) const {
    Random random(seed, 5);
    std::vector<Tensor> v;
    for (const Variable& p : parameters) v.push_back(random_normal(p.shape(), DType::f64, random));
    return v;
  }
  // The gradient at parameters + h v.
  std::vector<Tensor> gradient_at(const std::vector<Tensor>& v, double h) const {
    std::vector<Variable> moved;
    for (std::size_t k = 0; k < v.size(); ++k) {
      Tensor t = parameters[k].value().clone();
      for (std::int64_t i = 0; i < t.numel(); ++i) t.data<double>()[i] += h * v[k].data<double>()[i];
      moved.push_back(Variable::leaf(t));
    }
    std::vector<Tensor> g;
    for (const Variable& d : grad(loss(moved), moved)) g.push_back(d.value());
    return g;
  }

  Variable (*activation)(const Variable&);
  Variable x;
  Tensor labels;
  std::vector<Variable> parameters;
};

double hvp_error_against_central_difference(const Net& net, double h) {
  const auto v = net.random_direction(1);
  const auto product = hvp(net.loss(), net.parameters, v);
  const auto plus = net.gradient_at(v, h), minus = net.gradient_at(v, -h);
  double difference = 0, size = 0;
  for (std::size_t k = 0; k < v.size(); ++k) {
    for (std::int64_t i = 0; i < v[k].numel(); ++i) {
      const double numeric = (plus[k].data<double>()[i] - minus[k].data<double>()[i]) / (2 * h);
      difference += std::pow(product[k].data<double>()[i] - numeric, 2);
      size += numeric * numeric;
    }
  }
  return std::sqrt(difference / size);
}

}  // namespace

TEST_CASE("gradients are values: repeated calls on one graph do not accumulate") {
  const Variable x = leaf(3);
  const Variable y = x * x;
  for (int i = 0; i < 3; ++i) CHECK(grad(y, std::vector{x})[0].item() == 6);
}

TEST_CASE("derivatives of x⁴ to fourth order") {
  const Variable x = leaf(2);
  Variable d = x * x * x * x;
  for (const double expected : {32.0, 48.0, 48.0, 24.0}) {
    d = grad(d, std::vector{x}, {.create_graph = true})[0];
    CHECK(d.item() == doctest::Approx(expected).epsilon(1e-14));
  }
}

TEST_CASE_TEMPLATE(
    "gradients collected in place equal those of a recorded pass, and leave everybody's tensors alone", T,
    float, double) {
  Random random(31);
  const auto normal = [&](const Shape& shape) { return random_normal(shape, dtype_of<T>, random); };
  constexpr std::int64_t n = std::is_same_v<T, float> ? 16 : 4;  // floats by Winograd's convolution
  const Variable x = Variable::leaf(normal({9, 6, 6, n})), w = Variable::leaf(normal({3, 3, n, n}));
  const Variable gamma = Variable::leaf(normal({n})), beta = Variable::leaf(normal({n}));
  const ConvParams same{.pad_h = 1, .pad_w = 1};
  // One tensor is the input of convolutions, normalisations, residuals and sums, in every order.
  const Variable a = conv2d(x, w, same);
  const Variable b = batch_norm_train(a, gamma, beta, 1e-5, {.relu = true, .residual = a}).y;
  const Variable c = channel_affine(conv2d(b, w, same), gamma, beta, {.relu = false, .residual = a + b});
  const Variable y =
      conv2d(a, w, same) + channel_affine(a, gamma, beta, {.relu = true, .residual = c}) + a + b;
  const std::vector<Variable> inputs{x, a, b, w, gamma, beta};
  const Tensor seed = normal(y.shape()), seed_before = seed.clone();
  const auto values = [&](bool create_graph) {
    std::vector<std::vector<T>> all;
    for (const Variable& g :
         grad(std::span(&y, 1), inputs, {.grad_outputs = {seed}, .create_graph = create_graph})) {
      all.push_back(g.value().to_vector<T>());
    }
    return all;
  };
  const auto recorded = values(true);
  CHECK(values(false) == recorded);
  CHECK(values(false) == recorded);
  CHECK(seed.to_vector<T>() == seed_before.to_vector<T>());
}

TEST_CASE("in a recorded gradient the convolution adds what the shortcut past it has brought") {
  const ConvParams same{.pad_h = 1, .pad_w = 1};
  const Variable x = Variable::leaf(normal_as<double>({2, 5, 5, 3}, 1)),
                 w = Variable::leaf(normal_as<double>({3, 3, 3, 3}, 2));
  const Variable y = conv2d(relu(conv2d(x, w, same)), w, same, {}, {.relu = true, .residual = x});
  const std::vector<std::string> ops =
      graph_ops(grad(sum(y), std::vector{x}, {.create_graph = true}).front());
  CHECK(std::count(ops.begin(), ops.end(), "conv2d_input_grad") == 1);
  CHECK(std::count(ops.begin(), ops.end(), "add") == 0);
}

TEST_CASE("several outputs, several inputs, and an input in the middle of the graph") {
  const Variable x = leaf(2), y = leaf(5);
  const Variable z = x * y;
  const std::vector<Variable> outputs{z * z, z + x};
  const auto g = grad(outputs, std::vector{x, y, z});
  CHECK(g[0].item() == 2 * 10 * 5 + 5 + 1);
  CHECK(g[1].item() == 2 * 10 * 2 + 2);
  CHECK(g[2].item() == 2 * 10 + 1);
}

TEST_CASE_TEMPLATE("a NaN goes through a ReLU, and so does what comes back to it", T, float, double) {
  const T nan = std::numeric_limits<T>::quiet_NaN();
  const Variable x = Variable::leaf(Tensor::from<T>({nan, T{-0.0}, 0, 2, -2, nan}, {6}));
  const Variable y = relu(x);
  const T* const found = y.value().template data<T>();
  CHECK(std::isnan(found[0]));
  CHECK(std::isnan(found[5]));
  for (int i = 1; i < 5; ++i) CHECK(found[i] == (i == 3 ? 2 : 0));
  CHECK_FALSE(std::signbit(found[1]));
  const Tensor back = grad(sum(y), std::vector{x})[0].value();
  for (int i = 0; i < 6; ++i) CHECK(back.data<T>()[i] == (i == 0 || i == 3 || i == 5 ? 1 : 0));

  // A network with one such weight has no finite loss, and every weight says so.
  const Variable w1 = Variable::leaf(normal_as<T>({3, 3, 3, 4}, 1)),
                 w2 = Variable::leaf(normal_as<T>({4, 5}, 2));
  w1.value().template data<T>()[0] = nan;
  const Variable gamma = Variable::leaf(Tensor::full({4}, dtype_of<T>, 1)),
                 beta = Variable::leaf(Tensor::zeros({4}, dtype_of<T>));
  const Variable c = conv2d(normal_as<T>({2, 6, 6, 3}, 3), w1, {});
  for (const Variable& h : {relu(c), batch_norm_train(c, gamma, beta, 1e-5, {.relu = true}).y,
                            batch_norm_train(c, gamma, beta, 1e-5, {.relu = true, .residual = c}).y}) {
    const Variable loss =
        softmax_cross_entropy(matmul(global_avg_pool(h), w2), Tensor::from<std::int64_t>({1, 4}, {2}));
    CHECK(std::isnan(loss.item()));
    for (const Variable& g : grad(loss, std::vector{w1, w2})) {
      CHECK(std::isnan(sum(mul(g, g)).item()));
    }
  }
}

TEST_CASE("an undefined seed is zero, and only an input off every path is refused") {
  const Variable x = leaf(2), z = leaf(3), unused = leaf(4);
  const std::vector<Variable> y{x * x, x * z};
  GradOptions options{.grad_outputs = {Variable(), Variable()}};
  for (const Variable& g : grad(y, std::vector{x, z}, options)) CHECK(g.item() == 0);
  options.grad_outputs[0] = Tensor::scalar(1, DType::f64);
  const std::vector<Variable> g = grad(y, std::vector{x, z}, options);
  CHECK(g[0].item() == 4);
  CHECK(g[1].item() == 0);
  CHECK_THROWS_WITH_AS(grad(y, std::vector{x, unused}, options),
                       doctest::Contains("no output depends on input 1"), Error);
}

// What ends an epoch, or a filter that passes nothing.
TEST_CASE_TEMPLATE("without elements an op has derivatives without elements, or zero, to second order", T,
                   float, double) {
  using Inputs = std::vector<Variable>;
  struct Case {
    const char* name;
    std::vector<Shape> inputs;
    std::function<Variable(const Inputs&)> f;
  };
  const PoolParams pool{.kernel_h = 2, .kernel_w = 2, .stride_h = 2, .stride_w = 2};
  const Case cases[] = {
      {"matmul, nothing to sum", {{3, 0}, {0, 4}}, [](const Inputs& v) { return matmul(v[0], v[1]); }},
      {"matmul, no rows", {{0, 3}, {3, 4}}, [](const Inputs& v) { return matmul(v[0], v[1]); }},
      {"matmul, no columns", {{2, 3}, {3, 0}}, [](const Inputs& v) { return matmul(v[0], v[1]); }},
      {"conv2d",
       {{0, 5, 5, 16}, {3, 3, 16, 16}},
       [](const Inputs& v) { return conv2d(v[0], v[1], {.pad_h = 1, .pad_w = 1}); }},
      {"conv2d, bias, ReLU",
       {{0, 5, 5, 3}, {3, 3, 3, 4}, {4}},
       [](const Inputs& v) {
         return conv2d(v[0], v[1], {.stride_h = 2, .stride_w = 2}, v[2], {.relu = true});
       }},
      {"depthwise",
       {{0, 5, 5, 4}, {3, 3, 1, 4}},
       [](const Inputs& v) { return conv2d(v[0], v[1], {.groups = 4}); }},
      {"channel_affine",
       {{0, 5, 5, 4}, {4}, {4}, {0, 5, 5, 4}},
       [](const Inputs& v) { return channel_affine(v[0], v[1], v[2], {.relu = true, .residual = v[3]}); }},
      {"avg_pool2d", {{0, 4, 4, 3}}, [&](const Inputs& v) { return avg_pool2d(v[0], pool); }},
      {"max_pool2d", {{0, 4, 4, 3}}, [&](const Inputs& v) { return max_pool2d(v[0], pool); }},
      {"global_avg_pool", {{0, 4, 4, 3}}, [](const Inputs& v) { return global_avg_pool(v[0]); }},
      {"log_softmax", {{0, 4}}, [](const Inputs& v) { return log_softmax(v[0]); }},
      {"exp and log", {{0, 4}}, [](const Inputs& v) { return exp(v[0]) * log(v[0]); }},
  };
  for (const Case& c : cases) {
    INFO(c.name);
    Inputs inputs;
    std::vector<Tensor> direction;
    for (const Shape& shape : c.inputs) {
      inputs.push_back(Variable::leaf(normal_as<T>(shape, 3)));
      direction.push_back(normal_as<T>(shape, 4));
    }
    const Variable y = c.f(inputs), loss = sum(y * y);
    CHECK(loss.item() == 0);
    for (const HvpRoad road : {HvpRoad::reverse_over_reverse, HvpRoad::forward_over_reverse}) {
      const std::vector<Tensor> products = hvp(loss, inputs, direction, road);
      const std::vector<Variable> gradients = grad(loss, inputs);
      for (std::size_t k = 0; k < inputs.size(); ++k) {
        for (const Tensor& t : {products[k], gradients[k].value()}) {
          CHECK(t.shape() == inputs[k].shape());
          CHECK(t.to_vector<T>() == std::vector<T>(static_cast<std::size_t>(t.numel())));
        }
      }
    }
  }
  const Variable none = Variable::leaf(Tensor::zeros({0, 5, 5, 4}, dtype_of<T>)),
                 four = Tensor::zeros({4}, dtype_of<T>);
  CHECK_THROWS_WITH_AS(batch_norm_train(none, four, four, 1e-5), doctest::Contains("no elements"), Error);
}

TEST_CASE_TEMPLATE("elementary functions and their derivatives at infinity", T, float, double) {
  const double inf = std::numeric_limits<double>::infinity();
  struct Case {
    const char* name;
    Variable (*f)(const Variable&);
    double x, y, first, second;
  };
  const Case cases[] = {
      {"exp", exp, -inf, 0, 0, 0},
      {"exp", exp, inf, inf, inf, inf},
      {"log", log, 0, -inf, inf, -inf},
      {"log", log, inf, inf, 0, 0},
      {"sqrt", sqrt, 0, 0, inf, -inf},
      {"sqrt", sqrt, inf, inf, 0, 0},
      {"rsqrt", rsqrt, 0, inf, -inf, inf},
      {"rsqrt", rsqrt, inf, 0, 0, 0},
      {"tanh", goshawk::tanh, -inf, -1, 0, 0},
      {"tanh", goshawk::tanh, inf, 1, 0, 0},
      {"sigmoid", sigmoid, -inf, 0, 0, 0},
      {"sigmoid", sigmoid, inf, 1, 0, 0},
      {"softplus", softplus, -inf, 0, 0, 0},
      {"softplus", softplus, inf, inf, 1, 0},
      {"relu", relu, -inf, 0, 0, 0},
      {"relu", relu, inf, inf, 1, 0},
  };
  for (const Case& c : cases) {
    INFO(c.name, " at ", c.x);
    const Variable x = Variable::leaf(Tensor::scalar(c.x, dtype_of<T>)), y = c.f(x);
    const Variable first = grad(y, std::vector{x}, {.create_graph = true})[0];
    CHECK(y.item() == c.y);
    CHECK(first.item() == c.first);
    const double second =
        first.requires_grad() ? grad(first, std::vector{x}, {.allow_unused = true})[0].item() : 0;
    CHECK(second == c.second);
  }
}

TEST_CASE("nothing has no mean") {
  const Variable empty = Variable::leaf(Tensor::zeros({0, 4}, DType::f64));
  CHECK_THROWS_WITH_AS(mean(empty), doctest::Contains("[mean] a tensor of shape [0, 4] has no elements"),
                       Error);
  CHECK_THROWS_AS(softmax_cross_entropy(empty, Tensor::zeros({0}, DType::i64)), Error);
  CHECK(softmax_cross_entropy(empty, Tensor::zeros({0}, DType::i64), Reduction::sum).item() == 0);
}

TEST_CASE("errors say what was wrong and what to do") {
  const Variable x = leaf(1), unused = leaf(1);
  const Variable constant = Tensor::scalar(1, DType::f64);
  CHECK_THROWS_WITH_AS(
      grad(x * x, std::vector{constant}),
      "[grad] input 0 (shape []) is a constant; make it with Variable::leaf, or compute it from one "
      "while recording is on",
      Error);
  CHECK_THROWS_WITH_AS(
      grad(x * x, std::vector{x, unused}),
      "[grad] no output depends on input 1 (shape []); leave it out, or set allow_unused for a zero gradient",
      Error);
  CHECK(grad(x * x, std::vector{x, unused}, {.allow_unused = true})[1].item() == 0);
  const Variable v = Variable::leaf(Tensor::zeros({3}, DType::f64));
  CHECK_THROWS_AS(grad(v * v, std::vector{v}), Error);
  CHECK_THROWS_AS(grad(v * v, std::vector{v}, {.grad_outputs = {Tensor::zeros({2}, DType::f64)}}), Error);
  CHECK_THROWS_AS(GradientGraph(v * v, {v}), Error);
  const std::vector<Tensor> wrong{Tensor::zeros({2}, DType::f64)};
  CHECK_THROWS_AS(hvp(sum(v * v), std::vector{v}, wrong), Error);
}

TEST_CASE("indexing by value: lattices with steps, repeated indices, none, and what lies outside") {
  const Variable x = Variable::leaf(Tensor::from<double>({0, 1, 2, 3, 4, 10, 11, 12, 13, 14}, {2, 5}));
  const auto values = [](const Variable& v) { return v.value().to_vector<double>(); };
  CHECK(values(slice(x, {{0, 1}, {1, 2}}, {2, 2})) == std::vector<double>{1, 3, 11, 13});
  CHECK(slice(x, {{0, 5}, {1, 2}}, {2, 0}).shape() == Shape{2, 0});
  CHECK(values(slice(Variable(Tensor::scalar(7, DType::f64)), {{}, {}}, {})) == std::vector<double>{7});
  CHECK(values(unslice(Tensor::from<double>({1, 2, 3, 4}, {2, 2}), {{0, 1}, {1, 2}}, {2, 5})) ==
        std::vector<double>{0, 1, 0, 2, 0, 0, 3, 0, 4, 0});
  CHECK_THROWS_AS(slice(x, {{0, 1}, {1, 2}}, {2, 3}), Error);
  CHECK_THROWS_AS(slice(x, {{0, 0}, {1, 0}}, {2, 5}), Error);
  CHECK_THROWS_AS(slice(x, {{0, -1}, {1, 1}}, {2, 5}), Error);
  // Four of these steps are more than 64 bits hold.
  const Variable row = Variable::leaf(Tensor::zeros({5}, DType::f64));
  CHECK_THROWS_AS(slice(row, {{0}, {std::int64_t{1} << 61}}, {5}), Error);

  const auto index = [](std::vector<std::int64_t> at) {
    const auto n = static_cast<std::int64_t>(at.size());
    return Tensor::from(at, {n});
  };
  CHECK(values(gather(x, index({9, 0, 9}))) == std::vector<double>{14, 0, 14});
  CHECK(gather(x, Tensor::zeros({0, 3}, DType::i64)).shape() == Shape{0, 3});
  CHECK(values(scatter_add(Tensor::from<double>({1, 2, 4}, {3}), index({1, 3, 1}), {2, 2})) ==
        std::vector<double>{0, 5, 0, 2});
  CHECK_THROWS_AS(gather(x, index({10})), Error);
  CHECK_THROWS_AS(gather(x, index({-1})), Error);
  CHECK_THROWS_AS(scatter_add(Tensor::zeros({1}, DType::f64), index({4}), {2, 2}), Error);
}

TEST_CASE("lattices of more elements than one task copies") {
  const Shape whole{9, 41, 53, 7};
  const Tensor x = Tensor::empty(whole, DType::f64);
  double next = 1;
  for (double& v : x.span<double>()) v = next++;
  struct LatticeCase {
    Lattice lattice;
    Shape extents;
  };
  // Rows along the last dimension, and single elements.
  for (const LatticeCase& c : {LatticeCase{{{1, 0, 2, 1}, {2, 1, 1, 1}}, {4, 41, 51, 5}},
                               LatticeCase{{{0, 1, 0, 0}, {1, 1, 2, 3}}, {9, 40, 27, 3}}}) {
    CAPTURE(c.extents);
    const auto at = [&lattice = c.lattice](std::int64_t i, std::size_t d) {
      return lattice.start[d] + i * lattice.step[d];
    };
    const Tensor part = slice(x, c.lattice, c.extents).value(),
                 back = unslice(part, c.lattice, whole).value();
    std::int64_t wrong = 0;
    const double* v = part.data<double>();
    std::vector<double> expected(static_cast<std::size_t>(whole.numel()), 0.0);
    for (std::int64_t a = 0; a < c.extents[0]; ++a) {
      for (std::int64_t b = 0; b < c.extents[1]; ++b) {
        for (std::int64_t e = 0; e < c.extents[2]; ++e) {
          for (std::int64_t f = 0; f < c.extents[3]; ++f) {
            const std::int64_t place =
                ((at(a, 0) * whole[1] + at(b, 1)) * whole[2] + at(e, 2)) * whole[3] + at(f, 3);
            const double value = static_cast<double>(place + 1);
            wrong += *v++ == value ? 0 : 1;
            expected[static_cast<std::size_t>(place)] = value;
          }
        }
      }
    }
    CHECK(wrong == 0);
    CHECK(back.to_vector<double>() == expected);
  }
}

TEST_CASE("Hessian-vector products against central differences of the gradient") {
  // Smooth: any small step. ReLU: a step so small that no unit flips.
  CHECK(hvp_error_against_central_difference(Net(tanh), 1e-5) < 1e-6);
  CHECK(hvp_error_against_central_difference(Net(relu), 1e-7) < 1e-6);
}

TEST_CASE("the Hessian is symmetric, linear, and replayed from one graph") {
  const Net net(relu);
  const GradientGraph graph(net.loss(), net.parameters);
  const auto u = net.random_direction(2), v = net.random_direction(3);
  const auto hu = graph.apply(u), hv = graph.apply(v);
  const double uhv = inner(u, hv), vhu = inner(v, hu);
  CHECK(std::abs(uhv - vhu) <= 1e-10 * std::abs(uhv));
  // A replay leaves nothing behind.
  const auto again = graph.apply(u);
  for (std::size_t k = 0; k < u.size(); ++k) CHECK(again[k].to_vector<double>() == hu[k].to_vector<double>());
  CHECK(graph.loss() == net.loss().item());
}

TEST_CASE("a zero block may be left undefined") {
  const Net net(tanh);
  const GradientGraph graph(net.loss(), net.parameters);
  auto v = net.random_direction(4);
  v[2] = Tensor::zeros_like(v[2]);
  const auto expected = graph.apply(v);
  v[2] = Tensor();
  const auto product = graph.apply(v);
  for (std::size_t k = 0; k < v.size(); ++k)
    CHECK(product[k].to_vector<double>() == expected[k].to_vector<double>());
}

TEST_CASE("closed form: least squares has the Hessian 2/N XᵀX") {
  Random random(3);
  const Tensor x = random_normal({20, 4}, DType::f64, random), y = random_normal({20, 1}, DType::f64, random);
  const Variable w = Variable::leaf(random_normal({4, 1}, DType::f64, random));
  const Variable residual = matmul(x, w) - Variable(y);
  const GradientGraph graph(mean(residual * residual), {w});
  const Tensor gram = matmul(x, x, true).value();
  for (int column = 0; column < 4; ++column) {
    Tensor e = Tensor::zeros({4, 1}, DType::f64);
    e.data<double>()[column] = 1;
    const auto h = graph.apply(std::vector{e});
    for (int row = 0; row < 4; ++row) {
      CHECK(h[0].data<double>()[row] ==
            doctest::Approx(2.0 / 20 * gram.data<double>()[row * 4 + column]).epsilon(1e-12));
    }
  }
}

TEST_CASE("cross-entropy keeps its relative precision on saturated samples") {
  // Approx compares with 1 + |expected| by default, beside which these numbers are nothing.
  const auto relative = [](double expected, double epsilon) {
    return doctest::Approx(expected).epsilon(epsilon).scale(0);
  };
  // Margins m = 30, 60 and 90: p − y = −e^−m to first order, far below the rounding of p itself.
  for (const double margin : {30.0, 60.0, 90.0}) {
    const Variable z = Variable::leaf(Tensor::from<double>({margin, 0}, {1, 2}));
    const Tensor label = Tensor::from<std::int64_t>({0}, {1});
    const Variable loss = softmax_cross_entropy(z, label);
    const double q = 1 / (1 + std::exp(margin));
    CHECK(loss.item() == relative(std::log1p(std::exp(-margin)), 1e-14));
    const GradientGraph graph(loss, {z});
    CHECK(graph.gradient()[0].value().data<double>()[0] == relative(-q, 1e-13));
    CHECK(graph.gradient()[0].value().data<double>()[1] == relative(q, 1e-13));
    // The Hessian diag(p) − p pᵀ does not know the label: it is as small where the network is certain and
    // wrong.
    for (const std::int64_t wanted : {0, 1}) {
      const Variable known = softmax_cross_entropy(z, Tensor::from<std::int64_t>({wanted}, {1}));
      for (const HvpRoad road : {HvpRoad::reverse_over_reverse, HvpRoad::forward_over_reverse}) {
        const auto h =
            GradientGraph(known, {z}, road).apply(std::vector{Tensor::from<double>({1.75, 0.75}, {1, 2})});
        CHECK(h[0].data<double>()[0] == relative(q * (1 - q), 1e-13));
        CHECK(h[0].data<double>()[1] == relative(-q * (1 - q), 1e-13));
      }
    }
  }
}

TEST_CASE("gradients visited along several directions are those of grad, one visit for each input") {
  Random random(8);
  const Variable a = Variable::leaf(random_normal({3, 4}, DType::f64, random));
  const Variable b = Variable::leaf(random_normal({4, 2}, DType::f64, random));
  const Variable inside = tanh(matmul(a, b));
  const Variable unused = scale(inside, 3);
  const std::vector<Variable> outputs{mul(inside, inside), add(inside, inside)};
  const std::vector<Variable> inputs{a, inside, b};
  std::vector<std::vector<Variable>> seeds;
  for (int d = 0; d < 3; ++d) {
    seeds.push_back({random_normal({3, 2}, DType::f64, random), random_normal({3, 2}, DType::f64, random)});
  }
  seeds[1][0] = Variable();
  std::vector<std::size_t> visited;
  visit_gradients(outputs, inputs, seeds, [&](std::size_t i, std::span<const Variable> gradients) {
    visited.push_back(i);
    REQUIRE(gradients.size() == 3);
    for (std::size_t d = 0; d < 3; ++d) {
      std::vector<Variable> seed = seeds[d];
      if (!seed[0].defined()) seed[0] = Tensor::zeros({3, 2}, DType::f64);
      const Variable expected = grad(outputs, inputs, {.grad_outputs = seed})[i];
      CHECK_FALSE(gradients[d].requires_grad());
      for (std::int64_t k = 0; k < expected.numel(); ++k) {
        CHECK(std::abs(gradients[d].value().data<double>()[k] - expected.value().data<double>()[k]) < 1e-14);
      }
    }
  });
  CHECK(visited == std::vector<std::size_t>{1, 2, 0});
}

TEST_CASE("a softmax that is nearly certain has a gradient without cancellation") {
  // ∂p₀/∂z = (p₀p₁, −p₀p₁) with p₁ = 2.06e-9, far below f32's rounding of p₀.
  const Variable z = Variable::leaf(Tensor::from<float>({20, 0}, {1, 2}));
  const Variable p = softmax(z);
  const Variable first = sum(mul(p, Tensor::from<float>({1, 0}, {1, 2})));
  const Tensor g = grad(first, std::span(&z, 1))[0].value();
  const double expected = 1 / (std::exp(20.0) + 2 + std::exp(-20.0));
  CHECK(std::abs(g.data<float>()[0] - expected) < 1e-6 * expected);
  CHECK(std::abs(g.data<float>()[1] + expected) < 1e-6 * expected);
}
