// Traces of the Hessian blocks of every layer's weight and of every layer's input, from first derivatives.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "autograd/curvature/linear_site.hpp"
#include "autograd/curvature/results.hpp"
#include "autograd/curvature/softmax_output.hpp"

namespace goshawk {

/// A classifier's recorded forward pass over microbatch b. Must give the same bits each time and may be
/// called from several threads at once.
using ClassifierPass = std::function<ClassifierGraph(std::size_t microbatch)>;

/// Over directions, of each image: the sum and the sum of squares.
struct DirectionSums {
  std::vector<double> sum, squares;
};

/// Everything known between two microbatches: enough to go on after a break and end with the same bits.
struct ExactTraceState {
  struct Site {
    std::string name;
    std::int64_t weight_elements = 0, activation_elements = 0;
    DirectionSums weight, activation;  ///< of the images so far
  };
  /// What made it: the options, and the size of each microbatch that is done.
  OutputMetric metric = OutputMetric::softmax_cross_entropy;
  int samples = 0;
  OutputProbe probe = OutputProbe::rademacher;
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;
  bool weights = false, activations = false;
  std::vector<std::int64_t> sizes;

  std::vector<Site> sites;
  double loss = 0;     ///< Σ over the images so far
  int directions = 0;  ///< backward passes
};

struct ExactTraceOptions {
  /// 0: the exact sum, C − 1 backward passes for C classes. Otherwise so many random directions per image (at
  /// least 2), unbiased, with a standard error.
  int samples = 0;
  OutputProbe probe = OutputProbe::rademacher;  ///< of random directions
  /// empirical_fisher: the traces of that matrix instead, mean squared norms of the per-image gradients, from
  /// a single direction (`samples` must be 0).
  OutputMetric metric = OutputMetric::softmax_cross_entropy;
  /// Image n draws from the random stream (seed, stream + n).
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;
  bool weights = true;
  bool activations = true;
  /// Microbatches at work at the same time; 0 for as many as threads. The result does not depend on it.
  int concurrency = 0;
  /// Called after each microbatch, in their order (a state that was given is up to date then and may be
  /// saved); returning false ends the loop with what is known of the images so far.
  std::function<bool(std::size_t done, std::size_t microbatches)> progress = {};
};

/// What is known of one layer. Estimates are means over the images; `standard_error` is that of random
/// directions (0 for the exact sum), `subset_error` that of the choice of images, `samples` the directions
/// per image; `converged` that all images were there. Absent sums have no images.
struct LayerTraces {
  std::string name;
  std::int64_t weight_elements = 0;
  std::int64_t activation_elements = 0;  ///< of one image
  Estimate weight;                       ///< Tr ∇²_W L of the mean loss L over the images
  Estimate activation;  ///< Tr ∇²_a L_n of the per-image loss L_n in that image's own input, averaged
  std::vector<double> weight_per_image, activation_per_image;
};

struct ExactTraces {
  std::vector<LayerTraces> layers;  ///< in network order
  double loss = 0;                  ///< mean cross-entropy
  std::int64_t images = 0;          ///< fewer than were given when it was ended before
  int directions = 0;               ///< backward passes
};

/// For a classifier with softmax cross-entropy whose logits are piecewise linear in each layer's weight and
/// in each layer's input, ∇² L_n = Jᵀ (diag(p) − p pᵀ) J with J the Jacobian of the logits, for either of
/// them alone; so its trace is Σ_d D_d ‖Jᵀ v_d‖² over a factorisation of the middle (SoftmaxOutput::factor),
/// a squared gradient norm a direction. docs/curvature/exact-road.md has the proof. All layers come from the
/// same passes; weight gradients are never kept. `microbatch_sizes`: images in each. A non-null `state` is
/// where to start (as a former call left it, or empty) and is kept up to date. Throws Error where the road
/// does not hold, with the reason (see road.hpp), for options out of range and for a state that does not
/// belong to them.
ExactTraces exact_traces(const ClassifierPass& pass, const std::vector<std::int64_t>& microbatch_sizes,
                         const ExactTraceOptions& options = {}, ExactTraceState* state = nullptr);

}  // namespace goshawk
