#include <cmath>
#include <doctest/doctest.h>
#include <limits>
#include <numeric>

#include "core/kernels/elementwise.hpp"
#include "core/tensor.hpp"
#include "tests/support/scratch_directory.hpp"

using namespace goshawk;

namespace {

Tensor counting(const Shape& shape) {
  std::vector<float> values(static_cast<std::size_t>(shape.numel()));
  std::iota(values.begin(), values.end(), 0.0f);
  return Tensor::from(values, shape);
}

}  // namespace

TEST_CASE("shapes: extents, elements, equality, limits") {
  CHECK(Shape{}.numel() == 1);
  CHECK(Shape{}.size() == 0);
  CHECK(Shape{2, 3, 4}.numel() == 24);
  CHECK(Shape{2, 0, 4}.numel() == 0);
  CHECK(Shape{2, 3, 4}.back() == 4);
  CHECK(Shape{2, 3} == Shape{2, 3});
  CHECK_FALSE(Shape{2, 3} == Shape{3, 2});
  CHECK_FALSE(Shape{2, 3} == Shape{2, 3, 1});
  CHECK(fmt::format("{}", Shape{2, 3}) == "[2, 3]");
  CHECK(contains(error_of([] { Shape{1, 1, 1, 1, 1, 1, 1}; }), "7 dimensions"));
  CHECK(contains(error_of([] { Shape{2, -1}; }), "-1"));
}

TEST_CASE("making tensors") {
  const Tensor z = Tensor::zeros({2, 3}, DType::f64);
  CHECK(z.defined());
  CHECK(z.ndim() == 2);
  CHECK(z.numel() == 6);
  CHECK(z.bytes() == 48);
  CHECK(z.dim(0) == 2);
  CHECK(z.dim(-1) == 3);
  CHECK(z.to_vector<double>() == std::vector<double>(6, 0));
  CHECK(Tensor::full({3}, DType::i8, -7).to_vector<std::int8_t>() == std::vector<std::int8_t>(3, -7));
  CHECK(Tensor::scalar(2.5, DType::f32).item() == 2.5);
  CHECK(Tensor::scalar(2.5, DType::f32).ndim() == 0);
  CHECK(Tensor::from<std::int64_t>({1, 2}, {2, 1}).to_vector<std::int64_t>() ==
        std::vector<std::int64_t>{1, 2});
  CHECK(Tensor::zeros_like(z).dtype() == DType::f64);
  CHECK(Tensor::empty_like(z).shape() == z.shape());
  CHECK(Tensor::zeros({0, 5}, DType::f32).defined());
  CHECK(Tensor::zeros({0, 5}, DType::f32).to_vector<float>().empty());
  // Large enough for several chunks of the parallel loop.
  const Tensor large = Tensor::full({100003}, DType::f32, 1.5);
  for (float x : large.span<float>()) REQUIRE(x == 1.5f);
}

TEST_CASE("what cannot be a tensor or be done with one is an error") {
  CHECK(contains(error_of([] { Tensor::from<float>({1, 2, 3}, {2}); }), "3 values do not fill shape [2]"));
  const Tensor t = counting({2, 3});
  CHECK(contains(error_of([&] { t.data<double>(); }), "f32, not f64"));
  CHECK(contains(error_of([&] { t.span<std::int32_t>(); }), "i32"));
  CHECK(contains(error_of([&] { t.dim(2); }), "[2, 3]"));
  CHECK(contains(error_of([&] { t.dim(-3); }), "-3"));
  CHECK(contains(error_of([&] { t.item(); }), "6 elements, not one"));
  CHECK(contains(error_of([] { Tensor::zeros({0}, DType::f32).item(); }), "0 elements"));
  // More elements or bytes than 64 bits can count.
  CHECK(error_of([] { Tensor::empty({std::int64_t{1} << 40, std::int64_t{1} << 40}, DType::f32); }) != "");
  CHECK(error_of([] { Tensor::empty({std::int64_t{1} << 32, std::int64_t{1} << 32}, DType::u8); }) != "");
  CHECK(error_of([] { Tensor::empty({std::int64_t{1} << 61}, DType::f64); }) != "");
}

TEST_CASE("an undefined tensor has no elements to work with") {
  const Tensor none;
  CHECK_FALSE(none.defined());
  CHECK(error_of([&] { none.item(); }) != "");
  CHECK(error_of([&] { none.reshape({1}); }) != "");
  CHECK(error_of([&] { none.clone(); }) != "");
  CHECK(error_of([&] { none.to(DType::f64); }) != "");
  CHECK(error_of([&] { permute(none, {}); }) != "");
  CHECK(contains(error_of([&] { none.data<float>(); }), "[Tensor::data] the tensor is undefined"));
  CHECK(error_of([&] { none.span<float>(); }) != "");
  CHECK(error_of([&] { none.to_vector<float>(); }) != "");
  CHECK(contains(error_of([&] { none.fill(1); }), "undefined"));
  CHECK(
      contains(error_of([&] { Tensor::empty_like(none); }), "[Tensor::empty_like] the tensor is undefined"));
  CHECK(contains(error_of([&] { Tensor::zeros_like(none); }), "undefined"));
  // A scalar has an undefined tensor's shape and type.
  const Tensor scalar = Tensor::scalar(1, DType::f32);
  CHECK(contains(error_of([&] { check_same(scalar, none, "some_op"); }), "[some_op]"));
  CHECK(contains(error_of([&] { check_same(none, none, "some_op"); }), "undefined"));
  CHECK(contains(error_of([&] { scalar.copy_from(none); }), "undefined"));
  CHECK(contains(error_of([&] { none.copy_from(scalar); }), "undefined"));
  CHECK(error_of([&] { kernels::map(none, "some_op", [](auto x) { return x; }); }) != "");
  CHECK(error_of([&] { kernels::zip(scalar, none, "some_op", [](auto x, auto) { return x; }); }) != "");
  CHECK(error_of([&] { kernels::add_to(scalar, none); }) != "");
}

TEST_CASE("copies share their elements, clones do not") {
  Tensor a = counting({2, 2});
  CHECK(a.unique());
  const Tensor b = a;
  CHECK_FALSE(a.unique());
  b.data<float>()[0] = 42;
  CHECK(a.data<float>()[0] == 42);
  const Tensor c = a.clone();
  CHECK(c.unique());
  c.data<float>()[0] = 7;
  CHECK(a.data<float>()[0] == 42);
  CHECK(c.shape() == a.shape());
  a = Tensor();
  CHECK(b.unique());
  CHECK(b.data<float>()[0] == 42);
}

TEST_CASE("reshape shares the elements and checks their number") {
  const Tensor t = counting({2, 3, 4});
  const Tensor r = t.reshape({4, 6});
  CHECK(r.shape() == Shape{4, 6});
  CHECK(r.raw() == t.raw());
  CHECK_FALSE(t.unique());
  CHECK(t.reshape({-1}).shape() == Shape{24});
  CHECK(t.reshape({2, -1, 2}).shape() == Shape{2, 6, 2});
  CHECK(t.reshape(Shape{24, 1}).shape() == Shape{24, 1});
  CHECK(Tensor::scalar(1, DType::f32).reshape({1, 1}).shape() == Shape{1, 1});
  CHECK(counting({1}).reshape({}).ndim() == 0);
  CHECK(Tensor::zeros({0, 3}, DType::f32).reshape({3, 0}).shape() == Shape{3, 0});
  CHECK(Tensor::zeros({0, 3}, DType::f32).reshape({-1, 3}).shape() == Shape{0, 3});
  CHECK(error_of([&] {
          Tensor::zeros({0, 3}, DType::f32).reshape({0, -1});
        }).find("could be anything") != std::string::npos);
  CHECK(contains(error_of([&] { t.reshape({5, 5}); }), "[2, 3, 4] with 24 elements"));
  CHECK(error_of([&] { t.reshape({5, -1}); }) != "");
  CHECK(error_of([&] { t.reshape({-1, -1}); }) != "");
  CHECK(error_of([&] { t.reshape({0, -1}); }) != "");
  CHECK(error_of([&] { t.reshape({-2, -12}); }) != "");
  CHECK(error_of([&] { t.reshape({1, 1, 1, 1, 1, 1, 24}); }) != "");
  // 2^32 * 2^32 is 0 in 64 bits.
  const std::int64_t big = std::int64_t{1} << 32;
  CHECK(error_of([&] { Tensor::zeros({0}, DType::f32).reshape({big, big}); }) != "");
}

TEST_CASE("conversion between all types") {
  const Tensor f = Tensor::from<float>({0, 1.75f, -1.75f, 100}, {4});
  const DType types[] = {DType::f32, DType::f64, DType::i64, DType::i32, DType::i8};
  for (DType to : types) {
    const Tensor converted = f.to(to);
    CHECK(converted.dtype() == to);
    CHECK(converted.shape() == f.shape());
    const bool integer = !is_floating(to);
    CHECK(converted.to(DType::f64).to_vector<double>() ==
          (integer ? std::vector<double>{0, 1, -1, 100} : std::vector<double>{0, 1.75, -1.75, 100}));
    for (DType back : types) {
      const Tensor twice = converted.to(back);
      CHECK(twice.to(DType::f64).data<double>()[3] == 100);
    }
  }
  CHECK(Tensor::from<double>({200.5}, {1}).to(DType::u8).item() == 200);
  CHECK(f.to(DType::f32).raw() == f.raw());
  const Tensor large = counting({50001}).to(DType::f64);
  for (std::int64_t i = 0; i < large.numel(); ++i) REQUIRE(large.data<double>()[i] == static_cast<double>(i));
}

TEST_CASE("a number that an integer type cannot hold is named, with its place") {
  constexpr double kInfinity = std::numeric_limits<double>::infinity(), kNaN = std::nan("");
  struct Limits {
    DType type;
    std::vector<double> held, not_held;
  };
  const double two_63 = 0x1p63;
  for (const Limits& l :
       {Limits{DType::u8, {-0.9, 0, 255, 255.9}, {-1, 256, 300, -kInfinity, kInfinity, kNaN}},
        Limits{DType::i8, {-128.5, -1, 127.5}, {-129, 128, kNaN}},
        Limits{DType::i32, {-0x1p31, 0x1p31 - 0.5}, {-0x1p31 - 1, 0x1p31, 1e300, kNaN}},
        Limits{DType::i64, {-two_63, 0x1p62}, {-0x1.0000000000001p63, two_63, kNaN}}}) {
    CAPTURE(dtype_name(l.type));
    for (double v : l.held) {
      CAPTURE(v);
      CHECK(Tensor::full({1}, DType::f64, v).to(l.type).item() == std::trunc(v));
      CHECK(Tensor::full({1}, l.type, v).item() == std::trunc(v));
    }
    for (double v : l.not_held) {
      CAPTURE(v);
      CHECK(contains(error_of([&] { Tensor::full({1}, DType::f64, v).to(l.type); }), "[Tensor::to]"));
      CHECK(contains(error_of([&] { Tensor::full({1}, l.type, v); }), "[Tensor::fill]"));
    }
  }
  CHECK(contains(error_of([&] { Tensor::full({}, DType::f32, 0x1p31).to(DType::i32); }),
                 "element 0 is 2147483"));
  CHECK(Tensor::full({}, DType::f32, -0x1p31).to(DType::i32).item() == -0x1p31);
  // The first one is named, also of many chunks.
  const Tensor many = Tensor::zeros({100003}, DType::f32);
  many.data<float>()[50001] = 300;
  many.data<float>()[90001] = -1;
  CHECK(error_of([&] { many.to(DType::u8); }) ==
        "[Tensor::to] element 50001 is 300, which u8 cannot hold; clip the elements or choose a wider type");
  CHECK(error_of([&] { Tensor::full({1}, DType::u8, 300); }) ==
        "[Tensor::fill] u8 cannot hold 300; choose another value or a wider type");
  // Also from one integer type to another.
  CHECK(contains(error_of([] {
                   Tensor::from<std::int64_t>({5, -1}, {2}).to(DType::u8);
                 }),
                 "element 1 is -1, which u8 cannot hold"));
  CHECK(Tensor::from<std::int64_t>({255}, {1}).to(DType::u8).item() == 255);
}

TEST_CASE("item of every type") {
  for (DType type : {DType::f32, DType::f64, DType::i64, DType::i32, DType::u8, DType::i8}) {
    CHECK(Tensor::full({1, 1}, type, 5).item() == 5);
  }
}

TEST_CASE("copy_from and fill write through every handle") {
  const Tensor a = Tensor::zeros({2, 2}, DType::f32);
  const Tensor view = a.reshape({4});
  a.copy_from(counting({2, 2}));
  CHECK(view.to_vector<float>() == std::vector<float>{0, 1, 2, 3});
  view.fill(9);
  CHECK(a.to_vector<float>() == std::vector<float>(4, 9));
  CHECK(contains(error_of([&] { a.copy_from(counting({4})); }), "f32 [2, 2] and f32 [4]"));
  CHECK(contains(error_of([&] { a.copy_from(Tensor::zeros({2, 2}, DType::f64)); }), "f64 [2, 2]"));
  CHECK(contains(error_of([&] { check_same(a, view, "some_op"); }), "[some_op]"));
  CHECK_NOTHROW(check_same(a, a.clone(), "some_op"));
}

TEST_CASE("permute moves each element to its place") {
  const Tensor t = counting({2, 3, 4, 5});
  const Tensor p = permute(t, {2, 0, 3, 1});
  REQUIRE(p.shape() == Shape{4, 2, 5, 3});
  for (std::int64_t a = 0; a < 2; ++a) {
    for (std::int64_t b = 0; b < 3; ++b) {
      for (std::int64_t c = 0; c < 4; ++c) {
        for (std::int64_t d = 0; d < 5; ++d) {
          REQUIRE(p.data<float>()[((c * 2 + a) * 5 + d) * 3 + b] ==
                  t.data<float>()[((a * 3 + b) * 4 + c) * 5 + d]);
        }
      }
    }
  }
  // OIHW to HWIO and back, and a copy even when nothing moves.
  CHECK(permute(permute(t, {2, 3, 1, 0}), {3, 2, 0, 1}).to_vector<float>() == t.to_vector<float>());
  CHECK(permute(t, {0, 1, 2, 3}).to_vector<float>() == t.to_vector<float>());
  CHECK(permute(t, {0, 1, 2, 3}).raw() != t.raw());
  CHECK(permute(Tensor::from<std::uint8_t>({1, 2, 3, 4, 5, 6}, {2, 3}), {1, 0}).to_vector<std::uint8_t>() ==
        std::vector<std::uint8_t>{1, 4, 2, 5, 3, 6});
  CHECK(permute(Tensor::scalar(4, DType::f64), {}).item() == 4);
  CHECK(permute(Tensor::zeros({2, 0, 3}, DType::f32), {2, 1, 0}).shape() == Shape{3, 0, 2});
  CHECK(contains(error_of([&] { permute(t, {0, 1, 2}); }), "3 axes"));
  CHECK(contains(error_of([&] { permute(t, {0, 1, 2, 2}); }), "each axis"));
  CHECK(contains(error_of([&] { permute(t, {0, 1, 2, 4}); }), "each axis"));
  CHECK(contains(error_of([&] { permute(t, {0, 1, 2, -1}); }), "each axis"));
}

TEST_CASE("types: names, sizes and dispatch") {
  CHECK(dtype_name(DType::i64) == "i64");
  CHECK(dtype_size(DType::f64) == 8);
  CHECK(fmt::format("{:>5}", DType::u8) == "   u8");
  for (DType type : {DType::f32, DType::f64, DType::i64, DType::i32, DType::u8, DType::i8}) {
    dispatch_all(type, [&]<class T>() {
      CHECK(dtype_of<T> == type);
      CHECK(sizeof(T) == dtype_size(type));
    });
    const auto floating = [&] { dispatch_floating(type, "some_op", []<class T>() {}); };
    CHECK(contains(error_of(floating), "[some_op]") == !is_floating(type));
  }
}

TEST_CASE("rows copies a range of the first dimension") {
  const Tensor t = Tensor::from<float>({0, 1, 2, 3, 4, 5}, {3, 2});
  const Tensor part = rows(t, 1, 3);
  CHECK(part.shape() == Shape{2, 2});
  CHECK(part.to_vector<float>() == std::vector<float>{2, 3, 4, 5});
  part.fill(9);
  CHECK(t.to_vector<float>() == std::vector<float>{0, 1, 2, 3, 4, 5});
  CHECK(rows(t, 2, 2).shape() == Shape{0, 2});
  CHECK_THROWS_WITH_AS(rows(t, 2, 4), "[rows] rows 2 to 4 of a tensor of shape [3, 2] do not exist", Error);
}
