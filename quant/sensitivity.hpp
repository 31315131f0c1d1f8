// What curvature says about each layer, and sensitivity.json.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace goshawk {

/// One weighted layer. Curvature is of the mean loss with respect to the layer's weight tensor.
struct LayerSensitivity {
  /// A stochastic estimate.
  struct Trace {
    double value = 0;
    double standard_error = 0;
    std::int64_t samples = 0;  ///< probes
  };

  std::string name;                 ///< "layer1.0.conv1"
  std::int64_t parameters = 0;      ///< n, elements of the weight tensor
  std::int64_t macs = 0;            ///< multiply-accumulates of one image
  std::int64_t input_elements = 0;  ///< elements of the layer's input, one image
  double lambda_max = 0;            ///< top eigenvalue of the layer's Hessian block
  double lambda_residual = 0;       ///< ‖Hv − λv‖ / |λ| of it
  Trace trace;
  std::map<int, double> perturbation;  ///< bits → ‖Q_b(W) − W‖₂²; at 32 bits it is 0 and need not be listed

  /// Tr(H)/n.
  double mean_trace() const;
};

struct Sensitivity {
  std::string model;        ///< "resnet20"
  std::string weights;      ///< where they came from
  std::string quantizer;    ///< how the perturbations were made, such as "symmetric channel mse"
  std::int64_t images = 0;  ///< the curvature was averaged over
  std::vector<LayerSensitivity> layers = {};  ///< network order
};

/// The text of sensitivity.json. Throws Error when a number is not finite.
std::string to_json(const Sensitivity& sensitivity);
/// Throws Error naming `source` and the offending entry for anything that is not a sensitivity file.
Sensitivity sensitivity_from_json(std::string_view text, const std::string& source);
void write_sensitivity(const std::filesystem::path& path, const Sensitivity& sensitivity);
Sensitivity read_sensitivity(const std::filesystem::path& path);

}  // namespace goshawk
