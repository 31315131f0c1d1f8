// Module: something with parameters, buffers and sub-modules that all have names.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "autograd/variable.hpp"

namespace goshawk {

/// Training and evaluation differ for layers such as batch normalisation. The mode is always set explicitly.
enum class Mode : std::uint8_t { train, eval };

struct NamedParameter {
  std::string name;   ///< dotted, such as "layer1.0.conv1.weight"
  Variable variable;  ///< a leaf: the handle shares its elements with the module's own
};
struct NamedBuffer {
  std::string name;
  Tensor tensor;  ///< shares its elements with the module's own
};

class Module;
struct NamedModule {
  std::string name;  ///< dotted; empty for the module that was asked
  Module* module;
};

/// Base of layers and models. A module neither copies nor moves, because it registers the addresses of its
/// members, under their names, in its constructor. Everything is listed in the order of registration: a
/// module's own parameters (or buffers) first, then those of its sub-modules, which is PyTorch's order too.
class Module {
 public:
  Module() = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;
  virtual ~Module() = default;

  virtual Variable forward(const Variable& x) = 0;
  Variable operator()(const Variable& x) { return forward(x); }

  /// Sets the mode of this module and of all modules below it. New modules are in train mode.
  void set_mode(Mode mode);
  Mode mode() const { return mode_; }

  std::vector<Variable> parameters() const;
  std::vector<NamedParameter> named_parameters() const;
  std::vector<NamedBuffer> named_buffers() const;
  /// This module (with an empty name) and all below it, each before its own sub-modules.
  std::vector<NamedModule> named_modules();
  /// Number of elements in all parameters.
  std::int64_t parameter_count() const;

  /// Converts all parameters and buffers to f32 or f64. Parameters become new leaves, so gradients,
  /// optimisers and graphs made before refer to the old ones; what modules share stays shared. Does nothing
  /// to what already has that type.
  void to(DType dtype);

 protected:
  /// The member must outlive the module and be given before first use. Names are unique within a module, not
  /// empty and without dots; otherwise Error is thrown.
  void register_parameter(std::string name, Variable& parameter);
  void register_buffer(std::string name, Tensor& buffer);
  void register_module(std::string name, Module& module);

 private:
  template <class T>
  struct Entry {
    std::string name;
    T* member;
  };

  void check_name(std::string_view name) const;
  /// Calls f(prefix, module) for this module and all below it; the prefix ends with a dot unless it is empty.
  void visit(const std::string& prefix,
             const std::function<void(const std::string&, const Module&)>& f) const;

  std::vector<Entry<Variable>> parameters_;
  std::vector<Entry<Tensor>> buffers_;
  std::vector<Entry<Module>> modules_;
  Mode mode_ = Mode::train;
};

}  // namespace goshawk
