#include "autograd/curvature/microbatches.hpp"

#include <array>
#include <bit>
#include <cstddef>
#include <cstring>

#include "autograd/variable.hpp"

namespace goshawk {
namespace {

// One step of a hash: a bijection of `word` for a given `hash` and the other way round. The rotation brings
// high bits down; without it two flipped signs, bits 63, would cancel.
constexpr std::uint64_t mix(std::uint64_t hash, std::uint64_t word) {
  return std::rotl(hash ^ word, 29) * 0x9e3779b97f4a7c15;
}

std::uint64_t hash_bytes(const std::byte* from, std::size_t bytes) {
  constexpr std::size_t kLanes = 8, kWord = sizeof(std::uint64_t);  // lanes hide the multiplications' latency
  std::array<std::uint64_t, kLanes> lanes{1, 2, 3, 4, 5, 6, 7, 8}, rest{};
  for (; bytes >= kLanes * kWord; bytes -= kLanes * kWord, from += kLanes * kWord) {
    for (std::size_t i = 0; i < kLanes; ++i) {
      std::uint64_t word = 0;
      std::memcpy(&word, from + i * kWord, kWord);
      lanes[i] = mix(lanes[i], word);
    }
  }
  std::memcpy(rest.data(), from, bytes);
  std::uint64_t hash = 0;
  for (std::size_t i = 0; i < kLanes; ++i) hash = mix(hash, mix(lanes[i], rest[i]));
  return hash;
}

std::uint64_t hash_bits(const Tensor& x) {
  constexpr std::int64_t grain = 8 * kElementwiseGrain;
  const std::int64_t bytes = x.bytes();
  const std::byte* const from = x.raw();
  std::vector<std::uint64_t> parts(static_cast<std::size_t>((bytes + grain - 1) / grain));
  parallel_for(bytes, grain, [&](std::int64_t begin, std::int64_t end) {
    parts[static_cast<std::size_t>(begin / grain)] =
        hash_bytes(from + begin, static_cast<std::size_t>(end - begin));
  });
  std::uint64_t hash = 0;
  for (std::uint64_t part : parts) hash = mix(hash, part);
  return hash;
}

}  // namespace

void accumulate_f64(double factor, const Tensor& x, const Tensor& sum) {
  dispatch_floating(x.dtype(), "accumulate_f64", [&]<class T>() {
    const T* from = x.data<T>();
    double* to = sum.data<double>();
    parallel_for(x.numel(), kElementwiseGrain, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) to[i] += factor * static_cast<double>(from[i]);
    });
  });
}

void FixedParameters::confirm(std::string_view user) {
  std::vector<std::uint64_t> now;
  for (const Tensor& weight : watched_) now.push_back(hash_bits(weight));
  if (known_.empty()) known_ = now;
  for (std::size_t l = 0; l < now.size(); ++l) {
    check(now[l] == known_[l], "[{}] parameter {} has changed since the first product; make a new operator",
          user, l);
  }
}

bool uses_batch_statistics(const Variable& output) {
  const std::vector<std::string> ops = graph_ops(output);
  return std::find(ops.begin(), ops.end(), "batch_norm_train") != ops.end();
}

void refuse_batch_statistics(const Variable& output, std::size_t microbatches, std::string_view user) {
  check(microbatches < 2 || !uses_batch_statistics(output),
        "[{}] batch normalisation is in train mode, where a sample's loss depends on the others of its "
        "microbatch, so {} microbatches have no common Hessian; set eval mode, or give all samples as one "
        "microbatch",
        user, microbatches);
}

std::vector<Variable> select_parameters(const std::vector<Variable>& parameters,
                                        std::span<const std::size_t> indices, std::string_view user) {
  std::vector<Variable> selected;
  std::vector<char> taken(parameters.size(), 0);
  for (std::size_t i : indices) {
    check(i < parameters.size(), "[{}::block] there is no parameter {}; the operator has {}", user, i,
          parameters.size());
    check(taken[i] == 0, "[{}::block] parameter {} was named twice; name each once", user, i);
    taken[i] = 1;
    selected.push_back(parameters[i]);
  }
  return selected;
}

std::vector<Shape> leaf_shapes(const std::vector<Variable>& parameters, std::string_view user) {
  check(!parameters.empty(), "[{}] no parameters were given; give at least one", user);
  std::vector<Shape> shapes;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const Variable& p = parameters[i];
    check(p.requires_grad() && p.node()->op == nullptr,
          "[{}] parameter {} is not a leaf; make it with Variable::leaf", user, i);
    check(p.dtype() == parameters.front().dtype(),
          "[{}] parameter {} is {} but parameter 0 is {}; convert them to one dtype", user, i, p.dtype(),
          parameters.front().dtype());
    shapes.push_back(p.shape());
  }
  return shapes;
}

}  // namespace goshawk
