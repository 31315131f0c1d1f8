#include "models/registry.hpp"

#include <fmt/ranges.h>
#include <functional>
#include <map>

#include "core/error.hpp"
#include "core/random.hpp"
#include "models/resnet_cifar.hpp"

namespace goshawk {
namespace {

struct Entry {
  InputSpec input;
  std::function<std::unique_ptr<Module>(const ModelOptions&, Random&)> make;
};

constexpr InputSpec kCifarInput{
    .height = 32, .width = 32, .channels = 3, .mean = {0.485, 0.456, 0.406}, .std = {0.229, 0.224, 0.225}};

const std::map<std::string, Entry, std::less<>>& entries() {
  static const auto all = [] {
    std::map<std::string, Entry, std::less<>> models;
    for (const int depth : {20, 32, 44, 56}) {
      for (const Shortcut shortcut : {Shortcut::subsample, Shortcut::projection}) {
        const std::string name =
            fmt::format("resnet{}{}", depth, shortcut == Shortcut::subsample ? "" : "_b");
        models[name] = {
            kCifarInput, [depth, shortcut](const ModelOptions& options, Random& random) {
              return std::make_unique<ResNetCifar>(
                  ResNetCifarConfig{.depth = depth, .classes = options.classes, .shortcut = shortcut},
                  random);
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
