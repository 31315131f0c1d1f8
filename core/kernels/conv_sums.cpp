// By Winograd's convolution the sums go together, else one after the other.
#include "core/kernels/conv_sums.hpp"

#include <string_view>

#include "core/kernels/conv_checks.hpp"
#include "core/kernels/conv_groups.hpp"
#include "core/kernels/conv_plan.hpp"
#include "core/kernels/elementwise.hpp"

namespace goshawk::kernels {
namespace {

/// Throws Error naming `op` unless there are one or two pairs, of the shapes of `like`.
void check_pairs(const ConvPairs& pairs, const ConvPair& like, std::string_view op) {
  check(pairs.size() == 1 || pairs.size() == 2, "[{}] a sum of {} convolutions was asked for; give 1 or 2",
        op, pairs.size());
  for (const ConvPair& pair : pairs) {
    check_same(like.a, pair.a, op);
    check_same(like.b, pair.b, op);
  }
}

/// The first pair of the first sum, like which all must be. Throws Error naming `op` where they are not.
const ConvPair& first_pair(const std::vector<ConvSum>& sums, std::string_view op) {
  for (const ConvSum& sum : sums) {
    check_pairs(sum.pairs, sums.front().pairs.empty() ? ConvPair{} : sums.front().pairs.front(), op);
  }
  return sums.front().pairs.front();
}

void check_epilogues(const std::vector<ConvSum>& sums, const Shape& shape, DType dtype, std::string_view op) {
  for (const ConvSum& sum : sums) {
    for (const Tensor& image : {sum.residual, sum.mask}) {
      check(!image.defined() || (image.shape() == shape && image.dtype() == dtype),
            "[{}] the result is {} {} but what it is added to or masked by is {} {}", op, dtype, shape,
            image.dtype(), image.shape());
    }
    check(!sum.bias.defined() || (sum.bias.shape() == Shape{shape.back()} && sum.bias.dtype() == dtype),
          "[{}] the bias is {} {} but the result {} {}", op, sum.bias.dtype(), sum.bias.shape(), dtype,
          shape);
  }
}

// Longest sum over channels that two products may make together.
constexpr std::int64_t kMaxChannels = 64;

winograd::Pair pointers(const ConvPair& pair) {
  return {pair.a.data<float>(), pair.b.data<float>()};
}

const float* optional_pointer(const Tensor& tensor) {
  return tensor.defined() ? tensor.data<float>() : nullptr;
}

/// `run` computes the sums. Those of one pair and those of two go apart, so that no result depends on what
/// else is computed.
template <class Run>
void run_winograd(const std::vector<winograd::Sum>& sums, const Run& run) {
  for (const std::int64_t terms : {1, 2}) {
    std::vector<winograd::Sum> some;
    for (const winograd::Sum& sum : sums) {
      if (sum.terms() == terms) some.push_back(sum);
    }
    if (!some.empty()) run(some);
  }
}

/// Images that sum over `channels` channels. Two products in one sum over twice as many would round more
/// coarsely than each by itself: where channels are many, the second one is added to the first.
template <class Run>
std::vector<Tensor> winograd_images(const std::vector<ConvSum>& sums, const Shape& shape,
                                    std::int64_t channels, const Run& run) {
  const bool together = 2 * channels <= kMaxChannels;
  std::vector<Tensor> results;
  std::vector<winograd::Sum> first, second;
  for (const ConvSum& sum : sums) {
    const bool overwrite = sum.overwrite && sum.residual.defined();
    const Tensor& result = results.emplace_back(overwrite ? sum.residual : Tensor::empty(shape, DType::f32));
    winograd::Sum& one = first.emplace_back();
    one.pairs[0] = pointers(sum.pairs[0]);
    one.result = result.data<float>();
    one.epilogue.residual = optional_pointer(sum.residual);
    winograd::Sum* last = &one;
    if (sum.pairs.size() == 2 && together) {
      one.pairs[1] = pointers(sum.pairs[1]);
    } else if (sum.pairs.size() == 2) {
      last = &second.emplace_back();
      last->pairs[0] = pointers(sum.pairs[1]);
      last->result = one.result;
      last->epilogue.residual = one.result;
    }
    last->epilogue.bias = optional_pointer(sum.bias);
    last->epilogue.mask = optional_pointer(sum.mask);
  }
  run_winograd(first, run);
  run_winograd(second, run);
  return results;
}

/// Each result from `first(pair)` and `add(result, pair)`.
template <class First, class Add>
Tensor one_by_one(const ConvPairs& pairs, const First& first, const Add& add) {
  Tensor result = first(pairs[0]);
  if (pairs.size() == 2) add(result, pairs[1]);
  return result;
}

/// `run` writes the convolution of a pair to an image, or adds it there, and does what follows.
template <class Run>
std::vector<Tensor> direct_images(const std::vector<ConvSum>& sums, const Shape& shape, DType dtype,
                                  const Run& run) {
  std::vector<Tensor> results;
  for (const ConvSum& sum : sums) {
    const Tensor& result = results.emplace_back(Tensor::empty(shape, dtype));
    const ConvEpilogue epilogue{.bias = sum.bias, .residual = sum.residual, .mask = sum.mask};
    for (std::size_t i = 0; i < sum.pairs.size() && result.numel() > 0; ++i) {
      const bool last = i + 1 == sum.pairs.size();
      run(sum.pairs[i], result, i > 0, last ? epilogue : ConvEpilogue());
    }
  }
  return results;
}

}  // namespace

std::vector<Tensor> conv2d_sums(const std::vector<ConvSum>& sums, const ConvParams& params) {
  if (sums.empty()) return {};
  constexpr std::string_view op = "conv2d_sums";
  const auto& [x, w] = first_pair(sums, op);
  check_dtypes(x, w, op);
  const Shape y = checked_output_shape(x.shape(), w.shape(), params, op);
  check_epilogues(sums, y, x.dtype(), op);
  if (const auto problem =
          winograd_problem(x.dtype(), x.shape(), w.shape(), y, params, ConvDirection::forward)) {
    return winograd_images(sums, y, problem->channels,
                           [&](const auto& some) { winograd::forward(*problem, some); });
  }
  return direct_images(
      sums, y, x.dtype(), [&](const ConvPair& p, const Tensor& to, bool add, const ConvEpilogue& epilogue) {
        (params.groups == 1 ? direct_conv2d : grouped_conv2d)(p.a, p.b, params, {}, to, add, epilogue);
      });
}

std::vector<Tensor> conv2d_input_grad_sums(const std::vector<ConvSum>& sums, const Shape& x_shape,
                                           const ConvParams& params) {
  if (sums.empty()) return {};
  constexpr std::string_view op = "conv2d_input_grad_sums";
  const auto& [gy, w] = first_pair(sums, op);
  check_dtypes(gy, w, op);
  const Shape y = checked_output_shape(x_shape, w.shape(), params, op);
  check_output_grad(gy, y, op);
  check_epilogues(sums, x_shape, gy.dtype(), op);
  if (const auto problem =
          winograd_problem(gy.dtype(), x_shape, w.shape(), y, params, ConvDirection::backward)) {
    return winograd_images(sums, x_shape, problem->channels,
                           [&](const auto& some) { winograd::input_grad(*problem, some); });
  }
  return direct_images(sums, x_shape, gy.dtype(),
                       [&](const ConvPair& p, const Tensor& to, bool add, const ConvEpilogue& epilogue) {
                         (params.groups == 1 ? direct_input_grad : grouped_input_grad)(p.a, p.b, params, to,
                                                                                       add, epilogue);
                       });
}

std::vector<Tensor> conv2d_weight_grad_sums(const std::vector<ConvPairs>& sums, const Shape& w_shape,
                                            const ConvParams& params) {
  if (sums.empty()) return {};
  constexpr std::string_view op = "conv2d_weight_grad_sums";
  for (const ConvPairs& pairs : sums) {
    check_pairs(pairs, sums.front().empty() ? ConvPair{} : sums.front().front(), op);
  }
  const auto& [x, gy] = sums.front().front();
  check_dtypes(x, gy, op);
  const Shape y = checked_output_shape(x.shape(), w_shape, params, op);
  check_output_grad(gy, y, op);
  const auto problem = winograd_problem(x.dtype(), x.shape(), w_shape, y, params, ConvDirection::forward);
  std::vector<Tensor> results;
  std::vector<winograd::Sum> all;
  for (const ConvPairs& pairs : sums) {
    if (!problem) {
      results.push_back(one_by_one(
          pairs, [&](const ConvPair& p) { return conv2d_weight_grad(p.a, p.b, w_shape, params); },
          [&](const Tensor& sum, const ConvPair& p) {
            add_to(sum, conv2d_weight_grad(p.a, p.b, w_shape, params));
          }));
      continue;
    }
    winograd::Sum& sum = all.emplace_back();
    sum.result = results.emplace_back(Tensor::empty(w_shape, DType::f32)).data<float>();
    for (std::size_t i = 0; i < pairs.size(); ++i) sum.pairs[i] = pointers(pairs[i]);
  }
  run_winograd(all, [&](const auto& some) { winograd::weight_grad(*problem, some); });
  return results;
}

}  // namespace goshawk::kernels
