// What goshawk curvature measures: a model on some pictures, and the groups of parameters to report on.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "apps/goshawk/model_file.hpp"
#include "apps/goshawk/pictures.hpp"
#include "autograd/curvature/exact_traces.hpp"
#include "autograd/curvature/hessian_operator.hpp"

namespace goshawk {

struct CurvatureOptions {
  std::string model, weights, out;
  PictureOptions pictures{.source = {}, .split = "train", .normalization = {}};
  std::string batch;
  std::int64_t images = 0;  ///< 0: a batch file's all, a data set's first 1024 at most
  std::int64_t microbatch = 32;
  std::int64_t graph_megabytes = -1;  ///< −1: a quarter of the machine's memory
  std::vector<std::string> what = {"eigenvalues", "trace"};
  std::string per = "layer";
  std::vector<std::string> only;  ///< names of groups; empty for all
  std::string parameters = "weights";
  std::string road = "automatic";
  std::string hvp_road = "reverse-over-reverse";
  int top = 1, bottom = 1;
  double error = 0.02;
  int max_samples = 1000, max_products = 300;
  int directions = -1;  ///< on the exact road; −1: chosen by the number of classes
  int density_steps = 80, density_probes = 8;
  int landscape_points = 15;
  std::uint64_t seed = 0;
  std::string dtype = "f32";
  std::string convolution = "winograd";
  bool resume = false;

  bool wants(const std::string& measurement) const;
  /// For the graphs that an operator keeps between its products. Results do not depend on it.
  std::int64_t graph_bytes() const;
};

/// A group of parameters that is reported on as one: a layer, a block of layers, or everything.
struct Part {
  std::string name;
  std::vector<std::size_t> parameters;  ///< indices into CurvatureProblem::parameters
  std::int64_t elements = 0;
  std::uint64_t number = 0;  ///< of the part in the model, whatever was filtered out: for random streams
};

class CurvatureProblem {
 public:
  /// Reads the model and the pictures. Throws Error for files that do not fit each other, more images than
  /// there are, and a loss that is not finite; UsageError for a group that does not exist, naming the near
  /// ones.
  explicit CurvatureProblem(const CurvatureOptions& options);

  Module& model() const { return *loaded_.model; }
  const std::vector<NamedParameter>& parameters() const { return parameters_; }
  const std::vector<Part>& parts() const { return parts_; }
  /// Every parameter of all parts, as one part.
  const Part& network() const { return network_; }
  /// Whether the parts are all there are.
  bool complete() const { return complete_; }
  const std::vector<std::int64_t>& sizes() const { return sizes_; }
  std::int64_t classes() const { return loaded_.classes; }
  std::int64_t images() const { return images_count_; }

  std::vector<Variable> variables(const Part& part) const;
  /// The mean loss over the images with the weights as they are.
  double loss() const;
  HessianOperator::Loss loss_of_microbatch() const;
  /// How operators keep their graphs.
  const MicrobatchOptions& kept_graphs() const { return kept_graphs_; }
  /// The Hessian of the mean loss in a part's parameters, by products along the road of the options.
  std::unique_ptr<HessianOperator> hessian(const Part& part) const;
  /// Recorded forward passes.
  ClassifierPass pass() const;

 private:
  void read_pictures(const CurvatureOptions& options, DType dtype);
  void find_parts(const CurvatureOptions& options);

  LoadedModel loaded_;
  HvpRoad hvp_road_;
  MicrobatchOptions kept_graphs_;
  std::vector<Tensor> images_, labels_;
  std::vector<std::int64_t> sizes_;
  std::int64_t images_count_ = 0;
  std::vector<NamedParameter> parameters_;
  std::vector<Part> parts_;
  Part network_;
  bool complete_ = true;
};

}  // namespace goshawk
