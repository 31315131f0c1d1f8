#include <algorithm>
#include <array>
#include <cmath>
#include <doctest/doctest.h>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/safetensors.hpp"
#include "models/registry.hpp"
#include "nn/state_dict.hpp"
#include "tests/apps/run_program.hpp"

using namespace goshawk;

namespace {

using Tensors = std::vector<std::pair<std::string, Tensor>>;

/// sin(12.9898 (i + 1) + 78.233 (t + 1)): numbers without a pattern that another program can make too.
Tensor wave(const Shape& shape, int t, double scale = 1, double offset = 0) {
  Tensor values = Tensor::empty(shape, DType::f64);
  const auto span = values.span<double>();
  for (std::size_t i = 0; i < span.size(); ++i) {
    span[i] = offset + scale * std::sin(12.9898 * static_cast<double>(i + 1) + 78.233 * (t + 1));
  }
  return values;
}

/// ResNet-20 weights from waves, in file layout, with outputs of a trained net's size.
Tensors make_weights() {
  Tensors weights;
  for (const auto& [name, tensor] : state_dict(*make_model("resnet20"))) {
    const Shape& shape = tensor.shape();
    const int t = static_cast<int>(weights.size());
    if (shape.size() == 4) {
      const auto fan_in = static_cast<double>(shape[1] * shape[2] * shape[3]);
      weights.emplace_back(name, wave(shape, t, 2 / std::sqrt(fan_in)));
    } else if (name == "linear.weight") {
      weights.emplace_back(name, wave(shape, t, 0.3));
    } else if (name.ends_with("running_var")) {
      weights.emplace_back(name, wave(shape, t, 0.6, 2));
    } else if (name.find("bn") != std::string::npos && name.ends_with(".weight")) {
      weights.emplace_back(name, wave(shape, t, 0.15, 0.5));
    } else {
      weights.emplace_back(name, wave(shape, t, 0.1));
    }
  }
  return weights;
}

bool is_parameter(const std::string& name) {
  return name.find("running") == std::string::npos;
}

Tensors make_vector(int first_wave) {
  Tensors vector;
  for (const auto& [name, tensor] : make_weights()) {
    if (is_parameter(name)) {
      vector.emplace_back(name, wave(tensor.shape(), first_wave + static_cast<int>(vector.size())));
    }
  }
  return vector;
}

Tensors make_batch(const Shape& shape = {4, 3, 8, 12}) {
  std::vector<std::int64_t> labels;
  for (std::int64_t i = 0; i < shape[0]; ++i)
    labels.push_back(std::array<std::int64_t, 4>{3, 1, 7, 1}[i % 4]);
  return {{"images", wave(shape, 1000)}, {"labels", Tensor::from(labels, {shape[0]})}};
}

Tensor& entry(Tensors& tensors, const std::string& name) {
  const auto it =
      std::find_if(tensors.begin(), tensors.end(), [&](const auto& e) { return e.first == name; });
  REQUIRE(it != tensors.end());
  return it->second;
}

/// Inputs on disk and the command line that uses them.
struct Command {
  ScratchDirectory scratch;
  std::map<std::string, std::string> options = {
      {"--model", "resnet20"}, {"--weights", path("w")}, {"--batch", path("b")}, {"--vector", path("v")},
      {"--bn", "eval"},        {"--dtype", "f64"},       {"--out", path("o")},
  };

  std::string path(const std::string& name) const {
    return (scratch.path() / (name + ".safetensors")).string();
  }

  Command() {
    write_safetensors(path("w"), make_weights());
    write_safetensors(path("b"), make_batch());
    write_safetensors(path("v"), make_vector(500));
  }

  ProgramResult run() const {
    std::vector<std::string> arguments = {"hvp"};
    for (const auto& [name, value] : options) {
      arguments.push_back(name);
      arguments.push_back(value);
    }
    return run_built_program("goshawk", arguments);
  }

  SafeTensors result() const {
    const ProgramResult ran = run();
    INFO(ran.err);
    REQUIRE(ran.status == 0);
    return read_safetensors(options.at("--out"));
  }

  SafeTensors result_for(const std::string& file, const Tensors& tensors) const {
    write_safetensors(path(file), tensors);
    return result();
  }
};

/// Σ over parameters of ⟨a.name, b.prefix+name⟩.
double inner(const Tensors& a, const SafeTensors& b, const std::string& prefix) {
  double sum = 0;
  for (const auto& [name, tensor] : a) {
    const Tensor x = tensor.to(DType::f64), y = b.at(prefix + name).to(DType::f64);
    REQUIRE(x.shape() == y.shape());
    for (std::int64_t i = 0; i < x.numel(); ++i) sum += x.data<double>()[i] * y.data<double>()[i];
  }
  return sum;
}

/// The results with that prefix, as f64, without it.
Tensors part(const SafeTensors& file, const std::string& prefix) {
  Tensors found;
  for (const auto& [name, tensor] : file.tensors) {
    if (name.starts_with(prefix)) found.emplace_back(name.substr(prefix.size()), tensor.to(DType::f64));
  }
  return found;
}

Tensors combine(double a, const Tensors& x, double b, const Tensors& y) {
  REQUIRE(x.size() == y.size());
  Tensors sum;
  for (std::size_t k = 0; k < x.size(); ++k) {
    REQUIRE(x[k].first == y[k].first);
    Tensor s = Tensor::empty(x[k].second.shape(), DType::f64);
    for (std::int64_t i = 0; i < s.numel(); ++i) {
      s.data<double>()[i] = a * x[k].second.data<double>()[i] + b * y[k].second.data<double>()[i];
    }
    sum.emplace_back(x[k].first, s);
  }
  return sum;
}

double length(const Tensors& x) {
  double sum = 0;
  for (const auto& [name, tensor] : x) {
    for (const double value : tensor.span<double>()) sum += value * value;
  }
  return std::sqrt(sum);
}

/// ‖x − y‖ / ‖y‖
double distance(const Tensors& x, const Tensors& y) {
  return length(combine(1, x, -1, y)) / length(y);
}

bool same_bits(const SafeTensors& a, const SafeTensors& b) {
  return std::equal(a.tensors.begin(), a.tensors.end(), b.tensors.begin(), b.tensors.end(),
                    [](const auto& x, const auto& y) {
                      return x.first == y.first && x.second.shape() == y.second.shape() &&
                             x.second.dtype() == y.second.dtype() &&
                             std::equal(x.second.raw(), x.second.raw() + x.second.bytes(), y.second.raw());
                    });
}

Tensors to_f32(const Tensors& tensors) {
  Tensors converted;
  for (const auto& [name, tensor] : tensors) converted.emplace_back(name, tensor.to(DType::f32));
  return converted;
}

const std::vector<std::string> kModes = {"eval", "train"};

}  // namespace

TEST_CASE("hvp writes loss, gradient and product of every parameter in file layout and the asked type") {
  Command command;
  for (const std::string dtype : {"f32", "f64"}) {
    command.options["--dtype"] = dtype;
    const SafeTensors result = command.result();
    const DType type = dtype == "f32" ? DType::f32 : DType::f64;
    std::size_t parameters = 0;
    for (const auto& [name, tensor] : make_weights()) {
      if (!is_parameter(name)) continue;
      ++parameters;
      for (const std::string prefix : {"grad.", "hvp."}) {
        CHECK(result.at(prefix + name).shape() == tensor.shape());
        CHECK(result.at(prefix + name).dtype() == type);
      }
    }
    CHECK(parameters == 59);
    CHECK(result.tensors.size() == 2 * parameters + 1);
    CHECK(result.at("loss").shape() == Shape{});
    CHECK(result.at("loss").dtype() == type);
  }
}

// The numbers are PyTorch 1.13's in f64, by double backward through the same weights, batch and vectors.
TEST_CASE("hvp agrees with another framework") {
  struct Golden {
    double loss, u_gradient, v_product, u_product, gradient_norm, product_norm;
  };
  const std::map<std::string, Golden> golden = {
      {"eval",
       {3.74414127639614, -15.2587764943531, 1024.00495548301, 897.890812562324, 14.2142959803935,
        549.779083311734}},
      {"train",
       {3.00018191200174, 58.1999039689941, 19570.5913128285, 4820.94099311098, 126.119229776291,
        27917.3899373327}},
  };
  Command command;
  for (const std::string& mode : kModes) {
    CAPTURE(mode);
    command.options["--bn"] = mode;
    const SafeTensors result = command.result();
    const Golden& g = golden.at(mode);
    const auto close = [](double value, double wanted) {
      return std::abs(value - wanted) <= 1e-11 * std::abs(wanted);
    };
    const Tensors u = make_vector(2000), v = make_vector(500);
    CHECK(close(result.at("loss").item(), g.loss));
    CHECK(close(length(part(result, "grad.")), g.gradient_norm));
    CHECK(close(length(part(result, "hvp.")), g.product_norm));
    // Inner products cancel: their error is measured by the lengths.
    CHECK(std::abs(inner(u, result, "grad.") - g.u_gradient) <= 1e-13 * length(u) * g.gradient_norm);
    CHECK(std::abs(inner(u, result, "hvp.") - g.u_product) <= 1e-13 * length(u) * g.product_norm);
    CHECK(std::abs(inner(v, result, "hvp.") - g.v_product) <= 1e-13 * length(v) * g.product_norm);
  }
}

TEST_CASE("hvp is the derivative of the gradient") {
  // A step of 1e-9 along |v| = 300 moves pre-activations by about 1e-7: of the 40,000 ReLU units none flips,
  // or the difference would be off by orders of magnitude.
  constexpr double kStep = 1e-9;
  for (const std::string& mode : kModes) {
    CAPTURE(mode);
    Command command;
    command.options["--bn"] = mode;
    const Tensors product = part(command.result(), "hvp.");
    Tensors direction = make_weights();
    for (auto& [name, tensor] : direction) tensor = Tensor::zeros(tensor.shape(), DType::f64);
    for (const auto& [name, tensor] : make_vector(500)) entry(direction, name) = tensor;
    const Tensors up = part(command.result_for("w", combine(1, make_weights(), kStep, direction)), "grad.");
    const Tensors down =
        part(command.result_for("w", combine(1, make_weights(), -kStep, direction)), "grad.");
    CHECK(distance(combine(0.5 / kStep, up, -0.5 / kStep, down), product) < 1e-6);
  }
}

TEST_CASE("hvp is symmetric and linear, f32 agrees with f64") {
  for (const std::string& mode : kModes) {
    CAPTURE(mode);
    Command command;
    command.options["--bn"] = mode;
    const Tensors u = make_vector(2000), v = make_vector(500);
    const SafeTensors hv = command.result(), hu = command.result_for("v", u);
    CHECK(std::abs(inner(u, hv, "hvp.") - inner(v, hu, "hvp.")) <= 1e-10 * std::abs(inner(u, hv, "hvp.")));
    const SafeTensors both = command.result_for("v", combine(2, u, -3, v));
    CHECK(distance(part(both, "hvp."), combine(2, part(hu, "hvp."), -3, part(hv, "hvp."))) < 1e-13);

    write_safetensors(command.path("v"), v);
    command.options["--dtype"] = "f32";
    const SafeTensors single = command.result();
    CHECK(distance(part(single, "hvp."), part(hv, "hvp.")) < 1e-4);
    CHECK(distance(part(single, "grad."), part(hv, "grad.")) < 1e-4);
    CHECK(distance(part(single, "hvp."), part(hv, "hvp.")) > 0);
  }
}

TEST_CASE("hvp takes the asked road, and both lead to the same product") {
  for (const std::string& mode : kModes) {
    CAPTURE(mode);
    Command command;
    command.options["--bn"] = mode;
    const SafeTensors by_default = command.result();
    command.options["--road"] = "reverse-over-reverse";
    CHECK(same_bits(command.result(), by_default));
    command.options["--road"] = "forward-over-reverse";
    const SafeTensors forward = command.result();
    CHECK_FALSE(same_bits(forward, by_default));
    CHECK(distance(part(forward, "hvp."), part(by_default, "hvp.")) < 1e-12);
    command.options["--road"] = "automatic";
    CHECK(distance(part(command.result(), "hvp."), part(by_default, "hvp.")) < 1e-12);
  }
}

TEST_CASE("hvp uses direct convolutions unless told otherwise") {
  Command command;
  command.options["--dtype"] = "f32";
  // Pictures enough for Winograd to be worthwhile.
  const SafeTensors by_default = command.result_for("b", make_batch({4, 3, 32, 32}));
  command.options["--convolution"] = "direct";
  CHECK(same_bits(command.result(), by_default));
  command.options["--convolution"] = "winograd";
  const SafeTensors winograd = command.result();
  CHECK_FALSE(same_bits(winograd, by_default));
  CHECK(distance(part(winograd, "grad."), part(by_default, "grad.")) < 1e-3);
  command.options["--convolution"] = "fft";
  const ProgramResult refused = command.run();
  CHECK(refused.status == 2);
  CHECK(refused.err.find("fft") != std::string::npos);
}

TEST_CASE("hvp takes a missing tensor of the vector as zero") {
  Command command;
  Tensors sparse, dense;
  for (const auto& [name, tensor] : make_vector(500)) {
    const bool kept = name == "layer2.1.conv1.weight" || name == "linear.bias" || name == "bn1.weight";
    if (kept) sparse.emplace_back(name, tensor);
    dense.emplace_back(name, kept ? tensor : Tensor::zeros(tensor.shape(), DType::f32));
  }
  const SafeTensors result = command.result_for("v", sparse);
  CHECK(length(part(result, "hvp.")) > 0);
  CHECK(same_bits(result, command.result_for("v", dense)));
  const SafeTensors none = command.result_for("v", {});
  CHECK(length(part(none, "hvp.")) == 0);
  CHECK(distance(part(none, "grad."), part(result, "grad.")) == 0);
}

TEST_CASE("hvp uses the values of the files, not their types") {
  Command command;
  // What f32 can hold gives the same bits from f32 and f64 files.
  const Tensors inexact = make_weights();
  Tensors exact = to_f32(inexact);
  const SafeTensors from_f32 = command.result_for("w", exact);
  for (auto& [name, tensor] : exact) tensor = tensor.to(DType::f64);
  const SafeTensors from_f64 = command.result_for("w", exact);
  CHECK(same_bits(from_f32, from_f64));
  // What it cannot hold is not rounded on the way, neither in the weights nor in the images or the vector.
  CHECK_FALSE(same_bits(from_f64, command.result_for("w", inexact)));
  const SafeTensors whole = command.result();
  CHECK_FALSE(same_bits(whole, command.result_for("v", to_f32(make_vector(500)))));
  Tensors batch = make_batch();
  entry(batch, "images") = entry(batch, "images").to(DType::f32);
  CHECK(command.result_for("b", batch).at("loss").item() != whole.at("loss").item());

  // As files of PyTorch come: under "module." and with counters.
  Tensors parallel;
  for (const auto& [name, tensor] : inexact) parallel.emplace_back("module." + name, tensor);
  parallel.emplace_back("module.bn1.num_batches_tracked", Tensor::scalar(7, DType::i64));
  write_safetensors(command.path("b"), make_batch());
  write_safetensors(command.path("v"), make_vector(500));
  CHECK(same_bits(whole, command.result_for("w", parallel)));
}

TEST_CASE("hvp is the mean over any number of images, and the same bits for any number of threads") {
  Command command;
  constexpr std::int64_t kAll = 70, kFirst = 64;  // of which 64 are taken at a time
  const Tensors batch = make_batch({kAll, 3, 4, 4});
  const auto images = [&](std::int64_t begin, std::int64_t end) {
    const auto pixels = batch[0].second.to_vector<double>();
    const auto labels = batch[1].second.to_vector<std::int64_t>();
    return Tensors{
        {"images", Tensor::from(std::vector(pixels.begin() + begin * 48, pixels.begin() + end * 48),
                                {end - begin, 3, 4, 4})},
        {"labels", Tensor::from(std::vector(labels.begin() + begin, labels.begin() + end), {end - begin})}};
  };
  const SafeTensors all = command.result_for("b", batch);
  const SafeTensors first = command.result_for("b", images(0, kFirst));
  const SafeTensors rest = command.result_for("b", images(kFirst, kAll));
  const double share = static_cast<double>(kFirst) / kAll;
  for (const std::string prefix : {"grad.", "hvp."}) {
    CHECK(distance(combine(share, part(first, prefix), 1 - share, part(rest, prefix)), part(all, prefix)) <
          1e-13);
  }
  CHECK(share * first.at("loss").item() + (1 - share) * rest.at("loss").item() ==
        doctest::Approx(all.at("loss").item()).epsilon(1e-13));

  write_safetensors(command.path("b"), batch);
  for (const std::string& mode : kModes) {
    for (const std::string dtype : {"f32", "f64"}) {
      command.options["--bn"] = mode;
      command.options["--dtype"] = dtype;
      command.options["--threads"] = "1";
      const SafeTensors one = command.result();
      command.options["--threads"] = "2";
      CHECK(same_bits(one, command.result()));
    }
  }
}

TEST_CASE("hvp takes one picture of any size") {
  Command command;
  for (const Shape& shape : {Shape{1, 3, 1, 1}, Shape{1, 3, 5, 9}, Shape{2, 3, 33, 32}}) {
    CAPTURE(fmt::format("{}", shape));
    const SafeTensors result = command.result_for("b", make_batch(shape));
    CHECK(std::isfinite(result.at("loss").item()));
    CHECK(length(part(result, "hvp.")) > 0);
  }
}

TEST_CASE("hvp explains bad input in one line and writes nothing") {
  struct Case {
    std::string what;
    std::function<void(Command&)> spoil;
    int status;
    std::vector<std::string> says;
  };
  const auto weights = [](const std::function<void(Tensors&)>& change) {
    return [change](Command& command) {
      Tensors tensors = make_weights();
      change(tensors);
      write_safetensors(command.path("w"), tensors);
    };
  };
  const auto batch = [](const std::function<void(Tensors&)>& change) {
    return [change](Command& command) {
      Tensors tensors = make_batch();
      change(tensors);
      write_safetensors(command.path("b"), tensors);
    };
  };
  const auto vector = [](const std::function<void(Tensors&)>& change) {
    return [change](Command& command) {
      Tensors tensors = make_vector(500);
      change(tensors);
      write_safetensors(command.path("v"), tensors);
    };
  };
  const auto option = [](const std::string& name, const std::string& value) {
    return [name, value](Command& command) { command.options[name] = value; };
  };
  const auto truncate = [](const std::string& file) {
    return [file](Command& command) {
      const std::string path = command.path(file);
      std::filesystem::resize_file(path, std::filesystem::file_size(path) - 9);
    };
  };
  const auto with = [](Tensor tensor, std::int64_t index, double value) {
    tensor.data<double>()[index] = value;
    return tensor;
  };

  const std::vector<Case> cases = {
      {"missing weights", option("--weights", "nowhere.safetensors"), 1, {"nowhere.safetensors"}},
      {"missing batch", option("--batch", "nowhere.safetensors"), 1, {"nowhere.safetensors"}},
      {"missing vector", option("--vector", "nowhere.safetensors"), 1, {"nowhere.safetensors"}},
      {"unknown model", option("--model", "resnet21"), 2, {"resnet21", "resnet20", "resnet56"}},
      {"unknown mode", option("--bn", "frozen"), 2, {"--bn", "frozen", "eval", "hvp --help"}},
      {"unknown type", option("--dtype", "f16"), 2, {"--dtype", "f16", "f64"}},
      {"negative threads", option("--threads", "-1"), 2, {"--threads", "-1"}},
      {"unknown road", option("--road", "scenic"), 2, {"--road", "scenic", "automatic", "hvp --help"}},
      {"unknown option", option("--precision", "3"), 2, {"--precision", "hvp --help"}},
      {"option left out",
       [](Command& command) { command.options.erase("--batch"); },
       2,
       {"--batch", "required"}},
      {"truncated weights", truncate("w"), 1, {"w.safetensors"}},
      {"truncated batch", truncate("b"), 1, {"b.safetensors"}},
      {"truncated vector", truncate("v"), 1, {"v.safetensors"}},
      {"header that lies",
       [](Command& command) {
         command.scratch.write("w.safetensors", std::string(7, '\xff') + '\x7f' + "{}");
       },
       1,
       {"w.safetensors"}},
      {"missing tensor",
       weights([](Tensors& t) {
         std::erase_if(t, [](const auto& e) { return e.first == "layer2.0.bn1.bias"; });
       }),
       1,
       {"w.safetensors", "layer2.0.bn1.bias", "missing"}},
      {"missing classifier",
       weights(
           [](Tensors& t) { std::erase_if(t, [](const auto& e) { return e.first == "linear.weight"; }); }),
       1,
       {"w.safetensors", "linear.weight", "missing"}},
      {"extra tensor",
       weights([](Tensors& t) { t.emplace_back("layer4.0.conv1.weight", Tensor::zeros({1}, DType::f32)); }),
       1,
       {"w.safetensors", "layer4.0.conv1.weight"}},
      {"misshapen tensor",
       weights([](Tensors& t) {
         entry(t, "conv1.weight") = Tensor::zeros({3, 3, 3, 16}, DType::f32);
       }),
       1,
       {"w.safetensors", "conv1.weight", "[3, 3, 3, 16]", "[16, 3, 3, 3]"}},
      {"weight that is not a number",
       weights([&](Tensors& t) { entry(t, "bn1.bias") = with(entry(t, "bn1.bias"), 5, NAN); }),
       1,
       {"w.safetensors", "bn1.bias", "element 5", "nan"}},
      {"no images", batch([](Tensors& t) { t.erase(t.begin()); }), 1, {"b.safetensors", "images"}},
      {"no labels", batch([](Tensors& t) { t.pop_back(); }), 1, {"b.safetensors", "labels"}},
      {"images without a batch",
       batch([](Tensors& t) {
         entry(t, "images") = wave({3, 8, 12}, 0);
       }),
       1,
       {"b.safetensors", "[3, 8, 12]", "[N,3,H,W]"}},
      {"grey images",
       batch([](Tensors& t) {
         entry(t, "images") = wave({4, 1, 8, 12}, 0);
       }),
       1,
       {"b.safetensors", "[4, 1, 8, 12]", "[N,3,H,W]"}},
      {"NHWC images",
       batch([](Tensors& t) {
         entry(t, "images") = wave({4, 8, 12, 3}, 0);
       }),
       1,
       {"b.safetensors", "[4, 8, 12, 3]", "[N,3,H,W]"}},
      {"empty batch",
       batch([](Tensors& t) {
         entry(t, "images") = Tensor::zeros({0, 3, 8, 12}, DType::f32);
         entry(t, "labels") = Tensor::zeros({0}, DType::i64);
       }),
       1,
       {"b.safetensors", "[0, 3, 8, 12]"}},
      {"byte images",
       batch([](Tensors& t) {
         entry(t, "images") = Tensor::zeros({4, 3, 8, 12}, DType::u8);
       }),
       1,
       {"b.safetensors", "u8", "normalised"}},
      {"image that is not finite",
       batch([&](Tensors& t) { entry(t, "images") = with(entry(t, "images"), 17, -INFINITY); }),
       1,
       {"b.safetensors", "images", "element 17", "-inf"}},
      {"label too large",
       batch([](Tensors& t) { entry(t, "labels").data<std::int64_t>()[2] = 10; }),
       1,
       {"b.safetensors", "label 10 of image 2"}},
      {"negative label",
       batch([](Tensors& t) { entry(t, "labels").data<std::int64_t>()[0] = -1; }),
       1,
       {"b.safetensors", "label -1 of image 0"}},
      {"label too many",
       batch([](Tensors& t) { entry(t, "labels") = Tensor::zeros({5}, DType::i64); }),
       1,
       {"b.safetensors", "labels", "[5]", "[4]"}},
      {"labels of another type",
       batch([](Tensors& t) { entry(t, "labels") = Tensor::zeros({4}, DType::i32); }),
       1,
       {"b.safetensors", "labels", "i32"}},
      {"unknown name in the vector",
       vector([](Tensors& t) { t.emplace_back("bn1.running_mean", wave({16}, 0)); }),
       1,
       {"v.safetensors", "bn1.running_mean"}},
      {"misshapen tensor in the vector",
       vector([](Tensors& t) {
         entry(t, "linear.weight") = wave({64, 10}, 0);
       }),
       1,
       {"v.safetensors", "linear.weight", "[64, 10]", "[10, 64]"}},
      {"integers in the vector",
       vector([](Tensors& t) { entry(t, "linear.bias") = Tensor::zeros({10}, DType::i64); }),
       1,
       {"v.safetensors", "linear.bias", "i64"}},
      {"vector that is not finite",
       vector([&](Tensors& t) { entry(t, "linear.bias") = with(entry(t, "linear.bias"), 9, NAN); }),
       1,
       {"v.safetensors", "linear.bias", "element 9"}},
      {"overflow in f32",
       [](Command& command) {
         Tensors tensors = make_weights();
         entry(tensors, "linear.weight") = Tensor::full({10, 64}, DType::f64, 3e38);
         write_safetensors(command.path("w"), tensors);
         command.options["--dtype"] = "f32";
       },
       1,
       {"w.safetensors", "overflow", "f64"}},
      {"out in no directory",
       [](Command& command) { command.options["--out"] = command.path("no/where"); },
       1,
       {"no/where.safetensors"}},
      {"out is a directory",
       [](Command& command) { command.options["--out"] = command.scratch.path().string(); },
       1,
       {"goshawk-test-"}},
      {"full disk", option("--out", "/dev/full"), 1, {"/dev/full"}},
  };
  for (const Case& c : cases) {
    CAPTURE(c.what);
    Command command;
    command.scratch.write("o.safetensors", "old");
    c.spoil(command);
    const ProgramResult result = command.run();
    CHECK(result.status == c.status);
    CHECK(result.out.empty());
    CAPTURE(result.err);
    CHECK(is_one_line(result.err));
    for (const std::string& part_of_message : c.says) {
      CAPTURE(part_of_message);
      CHECK(contains(result.err, part_of_message));
    }
    // The old result is still there, and no temporary file is left.
    CHECK(file_bytes(command.path("o")) == "old");
    const auto files = std::filesystem::directory_iterator(command.scratch.path());
    CHECK(std::distance(begin(files), end(files)) == 4);
  }
}

TEST_CASE("the program explains itself") {
  const ProgramResult version = run_built_program("goshawk", {"--version"});
  CHECK(version.status == 0);
  CHECK(version.out.starts_with("goshawk "));
  CHECK(is_one_line(version.out));
  const ProgramResult help = run_built_program("goshawk", {"--help"});
  CHECK(help.status == 0);
  CHECK(contains(help.out, "hvp"));
  CHECK(contains(help.out, "evaluate"));
  const ProgramResult hvp_help = run_built_program("goshawk", {"hvp", "--help"});
  CHECK(hvp_help.status == 0);
  for (const char* option :
       {"--model", "--weights", "--batch", "--vector", "--bn", "--dtype", "--road", "--out", "--threads"}) {
    CHECK(contains(hvp_help.out, option));
  }
  for (const std::vector<std::string>& wrong :
       {std::vector<std::string>{}, {"frobnicate"}, {"--frobnicate"}}) {
    const ProgramResult result = run_built_program("goshawk", wrong);
    CHECK(result.status == 2);
    CHECK(result.out.empty());
    CHECK(is_one_line(result.err));
    CHECK(contains(result.err, "--help"));
  }
}
