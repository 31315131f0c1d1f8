#include "nn/named_tensors.hpp"

#include <algorithm>

#include "core/error.hpp"

namespace goshawk {

void copy_named_tensors(const std::vector<NamedBuffer>& own,
                        std::span<const std::pair<std::string, Tensor>> given, const std::string& source,
                        std::string_view who) {
  std::vector<const Tensor*> found;
  for (const NamedBuffer& buffer : own) {
    const auto it = std::find_if(given.begin(), given.end(),
                                 [&](const auto& entry) { return entry.first == buffer.name; });
    check(it != given.end(),
          "[{}::load_state] {}: tensor '{}' is missing; resume with the options the run was started with, or "
          "start anew",
          who, source, buffer.name);
    check(it->second.shape() == buffer.tensor.shape() && it->second.dtype() == buffer.tensor.dtype(),
          "[{}::load_state] {}: tensor '{}' is {} {} instead of {} {}; resume with the model the run was "
          "started with",
          who, source, buffer.name, it->second.dtype(), it->second.shape(), buffer.tensor.dtype(),
          buffer.tensor.shape());
    found.push_back(&it->second);
  }
  for (const auto& entry : given) {
    check(
        std::any_of(own.begin(), own.end(),
                    [&](const NamedBuffer& buffer) { return buffer.name == entry.first; }),
        "[{}::load_state] {}: tensor '{}' does not belong here; resume with the options the run was started "
        "with",
        who, source, entry.first);
  }
  check(given.size() == own.size(), "[{}::load_state] {}: {} tensors were given for {}; a name occurs twice",
        who, source, given.size(), own.size());
  for (std::size_t i = 0; i < own.size(); ++i) own[i].tensor.copy_from(*found[i]);
}

}  // namespace goshawk
