#include "core/kernels/conv_winograd.hpp"

#include <algorithm>
#include <tuple>
#include <utility>
#include <vector>

#include "core/kernels/conv_scratch.hpp"
#include "core/memory.hpp"
#include "core/parallel.hpp"

// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/conv_winograd.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>
// clang-format on

#include "core/kernels/channel_rows-inl.hpp"
#include "core/kernels/conv_block-inl.hpp"

#ifndef GOSHAWK_CORE_KERNELS_CONV_WINOGRAD_LAYOUT
#define GOSHAWK_CORE_KERNELS_CONV_WINOGRAD_LAYOUT
namespace goshawk::kernels::winograd {

using Index = std::int64_t;

inline constexpr Index kTile = 4;   // output pixels of a tile along one axis
inline constexpr Index kPatch = 6;  // input pixels it sees
inline constexpr Index kPositions = kPatch * kPatch;
inline constexpr Index kKernel = 3;
inline constexpr Index kBlock = simd::kChannelBlock;

/// Numbers of tiles in a column and a row of an image.
inline Index tile_rows(const Problem& p) {
  return (p.out_rows + kTile - 1) / kTile;
}
inline Index tile_columns(const Problem& p) {
  return (p.out_columns + kTile - 1) / kTile;
}

/// Elements between the positions of the transformed tiles: a line more than they take, so that the 36
/// positions of a tile do not fall into the same cache set.
inline Index position_step(Index tiles, Index channels) {
  return tiles * channels + kBlock;
}

/// Where to find the kernel's weights: distances in elements. `turned` reads the kernel from its end.
struct Weights {
  const float* data;
  Index channels, out_channels;
  Index element, channel, out_channel;
  bool turned;
};

}  // namespace goshawk::kernels::winograd
#endif

HWY_BEFORE_NAMESPACE();
namespace goshawk::kernels::winograd {
namespace HWY_NAMESPACE {

using namespace goshawk::kernels::simd::HWY_NAMESPACE;
using goshawk::kernels::HWY_NAMESPACE::past_relu;

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;
constexpr D d;
constexpr Index kVector = kLanes<float>;

// The points ±a, ±b (beside 0 and infinity) and the factors 1 / Π (point − other points) of G's rows.
constexpr float a = 0.75F, b = 1.5F;
constexpr float a2 = a * a, b2 = b * b, a3 = a2 * a, b3 = b2 * b;
constexpr float kSum = a2 + b2, kProduct = a2 * b2;
constexpr float g0 = 1 / kProduct, ga = 1 / (2 * a2 * (a2 - b2)), gb = 1 / (2 * b2 * (b2 - a2));

HWY_INLINE V c(float value) {
  return hn::Set(d, value);
}

/// Calls f(std::integral_constant) for each number, unrolled before registers are allocated: an array that is
/// indexed by these constants only becomes registers.
template <Index... i, class F>
HWY_INLINE void for_each(std::integer_sequence<Index, i...>, const F& f) {
  (f(std::integral_constant<Index, i>()), ...);
}
template <Index... i>
using Numbers = std::integer_sequence<Index, i...>;
template <Index n>
using UpTo = std::make_integer_sequence<Index, n>;

// Each transform is a map of kIn values to kOut. It comes in groups of outputs that share their terms:
// apply<g> loads what group g needs by in(i) and gives its outputs to out(i, value).

/// out = Bᵀ in: six pixels to six positions.
struct InputTransform {
  static constexpr Index kIn = kPatch, kOut = kPatch, kGroups = 4;
  template <Index group>
  using Group = std::tuple_element_t<group, std::tuple<Numbers<0>, Numbers<1, 2>, Numbers<3, 4>, Numbers<5>>>;

  template <Index group, class Load, class Store>
  static HWY_INLINE void apply(const Load& in, const Store& out) {
    if constexpr (group == 0 || group == 3) {
      constexpr Index first = group == 0 ? 0 : 1;
      out(group == 0 ? 0 : 5,
          hn::MulAdd(c(kProduct), in(first), hn::NegMulAdd(c(kSum), in(first + 2), in(first + 4))));
    } else {
      const float point = group == 1 ? a : b, other = group == 1 ? b2 : a2;
      const V even = hn::NegMulAdd(c(other), in(2), in(4)), odd = hn::NegMulAdd(c(other), in(1), in(3));
      constexpr Index first = group == 1 ? 1 : 3;
      out(first, hn::MulAdd(c(point), odd, even));
      out(first + 1, hn::NegMulAdd(c(point), odd, even));
    }
  }
};

/// The others are one group.
template <Index in, Index out>
struct OneGroup {
  static constexpr Index kIn = in, kOut = out, kGroups = 1;
  template <Index>
  using Group = UpTo<out>;
};

/// out = Aᵀ in: six positions to four pixels.
struct OutputTransform : OneGroup<kPatch, kTile> {
  template <Index, class Load, class Store>
  static HWY_INLINE void apply(const Load& in, const Store& out) {
    const V m1 = in(1), m2 = in(2), m3 = in(3), m4 = in(4);
    const V sum_a = hn::Add(m1, m2), difference_a = hn::Sub(m1, m2);
    const V sum_b = hn::Add(m3, m4), difference_b = hn::Sub(m3, m4);
    out(0, hn::Add(in(0), hn::Add(sum_a, sum_b)));
    out(1, hn::MulAdd(c(a), difference_a, hn::Mul(c(b), difference_b)));
    out(2, hn::MulAdd(c(a2), sum_a, hn::Mul(c(b2), sum_b)));
    out(3, hn::MulAdd(c(a3), difference_a, hn::MulAdd(c(b3), difference_b, in(5))));
  }
};

/// out = A in: four pixels of an output gradient to six positions.
struct OutputGradTransform : OneGroup<kTile, kPatch> {
  template <Index, class Load, class Store>
  static HWY_INLINE void apply(const Load& in, const Store& out) {
    const V y0 = in(0), y1 = in(1), y2 = in(2), y3 = in(3);
    const V even_a = hn::MulAdd(c(a2), y2, y0), odd_a = hn::MulAdd(c(a3), y3, hn::Mul(c(a), y1));
    const V even_b = hn::MulAdd(c(b2), y2, y0), odd_b = hn::MulAdd(c(b3), y3, hn::Mul(c(b), y1));
    out(0, y0);
    out(1, hn::Add(even_a, odd_a));
    out(2, hn::Sub(even_a, odd_a));
    out(3, hn::Add(even_b, odd_b));
    out(4, hn::Sub(even_b, odd_b));
    out(5, y3);
  }
};

/// out = G in: three weights to six positions.
struct WeightTransform : OneGroup<kKernel, kPatch> {
  template <Index, class Load, class Store>
  static HWY_INLINE void apply(const Load& in, const Store& out) {
    const V w0 = in(0), w1 = in(1), w2 = in(2);
    const V even_a = hn::MulAdd(c(a2), w2, w0), odd_a = hn::Mul(c(a), w1);
    const V even_b = hn::MulAdd(c(b2), w2, w0), odd_b = hn::Mul(c(b), w1);
    out(0, hn::Mul(c(g0), w0));
    out(1, hn::Mul(c(ga), hn::Add(even_a, odd_a)));
    out(2, hn::Mul(c(ga), hn::Sub(even_a, odd_a)));
    out(3, hn::Mul(c(gb), hn::Add(even_b, odd_b)));
    out(4, hn::Mul(c(gb), hn::Sub(even_b, odd_b)));
    out(5, w2);
  }
};

/// out = Gᵀ in: six positions to three weight gradients.
struct WeightGradTransform : OneGroup<kPatch, kKernel> {
  template <Index, class Load, class Store>
  static HWY_INLINE void apply(const Load& in, const Store& out) {
    const V u1 = in(1), u2 = in(2), u3 = in(3), u4 = in(4);
    const V sum_a = hn::Mul(c(ga), hn::Add(u1, u2)), difference_a = hn::Mul(c(ga), hn::Sub(u1, u2));
    const V sum_b = hn::Mul(c(gb), hn::Add(u3, u4)), difference_b = hn::Mul(c(gb), hn::Sub(u3, u4));
    out(0, hn::MulAdd(c(g0), in(0), hn::Add(sum_a, sum_b)));
    out(1, hn::MulAdd(c(a), difference_a, hn::Mul(c(b), difference_b)));
    out(2, hn::MulAdd(c(a2), sum_a, hn::MulAdd(c(b2), sum_b, in(5))));
  }
};

/// The transform along both axes: in(row, column) -> out(row, column, value), a vector of channels at a time.
/// Down the columns first, a group of rows at a time, so that no more than 24 values wait for the second
/// axis.
template <class Transform, class Load, class Store>
HWY_INLINE void transform(const Load& in, const Store& out) {
  for_each(UpTo<Transform::kGroups>(), [&](auto group) HWY_ATTR {
    using Group = typename Transform::template Group<group>;
    V half[Transform::kOut][Transform::kIn];
    for_each(UpTo<Transform::kIn>(), [&](auto column) HWY_ATTR {
      Transform::template apply<group>([&](Index row) HWY_ATTR { return in(row, column); },
                                       [&](Index row, V value) HWY_ATTR { half[row][column] = value; });
    });
    for_each(Group(), [&](auto row) HWY_ATTR {
      for_each(UpTo<Transform::kGroups>(), [&](auto second) HWY_ATTR {
        Transform::template apply<second>([&](Index column) HWY_ATTR { return half[row][column]; },
                                          [&](Index column, V value) HWY_ATTR { out(row, column, value); });
      });
    });
  });
}

/// Where a tile's pixels are: pointers to the first channels of kSide x kSide pixels, or to zeros outside the
/// image.
template <Index kSide>
class Pixels {
 public:
  Pixels(const float* image, Index rows, Index columns, Index channels, Index top, Index left,
         const float* zeros)
      : inside_(top >= 0 && left >= 0 && top + kSide <= rows && left + kSide <= columns),
        row_(columns * channels),
        column_(channels) {
    if (inside_) {
      first_ = image + top * row_ + left * column_;
      return;
    }
    for (Index r = 0; r < kSide; ++r) {
      const bool row_inside = top + r >= 0 && top + r < rows;
      for (Index s = 0; s < kSide; ++s) {
        const bool pixel_inside = row_inside && left + s >= 0 && left + s < columns;
        at_[r * kSide + s] = pixel_inside ? image + (top + r) * row_ + (left + s) * column_ : zeros;
      }
    }
  }

  /// Applies the transform to the vector of channels from `channel` on.
  template <class Transform, class Store>
  HWY_INLINE void transform_channels(Index channel, const Store& out) const {
    if (inside_) {
      const float* const first = first_ + channel;
      const Index row = row_, column = column_;
      transform<Transform>(
          [&](Index r, Index s) HWY_ATTR { return hn::LoadU(d, first + r * row + s * column); }, out);
    } else {
      transform<Transform>(
          [&](Index r, Index s) HWY_ATTR { return hn::LoadU(d, at_[r * kSide + s] + channel); }, out);
    }
  }

 private:
  bool inside_;
  const float* first_ = nullptr;    // the pixel in the corner, if all are inside
  Index row_, column_;              // elements from one to the next
  const float* at_[kSide * kSide];  // otherwise
};

/// A tile's place in the batch.
struct Place {
  Index image, row, column;
  Place(const Problem& p, Index tile)
      : image(tile / (tile_rows(p) * tile_columns(p))),
        row(tile / tile_columns(p) % tile_rows(p)),
        column(tile % tile_columns(p)),
        rows_(tile_rows(p)),
        columns_(tile_columns(p)) {}

  /// The next tile.
  void advance() {
    if (++column < columns_) return;
    column = 0;
    if (++row < rows_) return;
    row = 0;
    ++image;
  }

 private:
  Index rows_, columns_;
};

/// The rows of images [*, rows, row_size elements] that the tiles [begin, end) cover, halo aside: from the
/// first row of the first tile to the last row of the last.
struct Rows {
  const float *begin = nullptr, *end = nullptr;
  Rows() = default;
  Rows(const Problem& p, const float* images, Index rows, Index row_size, Index begin_tile, Index end_tile) {
    const Index all = p.images * tile_rows(p) * tile_columns(p);
    begin = end = images;
    if (begin_tile >= all) return;
    const Place first(p, begin_tile), last(p, std::min(end_tile, all) - 1);
    begin += (first.image * rows + std::min(rows, first.row * kTile)) * row_size;
    end += (last.image * rows + std::min(rows, (last.row + 1) * kTile)) * row_size;
  }
};

/// The transformed kernel of out_channels [first, first + width), as tap_block reads it: position p is at
/// p * channels * out_channels, and there [channel][width].
void TransformWeights(const Weights& w, Index first, Index width, float* packed) {
  const hn::RebindToSigned<D> di;
  const auto distances = hn::Mul(hn::Iota(di, 0), hn::Set(di, static_cast<std::int32_t>(w.out_channel)));
  for (Index channel = 0; channel < w.channels; ++channel) {
    for (Index v = 0; v < width; v += kVector) {
      const float* const from = w.data + channel * w.channel + (first + v) * w.out_channel;
      float* const to = packed + first * w.channels + channel * width + v;
      const auto load = [&](Index r, Index s) HWY_ATTR {
        const Index element = r * kKernel + s;
        const float* const at = from + (w.turned ? kKernel * kKernel - 1 - element : element) * w.element;
        return w.out_channel == 1 ? hn::LoadU(d, at) : hn::GatherIndex(d, at, distances);
      };
      transform<WeightTransform>(load, [&](Index r, Index s, V value) HWY_ATTR {
        hn::StoreU(value, d, to + (r * kPatch + s) * w.channels * w.out_channels);
      });
    }
  }
}

/// Where the transform of a tile's channel goes: distances in elements between blocks of channels, tiles and
/// positions.
struct Layout {
  Index block, tile, position;
};

/// The transforms of the tiles [begin, begin + tiles) of images [*, rows, columns, channels], whose first
/// tile begins `top` rows and `left` columns before the image; of the channels [first, last).
template <class Transform>
struct TileTransforms {
  const Problem& p;
  Index rows, columns, channels, top, left;
  Index begin, tiles;
  const float* zeros;  // channels of a pixel outside the image

  void operator()(const float* images, Index first, Index last, float* transformed,
                  const Layout& layout) const {
    const Index position = layout.position;
    Place place(p, begin);
    for (Index t = 0; t < tiles; ++t, place.advance()) {
      const Pixels<Transform::kIn> pixels(images + place.image * rows * columns * channels, rows, columns,
                                          channels, place.row * kTile - top, place.column * kTile - left,
                                          zeros);
      for (Index channel = first; channel < last; channel += kVector) {
        float* const to = transformed + (channel - first) / kBlock * layout.block + t * layout.tile +
                          (channel - first) % kBlock;
        pixels.template transform_channels<Transform>(channel, [&](Index r, Index s, V value) HWY_ATTR {
          hn::Store(value, d, to + (r * kPatch + s) * position);
        });
      }
    }
  }
};
using Inputs = TileTransforms<InputTransform>;
using OutputGrads = TileTransforms<OutputGradTransform>;

constexpr Index kPairs = 2;  // of a sum

/// Rows that come next, asked for while this task multiplies.
Rows rows_of_x(const Problem& p, const float* x, Index begin, Index end) {
  return Rows(p, x, p.rows, p.columns * p.channels, begin, end);
}
Rows rows_of_y(const Problem& p, const float* y, Index begin, Index end) {
  return Rows(p, y, p.out_rows, p.out_columns * p.out_channels, begin, end);
}

/// An epilogue for the vector of channels from `channel` on.
struct Finish {
  Finish(const Epilogue& e, Index channel)
      : epilogue(e), bias(e.bias == nullptr ? hn::Zero(d) : hn::LoadU(d, e.bias + channel)) {}

  /// `value` is element `i` of the result.
  HWY_INLINE HWY_ATTR V operator()(V value, Index i) const {
    if (epilogue.bias != nullptr) value = hn::Add(value, bias);
    if (epilogue.residual != nullptr) value = hn::Add(value, hn::LoadU(d, epilogue.residual + i));
    if (epilogue.relu) value = past_relu(value, value);
    return value;
  }

  const Epilogue& epilogue;
  V bias;
};

/// Output tiles [begin, end) of the batch. Sums of pairs of images and transformed weights; the weights of
/// all pairs lie in one array.
void ForwardTiles(const Problem& p, std::span<const Sum> sums, Index begin, Index end) {
  const Index tiles = end - begin;
  const Index x_step = position_step(tiles, p.channels), y_step = position_step(tiles, p.out_channels);
  auto& scratch = simd::task_scratch();
  float* const transformed = scratch.image.get<float>(kPairs * kPositions * x_step);
  float* const products = scratch.grad.get<float>(kPositions * y_step);
  float* const zeros = scratch.row.get<float>(p.channels);
  set_zero(zeros, zeros + p.channels);
  const Inputs transform_input{p, p.rows, p.columns, p.channels, p.pad_top, p.pad_left, begin, tiles, zeros};

  const Index blocks = p.channels / kBlock;
  constexpr Index kMaxBlocks = 128;
  simd::Tap taps[kPairs * kMaxBlocks];
  for (Index i = 0; i < kPairs * blocks; ++i) {
    taps[i] = {i / blocks * kPositions * x_step + i % blocks * tiles * kBlock, kBlock};
  }
  const float* held[kPairs] = {};  // whose transforms are there
  for (size_t s = 0; s < sums.size(); ++s) {
    const Sum& sum = sums[s];
    const Index terms = sum.terms();
    for (size_t t = 0; t < static_cast<size_t>(terms); ++t) {
      if (held[t] == sum.pairs[t].a) continue;
      held[t] = sum.pairs[t].a;
      transform_input(held[t], 0, p.channels, transformed + static_cast<Index>(t) * kPositions * x_step,
                      {tiles * kBlock, kBlock, x_step});
    }

    // What is transformed next: an image of the next sum, or those of the first one for the next tiles.
    const bool last = s + 1 == sums.size();
    const Sum& next = last ? sums.front() : sums[s + 1];
    const auto next_rows = [&](size_t t) {
      const float* const x = next.pairs[t].a;
      if (x == nullptr || (!last && x == held[t])) return Rows();
      return last ? rows_of_x(p, x, end, end + tiles) : rows_of_x(p, x, begin, end);
    };
    const Rows x0 = next_rows(0), x1 = next_rows(1), y = rows_of_y(p, sum.result, begin, end);
    const float* const residual = sum.epilogue.residual;
    const bool other = residual != nullptr && residual != sum.result;
    const Rows also = other ? rows_of_y(p, residual, begin, end) : Rows();
    Prefetcher prefetch_x0(x0.begin, x0.end, kPositions), prefetch_x1(x1.begin, x1.end, kPositions);
    Prefetcher prefetch_y(y.begin, y.end, kPositions), prefetch_residual(also.begin, also.end, kPositions);
    const Index between = terms == 1 ? 0 : sum.pairs[1].b - sum.pairs[0].b;
    for (Index position = 0; position < kPositions; ++position) {
      const float* const in = transformed + position * x_step;
      float* const out = products + position * y_step;
      const float* const weights = sum.pairs[0].b + position * p.channels * p.out_channels;
      prefetch_x0.step();
      prefetch_x1.step();
      prefetch_y.step();
      prefetch_residual.step();
      Index width = 0;
      for (Index first = 0; first < p.out_channels; first += width) {
        const size_t vectors = p.out_channels - first > kVector ? kBlockVectors : 1;
        width = static_cast<Index>(vectors) * kVector;
        taps[blocks - 1].skip = between - p.channels * width;
        const Index max_tiles = static_cast<Index>(vectors == 1 ? kMaxRows1 : kMaxRows2);
        const Index tile_blocks = (tiles + max_tiles - 1) / max_tiles;
        for (Index i = 0; i < tile_blocks; ++i) {
          const Index tile = tiles * i / tile_blocks;
          const Index count = tiles * (i + 1) / tile_blocks - tile;
          find_tap_block<float>(count, vectors)(
              in + tile * kBlock, taps, taps + terms * blocks, weights + first * p.channels,
              {out + tile * p.out_channels + first, p.out_channels, p.out_channels - first});
        }
      }
    }

    Place place(p, begin);
    for (Index t = 0; t < tiles; ++t, place.advance()) {
      const Index top = place.row * kTile, left = place.column * kTile;
      const Index at = ((place.image * p.out_rows + top) * p.out_columns + left) * p.out_channels;
      const Index rows = std::min(kTile, p.out_rows - top), columns = std::min(kTile, p.out_columns - left);
      const bool whole = rows == kTile && columns == kTile;
      for (Index channel = 0; channel < p.out_channels; channel += kVector) {
        const float* const from = products + t * p.out_channels + channel;
        const Finish finish(sum.epilogue, channel);
        const auto load = [&](Index r, Index c)
                              HWY_ATTR { return hn::Load(d, from + (r * kPatch + c) * y_step); };
        transform<OutputTransform>(load, [&](Index r, Index c, V value) HWY_ATTR {
          if (!whole && (r >= rows || c >= columns)) return;
          const Index element = at + (r * p.out_columns + c) * p.out_channels + channel;
          hn::StoreU(finish(value, element), d, sum.result + element);
        });
      }
    }
  }
}

/// For the channels [first_channel, last_channel) and sum number s: partial + s * sum_size [36][channels]
/// [out_channels] += the products of tiles [begin, end) (= when `add` is false). A block of channels at a
/// time, so that its part of the sums stays in the cache.
void WeightGradTiles(const Problem& p, std::span<const Sum> sums, float* partial, Index sum_size, Index begin,
                     Index end, Index first_channel, Index last_channel, bool add) {
  const Index tiles = end - begin, terms = sums.front().terms(), columns = terms * tiles;
  const Index x_step = position_step(columns, kBlock), y_step = position_step(columns, p.out_channels);
  // Transforms of x are only kept beyond a block of channels where another sum may need them.
  const bool keep = sums.size() > 1;
  const Index x_block = keep ? kPositions * x_step : 0;
  const Index blocks = (last_channel - first_channel) / kBlock;
  auto& scratch = simd::task_scratch();
  float* const transformed = scratch.image.get<float>((keep ? blocks : 1) * kPositions * x_step);
  float* const gradients = scratch.grad.get<float>(kPositions * y_step);
  const Index widest = std::max(p.channels, p.out_channels);
  float* const zeros = scratch.row.get<float>(widest);
  set_zero(zeros, zeros + widest);
  const Inputs transform_input{p, p.rows, p.columns, p.channels, p.pad_top, p.pad_left, begin, tiles, zeros};
  const OutputGrads transform_grad{p, p.out_rows, p.out_columns, p.out_channels, 0, 0, begin, tiles, zeros};

  Pair held[kPairs];  // whose transforms are there
  for (size_t s = 0; s < sums.size(); ++s) {
    const auto& pairs = sums[s].pairs;
    for (size_t t = 0; t < static_cast<size_t>(terms); ++t) {
      if (held[t].b == pairs[t].b) continue;
      held[t].b = pairs[t].b;
      transform_grad(held[t].b, 0, p.out_channels, gradients + static_cast<Index>(t) * tiles * p.out_channels,
                     {kBlock, p.out_channels, y_step});
    }

    // What is transformed next, as in ForwardTiles.
    const bool last = s + 1 == sums.size();
    const Sum& next = last ? sums.front() : sums[s + 1];
    const Index next_begin = last ? end : begin, next_end = last ? end + tiles : end;
    const auto next_x = [&](size_t t) {
      const float* const x = next.pairs[t].a;
      const bool wanted = x != nullptr && (last || x != pairs[t].a);
      return wanted ? rows_of_x(p, x, next_begin, next_end) : Rows();
    };
    const auto next_y = [&](size_t t) {
      const float* const y = next.pairs[t].b;
      const bool wanted = y != nullptr && (last || y != pairs[t].b);
      return wanted ? rows_of_y(p, y, next_begin, next_end) : Rows();
    };
    const Rows x0 = next_x(0), x1 = next_x(1), y0 = next_y(0), y1 = next_y(1);
    Prefetcher prefetch[] = {{x0.begin, x0.end, kPositions * blocks},
                             {x1.begin, x1.end, kPositions * blocks},
                             {y0.begin, y0.end, kPositions * blocks},
                             {y1.begin, y1.end, kPositions * blocks}};
    float* const to = partial + static_cast<Index>(s) * sum_size;
    for (Index at = 0; at < blocks; ++at) {
      const Index block = first_channel + at * kBlock;
      for (size_t t = 0; t < static_cast<size_t>(terms); ++t) {
        if (keep && held[t].a == pairs[t].a) continue;
        transform_input(pairs[t].a, block, block + kBlock,
                        transformed + at * x_block + static_cast<Index>(t) * tiles * kBlock,
                        {kBlock, kBlock, x_step});
      }
      for (Index position = 0; position < kPositions; ++position) {
        for (Prefetcher& some : prefetch) some.step();
        Index vectors = 0;
        for (Index first = 0; first < p.out_channels; first += vectors * kVector) {
          vectors = p.out_channels - first > kVector ? 2 : 1;
          const Index max_rows = static_cast<Index>(vectors == 1 ? kMaxRows1 : kMaxRows2);
          const Index row_blocks = (kBlock + max_rows - 1) / max_rows;
          for (Index i = 0; i < row_blocks; ++i) {
            const Index row = kBlock * i / row_blocks;
            const Index count = kBlock * (i + 1) / row_blocks - row;
            const GradPixels<float> pixels{.x = transformed + at * x_block + position * x_step + row,
                                           .gy = gradients + position * y_step + first,
                                           .images = 1,
                                           .rows = 1,
                                           .columns = columns,
                                           .x_column = kBlock,
                                           .gy_column = p.out_channels};
            find_grad_block<float>(count, static_cast<size_t>(vectors))(
                pixels, add, to + (position * p.channels + block + row) * p.out_channels + first,
                p.out_channels);
          }
        }
      }
    }
    for (size_t t = 0; t < static_cast<size_t>(terms); ++t) held[t].a = pairs[t].a;
  }
}

/// Weight gradients of the channels [begin, end) from the sums of all chunks, which are `chunk_size` apart.
void FinishWeightGrad(const Problem& p, const float* sums, Index chunks, Index chunk_size, float* gw,
                      Index begin, Index end) {
  const Index position_size = p.channels * p.out_channels;
  for (Index channel = begin; channel < end; ++channel) {
    for (Index out = 0; out < p.out_channels; out += kVector) {
      const Index at = channel * p.out_channels + out;
      transform<WeightGradTransform>(
          [&](Index r, Index s) HWY_ATTR {
            const float* from = sums + (r * kPatch + s) * position_size + at;
            V sum = hn::LoadU(d, from);
            for (Index chunk = 1; chunk < chunks; ++chunk) {
              from += chunk_size;
              sum = hn::Add(sum, hn::LoadU(d, from));
            }
            return sum;
          },
          [&](Index r, Index s, V value)
              HWY_ATTR { hn::StoreU(value, d, gw + (r * kKernel + s) * position_size + at); });
    }
  }
}

Index Lanes() {
  return kVector;
}

}  // namespace HWY_NAMESPACE
}  // namespace goshawk::kernels::winograd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace goshawk::kernels::winograd {
namespace {

HWY_EXPORT(TransformWeights);
HWY_EXPORT(ForwardTiles);
HWY_EXPORT(WeightGradTiles);
HWY_EXPORT(FinishWeightGrad);
HWY_EXPORT(Lanes);

// Fixed rules that split the work; they must not depend on the number of threads.
constexpr Index kTaskBytes = Index{144} * 1024;  // of transformed tiles, to stay in the second-level cache
constexpr Index kGradTaskBytes = Index{288} * 1024;  // the same for a weight gradient, whose sums are long
constexpr Index kTasks = 16;                         // aim for this many tasks at least
constexpr Index kMinTiles = 12;                      // fewer would leave the register blocks half empty
// A weight gradient is summed in chunks of tiles, each with sums of its own, and in parts of the channels
// where there are too few chunks to share out.
constexpr Index kMaxChunks = 8;
constexpr Index kMinChunkTiles = 4;   // per channel: enough to pay for summing one more chunk
constexpr Index kPartChannels = 32;   // fewer would transform the output gradient too often
constexpr Index kMinBatchTiles = 32;  // fewer do not pay for the transformed weights

Index total_tiles(const Problem& p) {
  return p.images * tile_rows(p) * tile_columns(p);
}

/// Tiles of one task when `channels` channels are transformed for each.
Index task_tiles(Index tiles, Index channels, Index bytes) {
  const Index fitting = bytes / (kPositions * channels * Index{sizeof(float)});
  return std::clamp(std::min(fitting, tiles / kTasks), std::min(kMinTiles, tiles), tiles);
}

/// `weights`: how to read the kernels of the pairs, `data` aside.
void convolve(const Problem& p, std::span<const Sum> sums, const Weights& weights) {
  std::vector<const float*> kernels;
  for (const Sum& sum : sums) {
    for (Index t = 0; t < sum.terms(); ++t) {
      const float* const w = sum.pairs[static_cast<std::size_t>(t)].b;
      if (std::find(kernels.begin(), kernels.end(), w) == kernels.end()) kernels.push_back(w);
    }
  }
  const Index size = kPositions * p.channels * p.out_channels;
  const auto count = static_cast<Index>(kernels.size());
  const std::shared_ptr<std::byte[]> memory = allocate(count * size * Index{sizeof(float)});
  auto* const packed = reinterpret_cast<float*>(memory.get());
  const Index lanes = HWY_DYNAMIC_DISPATCH(Lanes)();
  const Index block = 2 * lanes, blocks = (p.out_channels + block - 1) / block;
  parallel_for(count * blocks, 1, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      Weights w = weights;
      w.data = kernels[static_cast<std::size_t>(i / blocks)];
      const Index first = i % blocks * block;
      HWY_DYNAMIC_DISPATCH(TransformWeights)
      (w, first, std::min(block, p.out_channels - first), packed + i / blocks * size);
    }
  });
  std::vector<Sum> transformed(sums.begin(), sums.end());
  for (Sum& sum : transformed) {
    for (Index t = 0; t < sum.terms(); ++t) {
      Pair& pair = sum.pairs[static_cast<std::size_t>(t)];
      pair.b = packed + (std::find(kernels.begin(), kernels.end(), pair.b) - kernels.begin()) * size;
    }
  }
  const Index tiles = total_tiles(p);
  const Index per_task = task_tiles(tiles, p.channels + p.out_channels, kTaskBytes);
  parallel_for(tiles, per_task, [&](Index begin, Index end) {
    HWY_DYNAMIC_DISPATCH(ForwardTiles)(p, transformed, begin, end);
  });
}

}  // namespace

bool worthwhile(const Problem& p) {
  constexpr Index kMaxChannels = 2048;
  return p.channels % kBlock == 0 && p.out_channels % kBlock == 0 && p.channels <= kMaxChannels &&
         total_tiles(p) >= kMinBatchTiles;
}

void forward(const Problem& p, std::span<const Sum> sums) {
  convolve(p, sums,
           {nullptr, p.channels, p.out_channels, p.channels * p.out_channels, p.out_channels, 1, false});
}

void input_grad(const Problem& p, std::span<const Sum> sums) {
  convolve(p, sums, {nullptr, p.channels, p.out_channels, p.channels * p.out_channels, 1, p.channels, true});
}

void weight_grad(const Problem& p, std::span<const Sum> sums) {
  const Index sum_size = kPositions * p.channels * p.out_channels;
  const auto count = static_cast<Index>(sums.size());
  const Index chunk_size = count * sum_size;
  const Index tiles = total_tiles(p);
  const Index per_task = task_tiles(tiles, sums.front().terms() * (p.out_channels + kBlock), kGradTaskBytes);
  const Index chunks =
      std::clamp(tiles / std::max(per_task, kMinChunkTiles * p.channels), Index{1}, kMaxChunks);
  const Index parts = chunks < kMaxChunks ? (p.channels + kPartChannels - 1) / kPartChannels : 1;
  const std::shared_ptr<std::byte[]> memory = allocate(chunks * chunk_size * Index{sizeof(float)});
  auto* const partial = reinterpret_cast<float*>(memory.get());
  parallel_for(chunks * parts, 1, [&](Index begin, Index end) {
    for (Index task = begin; task < end; ++task) {
      const Index chunk = task / parts, part = task % parts, blocks = p.channels / kBlock;
      const Index first = tiles * chunk / chunks, last = tiles * (chunk + 1) / chunks;
      for (Index t = first; t < last; t += per_task) {
        HWY_DYNAMIC_DISPATCH(WeightGradTiles)
        (p, sums, partial + chunk * chunk_size, sum_size, t, std::min(last, t + per_task),
         blocks * part / parts * kBlock, blocks * (part + 1) / parts * kBlock, t != first);
      }
    }
  });
  constexpr Index kChannels = 4;  // of a task
  const Index tasks = (p.channels + kChannels - 1) / kChannels;
  parallel_for(count * tasks, 1, [&](Index begin, Index end) {
    for (Index task = begin; task < end; ++task) {
      const Index s = task / tasks, first = task % tasks * kChannels;
      HWY_DYNAMIC_DISPATCH(FinishWeightGrad)
      (p, partial + s * sum_size, chunks, chunk_size, sums[static_cast<std::size_t>(s)].result, first,
       std::min(first + kChannels, p.channels));
    }
  });
}

}  // namespace goshawk::kernels::winograd
#endif
