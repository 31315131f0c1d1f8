#include <doctest/doctest.h>

#include "core/kernels/pool.hpp"

using namespace goshawk;
using kernels::PoolParams;

namespace {

// 1 × 4 × 4 × 1 with the values 0 … 15.
Tensor ramp() {
  Tensor t = Tensor::empty({1, 4, 4, 1}, DType::f64);
  for (int i = 0; i < 16; ++i) t.data<double>()[i] = i;
  return t;
}

}  // namespace

TEST_CASE("average pooling by hand") {
  CHECK(kernels::avg_pool2d(ramp(), {}).to_vector<double>() == std::vector<double>{2.5, 4.5, 10.5, 12.5});
  // Padded zeros count: the corner window holds one pixel of four.
  const PoolParams padded{.kernel_h = 2, .kernel_w = 2, .stride_h = 2, .stride_w = 2, .pad_h = 1, .pad_w = 1};
  CHECK(kernels::avg_pool2d(ramp(), padded).to_vector<double>()[0] == 0);
  CHECK(kernels::avg_pool2d(ramp(), padded).to_vector<double>()[8] == 15.0 / 4);
}

TEST_CASE("max pooling gives the first of equals, and NaN wins") {
  CHECK(kernels::max_pool2d_indices(ramp(), {}).to_vector<std::int64_t>() ==
        std::vector<std::int64_t>{5, 7, 13, 15});
  const Tensor equal = Tensor::zeros({1, 2, 2, 1}, DType::f32);
  CHECK(kernels::max_pool2d_indices(equal, {}).to_vector<std::int64_t>() == std::vector<std::int64_t>{0});
  equal.data<float>()[2] = std::numeric_limits<float>::quiet_NaN();
  CHECK(kernels::max_pool2d_indices(equal, {}).to_vector<std::int64_t>() == std::vector<std::int64_t>{2});
  // All negative: padding is no zero that could win.
  const PoolParams padded{.kernel_h = 2, .kernel_w = 2, .stride_h = 2, .stride_w = 2, .pad_h = 1, .pad_w = 1};
  const Tensor negative = Tensor::full({1, 2, 2, 1}, DType::f32, -1);
  CHECK(kernels::max_pool2d_indices(negative, padded).to_vector<std::int64_t>() ==
        std::vector<std::int64_t>{0, 1, 2, 3});
}

TEST_CASE("global average pooling by hand") {
  CHECK(kernels::global_avg_pool(ramp()).to_vector<double>() == std::vector<double>{7.5});
  const Tensor g = Tensor::from<double>({16}, {1, 1});
  CHECK(kernels::global_avg_unpool(g, {1, 4, 4, 1}).to_vector<double>() == std::vector<double>(16, 1));
}

TEST_CASE("impossible windows are refused") {
  CHECK_THROWS_AS(kernels::avg_pool2d(ramp(), {.kernel_h = 5, .kernel_w = 5}), Error);
  CHECK_THROWS_AS(kernels::avg_pool2d(ramp(), {.pad_h = 2, .pad_w = 2}), Error);
  CHECK_THROWS_AS(kernels::avg_pool2d(ramp(), {.stride_h = 0}), Error);
  CHECK_THROWS_AS(kernels::avg_pool2d(Tensor::zeros({4, 4}, DType::f32), {}), Error);
  CHECK_THROWS_AS(kernels::avg_unpool2d(Tensor::zeros({1, 3, 3, 1}, DType::f32), {1, 4, 4, 1}, {}), Error);
  CHECK_THROWS_AS(kernels::global_avg_pool(Tensor::zeros({1, 0, 4, 1}, DType::f32)), Error);
}
