#include "core/kernels/conv_winograd.hpp"

#include <algorithm>
#include <tuple>
#include <type_traits>
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
#include "core/kernels/transpose-inl.hpp"

#ifndef GOSHAWK_CORE_KERNELS_CONV_WINOGRAD_LAYOUT
#define GOSHAWK_CORE_KERNELS_CONV_WINOGRAD_LAYOUT
// What HWY_ATTR is for a lambda that GCC would rather call, its captures in memory.
#define GOSHAWK_INLINE HWY_ATTR __attribute__((always_inline))

namespace goshawk::kernels::winograd {

using Index = std::int64_t;

inline constexpr Index kTile = 4;   // output pixels of a tile along one axis
inline constexpr Index kPatch = 6;  // input pixels it sees
inline constexpr Index kPositions = kPatch * kPatch;
inline constexpr Index kKernel = 3;
inline constexpr Index kElements = kKernel * kKernel;
inline constexpr Index kBlock = simd::kChannelBlock;

/// Numbers of tiles in a column and a row of an image.
inline Index tile_rows(const Problem& p) {
  return (p.out_rows + kTile - 1) / kTile;
}
inline Index tile_columns(const Problem& p) {
  return (p.out_columns + kTile - 1) / kTile;
}

/// Elements from a transformed tile to the next: [tile][position][channel], and a line more than a tile
/// takes, so that the tiles at one position spread over the sets of the first-level cache. All distances
/// within a tile are constants where the number of channels is one.
inline constexpr Index tile_step(Index channels) {
  return kPositions * channels + kBlock;
}
inline constexpr Index kBlockStep = tile_step(kBlock);  // the same for a block of channels

/// Elements from the transformed kernels at one position to those at the next, with a line between them for
/// the same reason.
inline constexpr Index plane_step(Index channels, Index out_channels) {
  return channels * out_channels + kBlock;
}

/// The kernels of a convolution, `channels` to `out_channels`: [kKernel][kKernel][channels][out_channels]. If
/// `turned`, each is read from its end and they are [kKernel][kKernel][out_channels][channels].
struct Weights {
  const float* data;
  Index channels, out_channels;
  bool turned;
};

}  // namespace goshawk::kernels::winograd
#endif

HWY_BEFORE_NAMESPACE();
namespace goshawk::kernels::winograd {
namespace HWY_NAMESPACE {

using namespace goshawk::kernels::simd::HWY_NAMESPACE;
using goshawk::kernels::HWY_NAMESPACE::past_relu;
using goshawk::kernels::HWY_NAMESPACE::transpose;

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
  for_each(UpTo<Transform::kGroups>(), [&](auto group) GOSHAWK_INLINE {
    using Group = typename Transform::template Group<group>;
    V half[Transform::kOut][Transform::kIn];
    for_each(UpTo<Transform::kIn>(), [&](auto column) GOSHAWK_INLINE {
      Transform::template apply<group>([&](Index row) GOSHAWK_INLINE { return in(row, column); },
                                       [&](Index row, V value) GOSHAWK_INLINE { half[row][column] = value; });
    });
    for_each(Group(), [&](auto row) GOSHAWK_INLINE {
      for_each(UpTo<Transform::kGroups>(), [&](auto second) GOSHAWK_INLINE {
        Transform::template apply<second>([&](Index column) GOSHAWK_INLINE { return half[row][column]; },
                                          [&](Index column, V value)
                                              GOSHAWK_INLINE { out(row, column, value); });
      });
    });
  });
}

/// Calls f with the number of channels, as a constant where networks often have it. What GCC 12 makes of the
/// 36 addresses of a tile takes longer than the transform, unless their distances are constants.
template <class F>
HWY_INLINE void with_channels(Index channels, const F& f) {
  switch (channels) {
    case 16:
      return f(std::integral_constant<Index, 16>());
    case 32:
      return f(std::integral_constant<Index, 32>());
    case 64:
      return f(std::integral_constant<Index, 64>());
    default:
      return f(channels);
  }
}

/// The same for plane_step.
template <class F>
HWY_INLINE void with_plane_step(Index channels, Index out_channels, const F& f) {
  if (channels != out_channels) return f(plane_step(channels, out_channels));
  with_channels(channels, [&](auto n) HWY_ATTR {
    using N = decltype(n);
    if constexpr (std::is_same_v<N, Index>) {
      f(plane_step(n, n));
    } else {
      f(std::integral_constant<Index, plane_step(N::value, N::value)>());
    }
  });
}

/// Where a tile's kSide x kSide pixels are: a pointer to each row, to zeros where it is outside the image,
/// and which of its columns are inside. `zeros` has kSide pixels.
template <Index kSide>
struct Pixels {
  Pixels(const float* image, Index rows, Index columns, Index channels, Index top, Index left,
         const float* zeros) {
    const float* const corner = image + (top * columns + left) * channels;
    for_each(UpTo<kSide>(), [&](auto i) GOSHAWK_INLINE {
      row[i] = top + i >= 0 && top + i < rows ? corner + i * columns * channels : zeros;
      inside[i] = mask(left + i >= 0 && left + i < columns);
    });
  }

  /// The vector of channels from `channel` on of pixel (r, s); zero outside the image.
  template <class Channels>
  HWY_INLINE V load(Index r, Index s, Channels channels, Index channel) const {
    const float* const at = row[r] + s * channels + channel;
#if HWY_TARGET <= HWY_AVX3
    return hn::MaskedLoad(inside[s], d, at);
#else
    return inside[s] ? hn::LoadU(d, at) : hn::Zero(d);
#endif
  }

#if HWY_TARGET <= HWY_AVX3  // a masked load costs nothing more, and may be of an address that is not there
  using Inside = hn::Mask<D>;
  static Inside mask(bool all) {
    return hn::FirstN(d, all ? static_cast<size_t>(kVector) : 0);
  }
#else
  using Inside = bool;
  static Inside mask(bool all) {
    return all;
  }
#endif

  const float* row[kSide];
  Inside inside[kSide];
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

/// Transforms the kernels of the channels [channel, channel + kBlock) and all output channels. In `packed`
/// they lie as tap_block reads them: position p at p * plane_step, and there
/// [register block][channel][width of the block].
void TransformWeights(const Weights& w, Index channel, float* packed) {
  const Index element = w.channels * w.out_channels;
  constexpr Index kWidth = static_cast<Index>(kWidest) * kVector;
  float* const turned =
      w.turned ? simd::task_scratch().image.get<float>(kElements * kBlock * kWidth) : nullptr;
  each_block<float>(w.out_channels, [&](Index first, size_t vectors) HWY_ATTR {
    const Index width = static_cast<Index>(vectors) * kVector;
    const float* from = w.data + channel * w.out_channels + first;
    Index row = w.out_channels, plane = element;
    if (w.turned) {
      for (Index i = 0; i < kElements; ++i) {
        transpose(w.data + (kElements - 1 - i) * element + first * w.channels + channel, w.channels, width,
                  kBlock, turned + i * kBlock * width, width);
      }
      from = turned;
      row = width;
      plane = kBlock * width;
    }
    float* const to = packed + first * w.channels + channel * width;
    with_plane_step(w.channels, w.out_channels, [&](auto to_plane) HWY_ATTR {
      for (Index i = 0; i < kBlock; ++i) {
        for (Index out = 0; out < width; out += kVector) {
          const float* const kernel = from + i * row + out;
          float* const at = to + i * width + out;
          transform<WeightTransform>(
              [&](Index r, Index s)
                  GOSHAWK_INLINE { return hn::LoadU(d, kernel + (r * kKernel + s) * plane); },
              [&](Index r, Index s, V value)
                  GOSHAWK_INLINE { hn::Store(value, d, at + (r * kPatch + s) * to_plane); });
        }
      }
    });
  });
}

/// The transforms of the tiles [begin, begin + tiles) of images [*, rows, columns, channels], whose first
/// tile begins `top` rows and `left` columns before the image.
template <class Transform>
struct TileTransforms {
  const Problem& p;
  Index rows, columns, channels, top, left;
  Index begin, tiles;
  const float* zeros;  // kPatch pixels

  /// Of the channels [first, last), in blocks: to[block][tile][position][channel].
  void blocks(const float* images, Index first, Index last, float* to) const {
    with_channels(channels, [&](auto n) HWY_ATTR {
      each_tile(images, n, [&](const auto& pixels, Index t) HWY_ATTR {
        for (Index channel = first; channel < last; channel += kVector) {
          float* const at = to + ((channel - first) / kBlock * tiles + t) * kBlockStep + channel % kBlock;
          one(pixels, n, channel, at, std::integral_constant<Index, kBlock>());
        }
      });
    });
  }

  /// Of all channels: to[tile][position][channel].
  void whole(const float* images, float* to) const {
    with_channels(channels, [&](auto n) HWY_ATTR {
      each_tile(images, n, [&](const auto& pixels, Index t) HWY_ATTR {
        for (Index channel = 0; channel < n; channel += kVector) {
          one(pixels, n, channel, to + t * tile_step(n) + channel, n);
        }
      });
    });
  }

 private:
  template <class Channels, class F>
  HWY_INLINE void each_tile(const float* images, Channels n, const F& f) const {
    Place place(p, begin);
    for (Index t = 0; t < tiles; ++t, place.advance()) {
      f(Pixels<Transform::kIn>(images + place.image * rows * columns * n, rows, columns, n,
                               place.row * kTile - top, place.column * kTile - left, zeros),
        t);
    }
  }

  template <class Channels, class Position>
  static HWY_INLINE void one(const Pixels<Transform::kIn>& pixels, Channels n, Index channel, float* to,
                             Position position) {
    transform<Transform>([&](Index r, Index s) GOSHAWK_INLINE { return pixels.load(r, s, n, channel); },
                         [&](Index r, Index s, V value)
                             GOSHAWK_INLINE { hn::Store(value, d, to + (r * kPatch + s) * position); });
  }
};
using Inputs = TileTransforms<InputTransform>;
using OutputGrads = TileTransforms<OutputGradTransform>;

constexpr Index kPairs = 2;  // of a sum

/// [0, n) in as few parts of at most `most` as there can be, all about as long. Divides once: the parts are
/// needed at each of the 36 positions.
class Parts {
 public:
  Parts(Index n, size_t most)
      : count_((n + static_cast<Index>(most) - 1) / static_cast<Index>(most)),
        length_(n / count_),
        longer_(n % count_) {}

  /// f(first, length).
  template <class F>
  HWY_INLINE void each(const F& f) const {
    Index first = 0;
    for (Index i = 0; i < count_; ++i) {
      const Index length = length_ + (i < longer_ ? 1 : 0);
      f(first, length);
      first += length;
    }
  }

 private:
  Index count_, length_, longer_;  // the first `longer_` parts are one longer
};

/// The parts for register blocks of each width.
class BlockParts {
 public:
  explicit BlockParts(Index n) : one_(n, max_rows(1)), two_(n, max_rows(2)), widest_(n, max_rows(kWidest)) {}
  const Parts& of(size_t vectors) const { return vectors == 1 ? one_ : vectors == 2 ? two_ : widest_; }

 private:
  Parts one_, two_, widest_;
};

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
    if (epilogue.mask != nullptr) value = past_relu(hn::LoadU(d, epilogue.mask + i), value);
    return value;
  }

  const Epilogue& epilogue;
  V bias;
};

/// One output tile from its products [36][channels]: `rows` x `columns` pixels, from the result's element
/// `at` on.
template <bool kFinish, bool kWhole, class Channels>
HWY_INLINE void store_tile(const Sum& sum, const float* products, Index at, Index row_step, Index rows,
                           Index columns, Channels channels) {
  for (Index channel = 0; channel < channels; channel += kVector) {
    const float* const from = products + channel;
    const Finish finish(sum.epilogue, channel);
    const auto load = [&](Index r, Index c)
                          GOSHAWK_INLINE { return hn::Load(d, from + (r * kPatch + c) * channels); };
    transform<OutputTransform>(load, [&](Index r, Index c, V value) GOSHAWK_INLINE {
      if (!kWhole && (r >= rows || c >= columns)) return;
      const Index element = at + channel + r * row_step + c * channels;
      hn::StoreU(kFinish ? finish(value, element) : value, d, sum.result + element);
    });
  }
}

/// The output tiles [begin, begin + tiles) from their products [tile][36][channels]. kFinish: through the
/// epilogue.
template <bool kFinish, class Channels>
void store_tiles(const Problem& p, const Sum& sum, const float* products, Index begin, Index tiles,
                 Channels channels) {
  const Index row_step = p.out_columns * channels;
  Place place(p, begin);
  for (Index t = 0; t < tiles; ++t, place.advance()) {
    const Index top = place.row * kTile, left = place.column * kTile;
    const Index at = ((place.image * p.out_rows + top) * p.out_columns + left) * channels;
    const Index rows = std::min(kTile, p.out_rows - top), columns = std::min(kTile, p.out_columns - left);
    const float* const from = products + t * tile_step(channels);
    if (rows == kTile && columns == kTile) {
      store_tile<kFinish, true>(sum, from, at, row_step, rows, columns, channels);
    } else {
      store_tile<true, false>(sum, from, at, row_step, rows, columns, Index{channels});
    }
  }
}

/// Output tiles [begin, end) of the batch. Sums of pairs of images and transformed weights; the weights of
/// all pairs lie in one array.
void ForwardTiles(const Problem& p, std::span<const Sum> sums, Index begin, Index end) {
  const Index tiles = end - begin;
  const Index blocks = p.channels / kBlock;
  const Index x_size = blocks * tiles * kBlockStep, product_step = tile_step(p.out_channels);
  auto& scratch = simd::task_scratch();
  float* const transformed = scratch.image.get<float>(kPairs * x_size);
  float* const products = scratch.grad.get<float>(tiles * product_step);
  float* const zeros = scratch.row.get<float>(kPatch * p.channels);
  set_zero(zeros, zeros + kPatch * p.channels);
  const Inputs transform_input{p, p.rows, p.columns, p.channels, p.pad_top, p.pad_left, begin, tiles, zeros};

  auto* const taps = scratch.taps.get<simd::Tap>(kPairs * blocks);
  for (Index i = 0; i < kPairs * blocks; ++i) {
    taps[i] = {i / blocks * x_size + i % blocks * tiles * kBlockStep, kBlock};
  }
  const BlockParts parts(tiles);
  const float* held[kPairs] = {};  // whose transforms are there
  for (size_t s = 0; s < sums.size(); ++s) {
    const Sum& sum = sums[s];
    const Index terms = sum.terms();
    for (size_t t = 0; t < static_cast<size_t>(terms); ++t) {
      if (held[t] == sum.pairs[t].a) continue;
      held[t] = sum.pairs[t].a;
      transform_input.blocks(held[t], 0, p.channels, transformed + static_cast<Index>(t) * x_size);
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
    const float* const mask = sum.epilogue.mask;
    const bool new_mask = mask != nullptr && (s == 0 || mask != sums[s - 1].epilogue.mask);
    const Rows passed = new_mask ? rows_of_y(p, mask, begin, end) : Rows();
    Prefetcher prefetch_x0(x0.begin, x0.end, kPositions), prefetch_x1(x1.begin, x1.end, kPositions);
    Prefetcher prefetch_y(y.begin, y.end, kPositions), prefetch_residual(also.begin, also.end, kPositions);
    Prefetcher prefetch_mask(passed.begin, passed.end, kPositions);
    const Index between = terms == 1 ? 0 : sum.pairs[1].b - sum.pairs[0].b;
    for (Index position = 0; position < kPositions; ++position) {
      const float* const in = transformed + position * kBlock;
      float* const out = products + position * p.out_channels;
      const float* const weights = sum.pairs[0].b + position * plane_step(p.channels, p.out_channels);
      prefetch_x0.step();
      prefetch_x1.step();
      prefetch_y.step();
      prefetch_residual.step();
      prefetch_mask.step();
      each_block<float>(p.out_channels, [&](Index first, size_t vectors) {
        taps[blocks - 1].skip = between - p.channels * static_cast<Index>(vectors) * kVector;
        parts.of(vectors).each([&](Index tile, Index count) {
          find_tap_block<float, kBlockStep>(count, vectors)(
              in + tile * kBlockStep, taps, taps + terms * blocks, weights + first * p.channels,
              {out + tile * product_step + first, product_step, p.out_channels - first});
        });
      });
    }

    const Epilogue& e = sum.epilogue;
    const bool plain = e.bias == nullptr && e.residual == nullptr && !e.relu && e.mask == nullptr;
    with_channels(p.out_channels, [&](auto channels) HWY_ATTR {
      plain ? store_tiles<false>(p, sum, products, begin, tiles, channels)
            : store_tiles<true>(p, sum, products, begin, tiles, channels);
    });
  }
}

/// For the channels [first_channel, last_channel) and sum number s: partial + s * sum_size [36][channels]
/// [out_channels] += the products of tiles [begin, end) (= when `add` is false). A block of channels at a
/// time, so that its part of the sums stays in the cache.
void WeightGradTiles(const Problem& p, std::span<const Sum> sums, float* partial, Index sum_size, Index begin,
                     Index end, Index first_channel, Index last_channel, bool add) {
  const Index tiles = end - begin, terms = sums.front().terms(), columns = terms * tiles;
  const Index y_step = tile_step(p.out_channels);
  // Transforms of x are only kept beyond a block of channels where another sum may need them.
  const bool keep = sums.size() > 1;
  const Index x_block = keep ? columns * kBlockStep : 0;
  const Index blocks = (last_channel - first_channel) / kBlock;
  auto& scratch = simd::task_scratch();
  float* const transformed = scratch.image.get<float>((keep ? blocks : 1) * columns * kBlockStep);
  float* const gradients = scratch.grad.get<float>(columns * y_step);
  const Index widest = kPatch * std::max(p.channels, p.out_channels);
  float* const zeros = scratch.row.get<float>(widest);
  set_zero(zeros, zeros + widest);
  const Inputs transform_input{p, p.rows, p.columns, p.channels, p.pad_top, p.pad_left, begin, tiles, zeros};
  const BlockParts parts(kBlock);
  const OutputGrads transform_grad{p, p.out_rows, p.out_columns, p.out_channels, 0, 0, begin, tiles, zeros};

  Pair held[kPairs];  // whose transforms are there
  for (size_t s = 0; s < sums.size(); ++s) {
    const auto& pairs = sums[s].pairs;
    for (size_t t = 0; t < static_cast<size_t>(terms); ++t) {
      if (held[t].b == pairs[t].b) continue;
      held[t].b = pairs[t].b;
      transform_grad.whole(held[t].b, gradients + static_cast<Index>(t) * tiles * y_step);
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
        transform_input.blocks(pairs[t].a, block, block + kBlock,
                               transformed + at * x_block + static_cast<Index>(t) * tiles * kBlockStep);
      }
      for (Index position = 0; position < kPositions; ++position) {
        for (Prefetcher& some : prefetch) some.step();
        each_block<float>(p.out_channels, [&](Index first, size_t vectors) {
          parts.of(vectors).each([&](Index row, Index count) {
            const GradPixels<float> pixels{.x = transformed + at * x_block + position * kBlock + row,
                                           .gy = gradients + position * p.out_channels + first,
                                           .images = 1,
                                           .rows = 1,
                                           .columns = columns,
                                           .x_column = kBlockStep,
                                           .gy_column = y_step};
            find_grad_block<float>(count, vectors)(
                pixels, add, to + (position * p.channels + block + row) * p.out_channels + first,
                p.out_channels);
          });
        });
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

/// `turned`: how to read the kernels of the pairs (Weights).
void convolve(const Problem& p, std::span<const Sum> sums, bool turned) {
  std::vector<const float*> kernels;
  for (const Sum& sum : sums) {
    for (Index t = 0; t < sum.terms(); ++t) {
      const float* const w = sum.pairs[static_cast<std::size_t>(t)].b;
      if (std::find(kernels.begin(), kernels.end(), w) == kernels.end()) kernels.push_back(w);
    }
  }
  const Index size = kPositions * plane_step(p.channels, p.out_channels);
  const auto count = static_cast<Index>(kernels.size());
  const std::shared_ptr<std::byte[]> memory = allocate(count * size * Index{sizeof(float)});
  auto* const packed = reinterpret_cast<float*>(memory.get());
  const Index blocks = p.channels / kBlock;
  parallel_for(count * blocks, 1, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      const Weights w{kernels[static_cast<std::size_t>(i / blocks)], p.channels, p.out_channels, turned};
      HWY_DYNAMIC_DISPATCH(TransformWeights)(w, i % blocks * kBlock, packed + i / blocks * size);
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
  convolve(p, sums, false);
}

void input_grad(const Problem& p, std::span<const Sum> sums) {
  convolve(p, sums, true);
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
