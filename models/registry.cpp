#include "models/registry.hpp"

#include <fmt/ranges.h>
#include <functional>
#include <map>

#include "core/error.hpp"
#include "core/random.hpp"
#include "models/resnet_cifar.hpp"
#include "models/squeezenext.hpp"

namespace goshawk {
namespace {

struct Entry {
  InputSpec input;
  std::function<std::unique_ptr<Module>(const ModelOptions&, Random&)> make;
};

// Square colour pictures, normalised as for ImageNet; the usual models for CIFAR are trained that way too.
constexpr InputSpec square_pictures(std::int64_t size) {
  return {.height = size,
          .width = size,
          .channels = 3,
          .mean = {0.485, 0.456, 0.406},
          .std = {0.229, 0.224, 0.225}};
}

const std::map<std::string, Entry, std::less<>>& entries() {
  static const auto all = [] {
    std::map<std::string, Entry, std::less<>> models;
    for (const int depth : {20, 32, 44, 56}) {
      for (const Shortcut shortcut : {Shortcut::subsample, Shortcut::projection}) {
        const std::string name =
            fmt::format("resnet{}{}", depth, shortcut == Shortcut::subsample ? "" : "_b");
        models[name] = {
            square_pictures(32), [depth, shortcut](const ModelOptions& options, Random& random) {
              return std::make_unique<ResNetCifar>(
                  ResNetCifarConfig{.depth = depth, .classes = options.classes, .shortcut = shortcut},
                  random);
            }};
      }
    }
    for (const auto& [variant, suffix] :
         {std::pair(SqueezeNextVariant::sqnxt23, "23"), std::pair(SqueezeNextVariant::sqnxt23v5, "23v5")}) {
      for (const double width : {1.0, 2.0}) {
        const std::string name = fmt::format("squeezenext{}{}", suffix, width == 1 ? "" : "_w2");
        models[name] = {
            square_pictures(227),
            [variant = variant, width = width](const ModelOptions& options, Random& random) {
              return std::make_unique<SqueezeNext>(
                  SqueezeNextConfig{.variant = variant, .width = width, .classes = options.classes}, random);
            }};
      }
    }
    return models;
  }();
  return all;
}

const Entry& find(std::string_view name) {
  const auto it = entries().find(name);
  if (it == entries().end()) {
    throw UsageError(fmt::format("[make_model] there is no model '{}'; choose one of {}", name,
                                 fmt::join(model_names(), ", ")));
  }
  return it->second;
}

}  // namespace

std::vector<std::string> model_names() {
  std::vector<std::string> names;
  for (const auto& [name, entry] : entries()) names.push_back(name);
  return names;
}

InputSpec model_input(std::string_view name) {
  return find(name).input;
}

std::unique_ptr<Module> make_model(std::string_view name, const ModelOptions& options) {
  const Entry& entry = find(name);
  Random random(options.seed);
  std::unique_ptr<Module> model = entry.make(options, random);
  model->to(options.dtype);
  return model;
}

}  // namespace goshawk
