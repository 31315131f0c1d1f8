#include <doctest/doctest.h>
#include <string>

#include "core/error.hpp"
#include "core/random.hpp"
#include "core/safetensors.hpp"
#include "nn/checkpoint.hpp"
#include "nn/init.hpp"
#include "nn/layers.hpp"
#include "nn/state_dict.hpp"
#include "tests/support/scratch_directory.hpp"

using namespace goshawk;

namespace {

struct Net : Module {
  explicit Net(std::uint64_t seed) {
    register_module("conv", conv);
    register_module("bn", bn);
    Random random(seed);
    pytorch_default_init(conv, random);
  }
  Variable forward(const Variable& x) override { return bn(conv(x)); }
  Conv2d conv{{.in = 2, .out = 4, .kernel = 3, .bias = true}};
  BatchNorm2d bn{{.channels = 4}};
};

}  // namespace

TEST_CASE("a checkpoint goes through a file with its metadata, in file layout") {
  const ScratchDirectory scratch;
  const std::string path = scratch / "net.safetensors";
  Net saved(1), loaded(2);
  saved.bn.running_var.fill(3);
  save_checkpoint(path, saved, {{"epoch", "7"}});
  CHECK(read_safetensors(path).at("conv.weight").shape() == Shape{4, 2, 3, 3});
  const auto metadata = load_checkpoint(path, loaded);
  CHECK(metadata.at("epoch") == "7");
  const StateDict a = state_dict(saved), b = state_dict(loaded);
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    CHECK(a[i].first == b[i].first);
    CHECK(a[i].second.to_vector<float>() == b[i].second.to_vector<float>());
  }
}

TEST_CASE("errors name the file") {
  const ScratchDirectory scratch;
  const std::string path = scratch / "net.safetensors";
  Net net(1);
  Linear other({.in = 2, .out = 2});
  save_checkpoint(path, other);
  for (const std::string& bad : {path, scratch / "nowhere.safetensors"}) {
    CHECK(contains(error_of([&] { load_checkpoint(bad, net); }), bad));
  }
}
