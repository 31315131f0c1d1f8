#include "autograd/curvature/joined_operator.hpp"

#include <algorithm>
#include <cstring>

namespace goshawk {

JoinedOperator::JoinedOperator(std::shared_ptr<const LinearOperator> a,
                               std::vector<std::vector<std::size_t>> groups)
    : a_(std::move(a)), groups_(std::move(groups)) {
  check(a_ != nullptr, "[JoinedOperator] there is no operator to join the blocks of");
  std::vector<int> uses(a_->shapes().size());
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    check(!groups_[g].empty(), "[JoinedOperator] group {} is empty; leave it out", g);
    std::int64_t elements = 0;
    for (const std::size_t block : groups_[g]) {
      check(block < uses.size(), "[JoinedOperator] group {} names block {}, but the operator has {} blocks",
            g, block, uses.size());
      ++uses[block];
      elements += a_->shapes()[block].numel();
    }
    shapes_.push_back(Shape{elements});
  }
  for (std::size_t block = 0; block < uses.size(); ++block) {
    check(uses[block] == 1, "[JoinedOperator] block {} is in {} groups; put it into exactly one", block,
          uses[block]);
  }
}

Vector JoinedOperator::split(const Vector& v) const {
  check_blocks(*this, v, "JoinedOperator");
  Vector parts(a_->shapes().size());
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    if (!v[g].defined()) continue;
    const std::byte* from = v[g].raw();
    for (const std::size_t block : groups_[g]) {
      parts[block] = Tensor::empty(a_->shapes()[block], v[g].dtype());
      std::memcpy(parts[block].raw(), from, static_cast<std::size_t>(parts[block].bytes()));
      from += parts[block].bytes();
    }
  }
  return parts;
}

Vector JoinedOperator::join(const Vector& v) const {
  Vector joined;
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    std::byte* to = joined.emplace_back(Tensor::zeros(shapes_[g], a_->dtype())).raw();
    for (const std::size_t block : groups_[g]) {
      const std::size_t bytes = static_cast<std::size_t>(a_->shapes()[block].numel()) *
                                static_cast<std::size_t>(dtype_size(a_->dtype()));
      if (v[block].defined()) std::memcpy(to, v[block].raw(), bytes);
      to += bytes;
    }
  }
  return joined;
}

std::vector<Vector> JoinedOperator::apply_many(std::span<const Vector> vectors) const {
  std::vector<Vector> parts;
  for (const Vector& v : vectors) parts.push_back(split(v));
  std::vector<Vector> products = a_->apply_many(parts);
  for (Vector& product : products) product = join(product);
  return products;
}

std::vector<double> JoinedOperator::sums(const std::vector<double>& blocks) const {
  std::vector<double> result;
  for (const std::vector<std::size_t>& group : groups_) {
    double sum = 0;
    for (const std::size_t block : group) sum += blocks[block];
    result.push_back(sum);
  }
  return result;
}

std::vector<QuadraticForms> JoinedOperator::quadratic_forms(std::span<const Vector> vectors) const {
  std::vector<Vector> parts;
  for (const Vector& v : vectors) parts.push_back(split(v));
  std::vector<QuadraticForms> forms = a_->quadratic_forms(parts);
  for (QuadraticForms& f : forms) {
    f.blocks = sums(f.blocks);
    for (std::vector<double>& subset : f.subsets) subset = sums(subset);
  }
  return forms;
}

}  // namespace goshawk
