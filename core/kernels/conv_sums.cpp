// By Winograd's convolution the sums go together, else one after the other.
#include "core/kernels/conv_sums.hpp"

#include <string_view>

#include "core/kernels/conv_checks.hpp"
#include "core/kernels/conv_plan.hpp"
#include "core/kernels/elementwise.hpp"

namespace goshawk::kernels {
namespace {

/// Throws Error naming `op` unless every sum has one or two pairs, all of the shapes of the first one.
void check_sums(const std::vector<ConvPairs>& sums, std::string_view op) {
  for (const ConvPairs& pairs : sums) {
    check(pairs.size() == 1 || pairs.size() == 2, "[{}] a sum of {} convolutions was asked for; give 1 or 2",
          op, pairs.size());
    for (const ConvPair& pair : pairs) {
      check_same(sums.front().front().a, pair.a, op);
      check_same(sums.front().front().b, pair.b, op);
    }
  }
}

// Longest sum over channels that two products may make together.
constexpr std::int64_t kMaxChannels = 64;

std::vector<Tensor> empty_results(const std::vector<ConvPairs>& sums, const Shape& shape) {
  std::vector<Tensor> results;
  for (std::size_t s = 0; s < sums.size(); ++s) results.push_back(Tensor::empty(shape, DType::f32));
  return results;
}

winograd::Pair pointers(const ConvPair& pair) {
  return {pair.a.data<float>(), pair.b.data<float>()};
}

/// `run` computes some of the sums. Those of one pair and those of two go apart, so that no result depends on
/// what else is computed.
template <class Run>
void run_winograd(const std::vector<ConvPairs>& sums, const std::vector<Tensor>& results, const Run& run) {
  for (const std::size_t pairs : {std::size_t{1}, std::size_t{2}}) {
    std::vector<winograd::Sum> some;
    for (std::size_t s = 0; s < sums.size(); ++s) {
      if (sums[s].size() != pairs) continue;
      winograd::Sum& sum = some.emplace_back();
      sum.result = results[s].data<float>();
      for (std::size_t i = 0; i < pairs; ++i) sum.pairs[i] = pointers(sums[s][i]);
    }
    if (!some.empty()) run(some);
  }
}

/// Images that sum over `channels` channels. Two products in one sum over twice as many would round more
/// coarsely than each by itself: where channels are many, the second one is added to the first.
template <class Run>
std::vector<Tensor> winograd_images(const std::vector<ConvPairs>& sums, const Shape& shape,
                                    std::int64_t channels, const Run& run) {
  std::vector<Tensor> results = empty_results(sums, shape);
  if (2 * channels <= kMaxChannels) {
    run_winograd(sums, results, run);
    return results;
  }
  for (const std::size_t place : {std::size_t{0}, std::size_t{1}}) {
    std::vector<winograd::Sum> some;
    for (std::size_t s = 0; s < sums.size(); ++s) {
      if (sums[s].size() <= place) continue;
      winograd::Sum& sum = some.emplace_back();
      sum.pairs[0] = pointers(sums[s][place]);
      sum.result = results[s].data<float>();
      if (place > 0) sum.epilogue.residual = sum.result;
    }
    if (!some.empty()) run(some);
  }
  return results;
}

/// Each result from `first(pair)` and `add(result, pair)`.
template <class First, class Add>
std::vector<Tensor> one_by_one(const std::vector<ConvPairs>& sums, const First& first, const Add& add) {
  std::vector<Tensor> results;
  for (const ConvPairs& pairs : sums) {
    results.push_back(first(pairs[0]));
    if (pairs.size() == 2) add(results.back(), pairs[1]);
  }
  return results;
}

}  // namespace

std::vector<Tensor> conv2d_sums(const std::vector<ConvPairs>& sums, const ConvParams& params) {
  if (sums.empty()) return {};
  constexpr std::string_view op = "conv2d_sums";
  check_sums(sums, op);
  const auto& [x, w] = sums.front().front();
  check_dtypes(x, w, op);
  const Shape y = checked_output_shape(x.shape(), w.shape(), params, op);
  if (const auto problem =
          winograd_problem(x.dtype(), x.shape(), w.shape(), y, params, ConvDirection::forward)) {
    return winograd_images(sums, y, problem->channels,
                           [&](const auto& some) { winograd::forward(*problem, some); });
  }
  return one_by_one(
      sums, [&](const ConvPair& p) { return conv2d(p.a, p.b, params); },
      [&](const Tensor& sum, const ConvPair& p) { conv2d(p.a, p.b, params, sum); });
}

std::vector<Tensor> conv2d_input_grad_sums(const std::vector<ConvPairs>& sums, const Shape& x_shape,
                                           const ConvParams& params) {
  if (sums.empty()) return {};
  constexpr std::string_view op = "conv2d_input_grad_sums";
  check_sums(sums, op);
  const auto& [gy, w] = sums.front().front();
  check_dtypes(gy, w, op);
  const Shape y = checked_output_shape(x_shape, w.shape(), params, op);
  check_output_grad(gy, y, op);
  if (const auto problem =
          winograd_problem(gy.dtype(), x_shape, w.shape(), y, params, ConvDirection::backward)) {
    return winograd_images(sums, x_shape, problem->channels,
                           [&](const auto& some) { winograd::input_grad(*problem, some); });
  }
  return one_by_one(
      sums, [&](const ConvPair& p) { return conv2d_input_grad(p.a, p.b, x_shape, params); },
      [&](const Tensor& sum, const ConvPair& p) { conv2d_input_grad(p.a, p.b, x_shape, params, sum); });
}

std::vector<Tensor> conv2d_weight_grad_sums(const std::vector<ConvPairs>& sums, const Shape& w_shape,
                                            const ConvParams& params) {
  if (sums.empty()) return {};
  constexpr std::string_view op = "conv2d_weight_grad_sums";
  check_sums(sums, op);
  const auto& [x, gy] = sums.front().front();
  check_dtypes(x, gy, op);
  const Shape y = checked_output_shape(x.shape(), w_shape, params, op);
  check_output_grad(gy, y, op);
  if (const auto problem =
          winograd_problem(x.dtype(), x.shape(), w_shape, y, params, ConvDirection::forward)) {
    std::vector<Tensor> results = empty_results(sums, w_shape);
    run_winograd(sums, results, [&](const auto& some) { winograd::weight_grad(*problem, some); });
    return results;
  }
  return one_by_one(
      sums, [&](const ConvPair& p) { return conv2d_weight_grad(p.a, p.b, w_shape, params); },
      [&](const Tensor& sum, const ConvPair& p) {
        add_to(sum, conv2d_weight_grad(p.a, p.b, w_shape, params));
      });
}

}  // namespace goshawk::kernels
