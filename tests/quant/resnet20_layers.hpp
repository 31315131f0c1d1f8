// The weighted layers of ResNet-20 with option A shortcuts (He et al. 2016, section 4.2), written out by
// hand.
#pragma once

#include <string>
#include <vector>

#include "quant/bits.hpp"
#include "quant/sensitivity.hpp"

namespace goshawk::test {

/// 20 layers, 268,336 weights.
inline std::vector<LayerBits> resnet20_layers() {
  std::vector<LayerBits> layers = {{.name = "conv1", .parameters = 432, .input_elements = 3072}};
  const std::int64_t widths[] = {16, 32, 64};
  const std::int64_t sides[] = {32, 16, 8};
  for (int stage = 0; stage < 3; ++stage) {
    for (int block = 0; block < 3; ++block) {
      const bool shrinks = stage > 0 && block == 0;
      const std::int64_t out = widths[stage], in = shrinks ? out / 2 : out;
      const std::int64_t side = shrinks ? 2 * sides[stage] : sides[stage];
      const std::string prefix = "layer" + std::to_string(stage + 1) + "." + std::to_string(block);
      layers.push_back(
          {.name = prefix + ".conv1", .parameters = 9 * in * out, .input_elements = side * side * in});
      layers.push_back({.name = prefix + ".conv2",
                        .parameters = 9 * out * out,
                        .input_elements = sides[stage] * sides[stage] * out});
    }
  }
  layers.push_back({.name = "linear", .parameters = 640, .input_elements = 64});
  return layers;
}

}  // namespace goshawk::test
