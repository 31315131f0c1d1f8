#include "datasets/synthetic.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "core/parallel.hpp"
#include "datasets/streams.hpp"

namespace goshawk {
namespace {

// Pictures must be the same on every machine, so nothing here calls a function that libraries round
// differently (sin, exp, …): only + − × ÷, sqrt, floor, abs, min and max.

constexpr std::int64_t kSide = 32;
constexpr int kClasses = 10;
constexpr int kShapes = 5;  // class = shape + kShapes × texture

struct Point {
  double x = 0;
  double y = 0;
};

using Colour = std::array<double, 3>;

double between(Random& random, double low, double high) {
  return low + (high - low) * random.uniform();
}

// Uniform on the unit circle, by rejection.
Point direction(Random& random) {
  for (;;) {
    const Point p{between(random, -1, 1), between(random, -1, 1)};
    const double square = p.x * p.x + p.y * p.y;
    if (square > 0.01 && square <= 1) return {p.x / std::sqrt(square), p.y / std::sqrt(square)};
  }
}

// Uniform on the unit sphere of RGB differences.
Colour colour_direction(Random& random) {
  for (;;) {
    Colour c{between(random, -1, 1), between(random, -1, 1), between(random, -1, 1)};
    const double square = c[0] * c[0] + c[1] * c[1] + c[2] * c[2];
    if (square < 0.01 || square > 1) continue;
    for (double& channel : c) channel /= std::sqrt(square);
    return c;
  }
}

// A sine-like wave of period 1 made of two parabolas, in [−1, 1].
double wave(double turns) {
  const double u = 2 * (turns - std::floor(turns)) - 1;
  return 4 * u * (std::abs(u) - 1);
}

// Distance to a box around the origin (exact outside its corners' influence, a bound there).
double box(Point p, double half_width, double half_height) {
  return std::max(std::abs(p.x) - half_width, std::abs(p.y) - half_height);
}

// Signed distance (negative inside) to shape `kind` of circumradius about 1.
double shape_distance(int kind, Point p) {
  const double radius = std::sqrt(p.x * p.x + p.y * p.y);
  switch (kind) {
    case 0:  // disc
      return radius - 0.86;
    case 1:  // square
      return box(p, 0.76, 0.76);
    case 2: {  // triangle: the half-planes of three sides, 120 degrees apart
      constexpr double kSin60 = 0.8660254037844386;
      const double sloped = kSin60 * std::abs(p.x) + 0.5 * p.y;
      return std::max(sloped, -p.y) - 0.58;
    }
    case 3:  // ring
      return std::abs(radius - 0.70) - 0.27;
    default:  // cross
      return std::min(box(p, 1.0, 0.32), box(p, 0.32, 1.0));
  }
}

// How much of a pixel lies inside an edge at signed distance `distance` in pixels.
double coverage(double distance) {
  return std::clamp(0.5 - distance, 0.0, 1.0);
}

// A rotated coordinate frame: pixels in, units of `scale` pixels out.
struct Frame {
  Point centre;
  Point axis;
  double scale = 1;

  Point local(Point pixel) const {
    const Point d{pixel.x - centre.x, pixel.y - centre.y};
    return {(axis.x * d.x + axis.y * d.y) / scale, (axis.x * d.y - axis.y * d.x) / scale};
  }
};

struct Wave {
  Point frequency;  // turns per pixel
  double phase = 0;
  Colour amplitude{};
};

struct Distractor {
  Frame frame;
  double half_width = 0;
  double half_height = 0;
  bool round = false;
  Colour colour{};
};

Colour offset(const Colour& base, const Colour& direction, double amount) {
  Colour c;
  for (std::size_t i = 0; i < 3; ++i) c[i] = std::clamp(base[i] + amount * direction[i], 0.0, 1.0);
  return c;
}

// Everything that is random about one picture except its pixel noise.
struct Scene {
  Colour background{};
  std::array<Wave, 3> waves;
  int shape = 0;
  int other_shape = 0;  // the shape is half way between the two
  bool checks = false;
  Frame object;
  Frame texture;  // scale = period
  Colour colour_a{};
  Colour colour_b{};
  std::vector<Distractor> distractors;
};

Distractor draw_distractor(Random& random, const SyntheticOptions& options, const Colour& background) {
  Distractor d;
  d.frame = {{between(random, 0, kSide), between(random, 0, kSide)}, direction(random), 1};
  d.round = random.uniform() < 0.5;
  d.half_width = d.round ? between(random, 1.2, 2.6) : between(random, 2.5, 6.0);
  d.half_height = d.round ? d.half_width : between(random, 0.6, 1.3);
  // Not as arguments of one call, whose order of evaluation differs between compilers.
  const Colour towards = colour_direction(random);
  const double contrast = between(random, options.min_contrast, options.max_contrast);
  d.colour = offset(background, towards, contrast);
  return d;
}

Scene draw_scene(int label, const SyntheticOptions& options, Random& random) {
  Scene scene;
  scene.shape = label % kShapes;
  scene.checks = label >= kShapes;
  const int another = (scene.shape + 1 + static_cast<int>(random.below(kShapes - 1))) % kShapes;
  scene.other_shape = random.uniform() < options.ambiguous ? another : scene.shape;
  for (double& channel : scene.background) channel = between(random, 0.25, 0.75);
  for (Wave& w : scene.waves) {
    const Point along = direction(random);
    // From one bend across the picture to waves nearly as fine as the fill textures.
    const double frequency = between(random, 0.02, 0.16);
    w.frequency = {along.x * frequency, along.y * frequency};
    w.phase = random.uniform();
    const Colour tint = colour_direction(random);
    for (std::size_t c = 0; c < 3; ++c) w.amplitude[c] = options.background * tint[c];
  }
  const double radius = between(random, options.min_radius, options.max_radius);
  // The shape may lose its outermost pixels at the border, never more.
  const double room = std::max(0.0, kSide / 2.0 - radius + 1.5);
  scene.object.centre = {kSide / 2.0 + between(random, -room, room),
                         kSide / 2.0 + between(random, -room, room)};
  scene.object.axis = direction(random);
  scene.object.scale = radius;
  scene.texture.centre = {between(random, 0, 8), between(random, 0, 8)};
  scene.texture.axis = direction(random);
  scene.texture.scale = between(random, 4.0, 6.0);
  const double contrast = between(random, options.min_contrast, options.max_contrast);
  const Colour towards_a = colour_direction(random);
  Colour towards_b = colour_direction(random);
  // The two fill colours differ from each other about as much as from the background.
  const auto dot = [&] {
    return towards_a[0] * towards_b[0] + towards_a[1] * towards_b[1] + towards_a[2] * towards_b[2];
  };
  while (dot() > 0.5) towards_b = colour_direction(random);
  scene.colour_a = offset(scene.background, towards_a, contrast);
  scene.colour_b = offset(scene.background, towards_b, contrast);
  const auto distractors = random.below(static_cast<std::uint64_t>(options.max_distractors) + 1);
  for (std::uint64_t i = 0; i < distractors; ++i) {
    scene.distractors.push_back(draw_distractor(random, options, scene.background));
  }
  return scene;
}

void blend(Colour& under, const Colour& over, double opacity) {
  for (std::size_t c = 0; c < 3; ++c) under[c] += opacity * (over[c] - under[c]);
}

Colour shade(const Scene& scene, Point pixel) {
  Colour colour = scene.background;
  for (const Wave& w : scene.waves) {
    const double value = wave(w.frequency.x * pixel.x + w.frequency.y * pixel.y + w.phase);
    for (std::size_t c = 0; c < 3; ++c) colour[c] += w.amplitude[c] * value;
  }
  const Point p = scene.object.local(pixel);
  const double distance =
      scene.object.scale * (shape_distance(scene.shape, p) + shape_distance(scene.other_shape, p)) / 2;
  if (const double inside = coverage(distance); inside > 0) {
    const Point t = scene.texture.local(pixel);
    const double value = scene.checks ? wave(t.x) * wave(t.y) : wave(t.x);
    Colour fill = scene.colour_a;
    blend(fill, scene.colour_b, std::clamp(0.5 + 1.2 * value, 0.0, 1.0));
    blend(colour, fill, inside);
  }
  for (const Distractor& d : scene.distractors) {
    const Point q = d.frame.local(pixel);
    const double edge =
        d.round ? std::sqrt(q.x * q.x + q.y * q.y) - d.half_width : box(q, d.half_width, d.half_height);
    blend(colour, d.colour, coverage(edge));
  }
  return colour;
}

// The sum of the four bytes of a random word: nearly normal (Irwin–Hall), standardised.
double noise_from(std::uint32_t word) {
  const double sum = (word & 255) + (word >> 8 & 255) + (word >> 16 & 255) + (word >> 24);
  constexpr double kMean = 4 * 127.5;
  constexpr double kInverseDeviation = 0.006765875725;  // 1 / sqrt(4 (256² − 1) / 12)
  return (sum - kMean) * kInverseDeviation;
}

void draw_picture(int label, const SyntheticOptions& options, Random& random, std::uint8_t* out) {
  const Scene scene = draw_scene(label, options, random);
  for (std::int64_t y = 0; y < kSide; ++y) {
    for (std::int64_t x = 0; x < kSide; ++x) {
      const Colour colour = shade(scene, {static_cast<double>(x) + 0.5, static_cast<double>(y) + 0.5});
      for (const double channel : colour) {
        const double value = channel + options.noise * noise_from(random.next_u32());
        *out++ = static_cast<std::uint8_t>(std::clamp(value, 0.0, 1.0) * 255 + 0.5);
      }
    }
  }
}

}  // namespace

std::shared_ptr<const ImageDataset> make_synthetic(Split split, std::int64_t count,
                                                   const SyntheticOptions& options) {
  check(count > 0, "[make_synthetic] {} pictures were asked for; ask for at least 1", count);
  check(
      options.noise >= 0 && options.background >= 0 && options.max_distractors >= 0 &&
          options.min_contrast > 0 && options.min_contrast <= options.max_contrast &&
          options.min_radius >= 2 && options.min_radius <= options.max_radius &&
          options.max_radius <= kSide / 2.0 && options.ambiguous >= 0 && options.ambiguous <= 1,
      "[make_synthetic] an option is out of range: noise {} and background {} >= 0, max_distractors {} >= 0, "
      "0 < min_contrast {} <= max_contrast {}, 2 <= min_radius {} <= max_radius {} <= {}, ambiguous {} in "
      "[0, 1]",
      options.noise, options.background, options.max_distractors, options.min_contrast, options.max_contrast,
      options.min_radius, options.max_radius, kSide / 2, options.ambiguous);
  Tensor images = Tensor::empty({count, kSide, kSide, 3}, DType::u8);
  Tensor labels = Tensor::empty({count}, DType::i64);
  auto* pixels = images.data<std::uint8_t>();
  auto* label = labels.data<std::int64_t>();
  parallel_for(count, 32, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      label[i] = i % kClasses;
      Random random(options.seed, stream::number(stream::kSynthetic, split == Split::train ? 0 : 1, i));
      draw_picture(static_cast<int>(label[i]), options, random, pixels + i * kSide * kSide * 3);
    }
  });
  std::vector<std::string> class_names;
  for (const char* texture : {"striped", "checked"}) {
    for (const char* shape : {"disc", "square", "triangle", "ring", "cross"}) {
      class_names.push_back(fmt::format("{} {}", texture, shape));
    }
  }
  return std::make_shared<ImageDataset>(
      std::move(images), std::move(labels), std::move(class_names),
      fmt::format("synthetic {} set (seed {})", split_name(split), options.seed));
}

}  // namespace goshawk
