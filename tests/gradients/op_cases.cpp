#include "autograd/fallback.hpp"
#include "autograd/grad.hpp"
#include "autograd/ops.hpp"
#include "core/kernels/max_pool.hpp"
#include "op_case.hpp"

using namespace goshawk;
using namespace goshawk::test;

namespace {

using V = std::vector<Variable>;

Tensor labels(std::int64_t n, std::int64_t classes) {
  Tensor t = Tensor::empty({n}, DType::i64);
  for (std::int64_t i = 0; i < n; ++i) t.data<std::int64_t>()[i] = (3 * i + 1) % classes;
  return t;
}

// Away from 0, where relu has a corner.
Tensor off_zero(const Shape& shape, std::uint64_t seed = 1) {
  Tensor t = uniform(shape, 0.2, 2, seed);
  for (std::int64_t i = 0; i < t.numel(); i += 2) t.data<double>()[i] *= -1;
  return t;
}

const AddCases elementwise({
    {"add", [](const V& v) { return add(v[0], v[1]); }, {normal({2, 3, 4}), normal({3, 1}, 2)}},
    {"sub", [](const V& v) { return sub(v[0], v[1]); }, {normal({4}), normal({2, 4}, 2)}},
    {"mul", [](const V& v) { return mul(v[0], v[1]); }, {normal({2, 3}), normal({2, 3}, 2)}},
    {"mul", [](const V& v) { return mul(v[0], v[0]); }, {normal({2, 3})}},
    {"div", [](const V& v) { return div(v[0], v[1]); }, {normal({2, 3}), uniform({3}, 1, 2)}},
    // Both sides grow.
    {"mul", [](const V& v) { return mul(v[0], v[1]); }, {normal({2, 1, 3}), normal({4, 1}, 2)}},
    {"div", [](const V& v) { return div(v[0], v[1]); }, {normal({2, 1, 3}), uniform({4, 1}, 1, 2)}},
    {"mul",
     [](const V& v) {
       return mul(reshape(v[0], {3, 1}), v[0]);
     },
     {normal({3})}},
    {"div",
     [](const V& v) {
       return div(reshape(v[0], {3, 1}), add_scalar(mul(v[0], v[0]), 1));
     },
     {normal({3})}},
    {"scale", [](const V& v) { return mul(scale(v[0], -1.7), v[0]); }, {normal({5})}},
    {"add_scalar", [](const V& v) { return mul(add_scalar(v[0], 0.3), v[0]); }, {normal({5})}},
    {"exp", [](const V& v) { return exp(v[0]); }, {normal({2, 3})}},
    {"log", [](const V& v) { return log(v[0]); }, {uniform({2, 3}, 0.5, 2)}},
    {"sqrt", [](const V& v) { return sqrt(v[0]); }, {uniform({2, 3}, 0.5, 2)}},
    {"rsqrt", [](const V& v) { return rsqrt(v[0]); }, {uniform({2, 3}, 0.5, 2)}},
    {"tanh", [](const V& v) { return tanh(v[0]); }, {normal({2, 3})}},
    {"sigmoid", [](const V& v) { return sigmoid(v[0]); }, {normal({2, 3})}},
    {"softplus", [](const V& v) { return softplus(v[0]); }, {normal({2, 3})}},
    {"relu", [](const V& v) { return mul(relu(v[0]), v[0]); }, {off_zero({3, 5})}},
    {"mask_positive",
     [](const V& v) { return mul(mask_positive(v[0], off_zero({6}, 4)), v[0]); },
     {normal({6})}},
});

const AddCases shapes({
    {"reshape",
     [](const V& v) {
       return mul(reshape(v[0], {3, -1}), v[1]);
     },
     {normal({2, 6}), normal({3, 4}, 2)}},
    {"broadcast_to",
     [](const V& v) {
       return mul(broadcast_to(v[0], {2, 3, 4}), v[1]);
     },
     {normal({3, 1}), normal({2, 3, 4}, 2)}},
    {"sum_to",
     [](const V& v) {
       return mul(sum_to(v[0], {3, 1}), v[1]);
     },
     {normal({2, 3, 4}), normal({3, 1}, 2)}},
    {"slice",
     [](const V& v) {
       return mul(slice(v[0], {{1, 0}, {2, 1}}, {2, 3}), v[1]);
     },
     {normal({5, 3}), normal({2, 3}, 2)}},
    {"slice",
     [](const V& v) {
       return add(sum(slice(v[0], {{0, 1}, {1, 1}}, {0, 2})), mul(sum(v[0]), sum(v[0])));
     },
     {normal({3, 4})}},
    {"unslice",
     [](const V& v) {
       return mul(unslice(v[0], {{0, 1}, {2, 1}}, {4, 5}), v[1]);
     },
     {normal({2, 3}), normal({4, 5}, 2)}},
    {"alias",
     [](const V& v) {
       // Two inputs that depend on each other: each must receive only its own share.
       const Variable x = mul(v[0], v[0]);
       const V inputs{x, mul(x, v[1])};
       return vjp_through_fallback([](const V& u) { return V{mul(exp(u[0]), u[1])}; }, inputs, {v[1]})[0];
     },
     {normal({4}), normal({4}, 2)}},
});

const AddCases products({
    {"matmul", [](const V& v) { return matmul(v[0], v[1]); }, {normal({3, 4}), normal({4, 2}, 2)}},
    {"matmul", [](const V& v) { return matmul(v[0], v[1], true); }, {normal({4, 3}), normal({4, 2}, 2)}},
    {"matmul",
     [](const V& v) { return matmul(v[0], v[1], false, true); },
     {normal({3, 4}), normal({2, 4}, 2)}},
    {"matmul",
     [](const V& v) { return matmul(v[0], v[1], true, true); },
     {normal({4, 3}), normal({2, 4}, 2)}},
    {"matmul", [](const V& v) { return matmul(v[0], v[0], true); }, {normal({3, 3})}},
});

const ConvParams kStride1{.pad_h = 1, .pad_w = 1};
const ConvParams kStride2{.stride_h = 2, .stride_w = 2, .pad_h = 1, .pad_w = 1};
const ConvParams kUneven{.stride_h = 1, .stride_w = 3, .pad_h = 0, .pad_w = 2};

const ConvParams kDepthwise{.pad_h = 1, .pad_w = 1, .groups = 4};
const ConvParams kDepthwiseStride{.stride_h = 2, .stride_w = 3, .pad_h = 1, .groups = 4};
const ConvParams kPairs{.stride_h = 2, .pad_w = 1, .groups = 2};  // two channels to five

std::vector<OpCase> convolution_cases() {
  std::vector<OpCase> cases;
  for (const ConvParams& p : {kStride1, kStride2, kUneven, kDepthwise, kDepthwiseStride, kPairs}) {
    const Shape x{2, 5, 6, p.groups == 1 ? 3 : 4}, w{3, 3, x[3] / p.groups, p.groups == 2 ? 10 : 4};
    const Shape y = kernels::conv2d_output_shape(x, w, p);
    cases.push_back({"conv2d", [p](const V& v) { return conv2d(v[0], v[1], p); }, {normal(x), normal(w, 2)}});
    cases.push_back({"conv2d",
                     [p](const V& v) { return conv2d(v[0], v[1], p, v[2]); },
                     {normal(x), normal(w, 2), normal({w[3]}, 3)}});
    cases.push_back(
        {"conv2d",
         [p](const V& v) { return conv2d(v[0], v[1], p, v[2], {.relu = true, .residual = v[3]}); },
         {normal(x), normal(w, 2), normal({w[3]}, 3), normal(y, 4)}});
    cases.push_back({"conv2d_input_grad",
                     [p, x](const V& v) { return conv2d_input_grad(v[0], v[1], x, p); },
                     {normal(y), normal(w, 2)}});
    cases.push_back({"conv2d_input_grad",
                     [p, x](const V& v) { return conv2d_input_grad(v[0], v[1], x, p, v[2]); },
                     {normal(y), normal(w, 2), normal(x, 3)}});
    cases.push_back({"conv2d_weight_grad",
                     [p, w](const V& v) { return conv2d_weight_grad(v[0], v[1], w, p); },
                     {normal(x), normal(y, 2)}});
  }
  // Some of what may follow.
  const Shape image{2, 3, 4, 2}, kernel{3, 3, 2, 2};
  cases.push_back({"conv2d",
                   [](const V& v) { return conv2d(v[0], v[1], kStride1, {}, {.relu = true}); },
                   {normal(image), normal(kernel, 2)}});
  cases.push_back({"conv2d",
                   [](const V& v) {
                     // The residual depends on the input, as in a network, and there is no ReLU.
                     return conv2d(v[0], v[1], kStride1, {}, {.residual = mul(v[0], v[0])});
                   },
                   {normal(image), normal(kernel, 2)}});
  cases.push_back({"conv2d",
                   [](const V& v) {
                     // It is the input.
                     return conv2d(v[0], v[1], kStride1, {}, {.relu = true, .residual = v[0]});
                   },
                   {normal(image), normal(kernel, 2)}});
  // One tensor in both places.
  const Shape both{3, 3, 3, 3};
  cases.push_back({"conv2d", [](const V& v) { return conv2d(v[0], v[0], kStride1); }, {normal(both)}});
  cases.push_back({"conv2d_input_grad",
                   [both](const V& v) { return conv2d_input_grad(v[0], v[0], both, kStride1); },
                   {normal(both)}});
  cases.push_back({"conv2d_input_grad",
                   [both](const V& v) { return conv2d_input_grad(v[0], v[0], both, kStride1, v[0]); },
                   {normal(both)}});
  cases.push_back({"conv2d_weight_grad",
                   [both](const V& v) { return conv2d_weight_grad(v[0], v[0], both, kStride1); },
                   {normal(both)}});
  return cases;
}
const AddCases convolution(convolution_cases());

const AddCases channels({
    {"channel_affine",
     [](const V& v) { return channel_affine(v[0], v[1], v[2], {.relu = true, .residual = v[3]}); },
     {normal({2, 3, 5}), normal({5}, 2), normal({5}, 3), normal({2, 3, 5}, 4)}},
    {"channel_affine",
     [](const V& v) { return channel_affine(v[0], v[1], v[2]); },
     {normal({2, 3, 5}), normal({5}, 2), normal({5}, 3)}},
    {"channel_affine",
     [](const V& v) { return channel_affine(v[0], v[1], v[1], {.relu = true, .residual = v[0]}); },
     {normal({4, 3}), normal({3}, 2)}},
    {"channel_affine",
     [](const V& v) {
       // Every operand has more than one way to the output.
       const Variable a = channel_affine(v[0], v[1], v[1], {.residual = v[0]});
       return channel_affine(a, v[1], v[1], {.relu = true, .residual = add(a, v[0])});
     },
     {normal({4, 3}), normal({3}, 2)}},
    {"channel_shift",
     [](const V& v) { return mul(channel_shift(v[0], v[1]), v[0]); },
     {normal({2, 3, 5}), normal({5}, 2)}},
    {"channel_scale",
     [](const V& v) { return channel_scale(v[0], v[1]); },
     {normal({2, 3, 5}), normal({5}, 2)}},
    {"channel_sum",
     [](const V& v) { return mul(channel_sum(v[0]), v[1]); },
     {normal({2, 3, 5}), normal({5}, 2)}},
    {"channel_dot", [](const V& v) { return channel_dot(v[0], v[1]); }, {normal({7, 5}), normal({7, 5}, 2)}},
    {"batch_norm_train",
     [](const V& v) { return batch_norm_train(v[0], v[1], v[2], 1e-5).y; },
     {normal({4, 2, 2, 3}), normal({3}, 2), normal({3}, 3)}},
    {"batch_norm_train",
     [](const V& v) { return batch_norm_train(v[0], v[1], v[2], 1e-5, {.relu = true, .residual = v[3]}).y; },
     {normal({4, 2, 2, 3}), normal({3}, 2), normal({3}, 3), normal({4, 2, 2, 3}, 4)}},
    {"batch_norm_train",
     [](const V& v) { return batch_norm_train(v[0], v[1], v[1], 1e-2, {.relu = true, .residual = v[0]}).y; },
     {normal({7, 3}), normal({3}, 2)}},
    // No slope, and no variance.
    {"batch_norm_train",
     [](const V& v) { return batch_norm_train(v[0], v[1], v[2], 1e-2).y; },
     {normal({6, 3}), Tensor::zeros({3}, DType::f64), normal({3}, 3)}},
    {"batch_norm_train",
     [](const V& v) { return batch_norm_train(v[0], v[1], v[2], 1e-1).y; },
     {Tensor::full({6, 3}, DType::f64, 2), normal({3}, 2), normal({3}, 3)}},
    {"batch_norm_train",
     [](const V& v) {
       // The residual depends on the normalised input, as in a network.
       return batch_norm_train(mul(v[0], v[0]), v[1], v[2], 1e-5, {.relu = true, .residual = v[0]}).y;
     },
     {normal({4, 2, 2, 3}), normal({3}, 2), normal({3}, 3)}},
    {"channel_affine",
     [](const V& v) {
       return batch_norm_eval(v[0], v[1], v[2], normal({3}, 8), uniform({3}, 0.5, 2), 1e-5,
                              {.relu = true, .residual = v[3]});
     },
     {normal({4, 2, 2, 3}), normal({3}, 2), normal({3}, 3), normal({4, 2, 2, 3}, 4)}},
});

// The gradient ops by themselves: gradients of one output, as functions of everything they depend on.
V norm_gradients(const Variable& y, const Variable& gy, const V& inputs) {
  return grad(std::span(&y, 1), inputs, {.grad_outputs = {gy}, .create_graph = true});
}
Variable sum_of_products(const V& a, const V& b) {
  Variable sum = dot(a[0], b[0]);
  for (std::size_t i = 1; i < a.size(); ++i) sum = add(sum, dot(a[i], b[i]));
  return sum;
}

const Shape kImages{4, 2, 2, 3};

// A pointwise convolution y = relu(conv(x, w) + t + r), whose gradient in its sum is the op.
Variable shifted(const V& v) {
  return conv2d(v[0], v[1], {}, v[2], {.relu = true, .residual = v[3]});
}

const AddCases shift_gradient_cases({
    {"shift_grad",
     [](const V& v) {
       const V inputs{v[0], v[1], v[2], v[3]};
       return sum_of_products(norm_gradients(shifted(v), v[4], inputs), {v[5], v[6], v[7], v[8]});
     },
     {normal(kImages), normal({1, 1, 3, 3}, 2), normal({3}, 3), normal(kImages, 4), normal(kImages, 5),
      normal(kImages, 6), normal({1, 1, 3, 3}, 7), normal({3}, 8), normal(kImages, 9)}},
    // The shift's gradient alone, and all but it.
    {"shift_grad",
     [](const V& v) { return norm_gradients(shifted(v), v[4], {v[2]})[0]; },
     {normal(kImages), normal({1, 1, 3, 3}, 2), normal({3}, 3), normal(kImages, 4), normal(kImages, 5)}},
    {"shift_grad",
     [](const V& v) { return norm_gradients(shifted(v), v[4], {v[3]})[0]; },
     {normal(kImages), normal({1, 1, 3, 3}, 2), normal({3}, 3), normal(kImages, 4), normal(kImages, 5)}},
});

const AddCases norm_gradient_cases({
    {"channel_affine_grad",
     [](const V& v) {
       const V inputs{v[0], v[1], v[2], v[3]};
       const Variable y = channel_affine(v[0], v[1], v[2], {.relu = true, .residual = v[3]});
       return sum_of_products(norm_gradients(y, v[4], inputs), {v[5], v[6], v[7], v[8]});
     },
     {normal(kImages), normal({3}, 2), normal({3}, 3), normal(kImages, 4), normal(kImages, 5),
      normal(kImages, 6), normal({3}, 7), normal({3}, 8), normal(kImages, 9)}},
    {"channel_affine_grad",
     [](const V& v) {
       // Only the scale's gradient is used.
       return norm_gradients(channel_affine(v[0], v[1], v[2]), v[3], {v[1]})[0];
     },
     {normal(kImages), normal({3}, 2), normal({3}, 3), normal(kImages, 4)}},
    {"batch_norm_train_grad",
     [](const V& v) {
       const V inputs{v[0], v[1], v[2], v[3]};
       const Variable y = batch_norm_train(v[0], v[1], v[2], 1e-2, {.relu = true, .residual = v[3]}).y;
       return sum_of_products(norm_gradients(y, v[4], inputs), {v[5], v[6], v[7], v[8]});
     },
     {normal(kImages), normal({3}, 2), normal({3}, 3), normal(kImages, 4), normal(kImages, 5),
      normal(kImages, 6), normal({3}, 7), normal({3}, 8), normal(kImages, 9)}},
    {"batch_norm_train_grad",
     [](const V& v) {
       const Variable y = batch_norm_train(v[0], v[1], v[2], 1e-2).y;
       return sum_of_products(norm_gradients(y, v[3], {v[0], v[1], v[2]}), {v[4], v[5], v[6]});
     },
     {normal({6, 3}), Tensor::zeros({3}, DType::f64), normal({3}, 3), normal({6, 3}, 4), normal({6, 3}, 5),
      normal({3}, 6), normal({3}, 7)}},
    {"batch_norm_train_grad",
     [](const V& v) {
       return norm_gradients(batch_norm_train(v[0], v[1], v[2], 1e-2).y, v[3], {v[2], v[1]})[1];
     },
     {normal(kImages), normal({3}, 2), normal({3}, 3), normal(kImages, 4)}},
});

const PoolParams kOverlapping{
    .kernel_h = 3, .kernel_w = 2, .stride_h = 2, .stride_w = 1, .pad_h = 1, .pad_w = 1};
// Of six rows and four columns, the last windows hang over by one row and by one column.
const PoolParams kCeil{.kernel_h = 3, .kernel_w = 2, .stride_h = 2, .stride_w = 3, .pad_h = 1, .ceil = true};

Tensor best_taps() {
  return kernels::max_pool2d(normal({2, 5, 4, 3}, 7), kOverlapping).taps;
}

const AddCases pooling({
    {"avg_pool2d",
     [](const V& v) { return mul(avg_pool2d(v[0], kOverlapping), v[1]); },
     {normal({2, 5, 4, 3}), normal({2, 3, 5, 3}, 2)}},
    {"avg_unpool2d",
     [](const V& v) {
       return mul(avg_unpool2d(v[0], {2, 5, 4, 3}, kOverlapping), v[1]);
     },
     {normal({2, 3, 5, 3}), normal({2, 5, 4, 3}, 2)}},
    {"window_pick",
     [](const V& v) { return mul(max_pool2d(v[0], kOverlapping), max_pool2d(v[0], kOverlapping)); },
     {normal({2, 5, 4, 3})}},
    {"avg_pool2d",
     [](const V& v) { return mul(avg_pool2d(v[0], kCeil), v[1]); },
     {normal({2, 6, 4, 3}), normal({2, 4, 2, 3}, 2)}},
    {"avg_unpool2d",
     [](const V& v) {
       return mul(avg_unpool2d(v[0], {2, 6, 4, 3}, kCeil), v[1]);
     },
     {normal({2, 4, 2, 3}), normal({2, 6, 4, 3}, 2)}},
    {"window_pick",
     [](const V& v) { return mul(max_pool2d(v[0], kCeil), max_pool2d(v[0], kCeil)); },
     {normal({2, 6, 4, 3})}},
    {"window_pick",
     [](const V& v) { return mul(window_pick(v[0], best_taps(), kOverlapping), v[1]); },
     {normal({2, 5, 4, 3}), normal({2, 3, 5, 3}, 2)}},
    {"window_place",
     [](const V& v) {
       return mul(window_place(v[0], best_taps(), {2, 5, 4, 3}, kOverlapping), v[1]);
     },
     {normal({2, 3, 5, 3}), normal({2, 5, 4, 3}, 2)}},
    {"global_avg_pool",
     [](const V& v) { return mul(global_avg_pool(v[0]), v[1]); },
     {normal({2, 3, 4, 5}), normal({2, 5}, 2)}},
    {"global_avg_unpool",
     [](const V& v) {
       return mul(global_avg_unpool(v[0], {2, 3, 4, 5}), v[1]);
     },
     {normal({2, 5}), normal({2, 3, 4, 5}, 2)}},
    {"gather",
     [](const V& v) {
       return mul(gather(v[0], Tensor::from<std::int64_t>({3, 0, 3, 5}, {2, 2})), v[1]);
     },
     {normal({2, 3}), normal({2, 2}, 2)}},
    {"scatter_add",
     [](const V& v) {
       return mul(scatter_add(v[0], Tensor::from<std::int64_t>({3, 0, 3, 5}, {4}), {2, 3}), v[1]);
     },
     {normal({4}), normal({2, 3}, 2)}},
});

const AddCases losses({
    {"softmax", [](const V& v) { return softmax(v[0]); }, {normal({3, 5})}},
    {"log_softmax", [](const V& v) { return log_softmax(v[0]); }, {normal({3, 5})}},
    {"softmax_residual", [](const V& v) { return softmax_residual(v[0], labels(3, 5)); }, {normal({3, 5})}},
    {"softmax_cross_entropy",
     [](const V& v) { return softmax_cross_entropy(v[0], labels(3, 5), Reduction::none); },
     {normal({3, 5})}},
    {"softmax_cross_entropy",
     [](const V& v) { return softmax_cross_entropy(v[0], labels(3, 5)); },
     {normal({3, 5})}},
    {"softmax_cross_entropy",
     [](const V& v) { return softmax_cross_entropy(v[0], labels(3, 5), Reduction::sum); },
     {normal({3, 5})}},
});

}  // namespace
