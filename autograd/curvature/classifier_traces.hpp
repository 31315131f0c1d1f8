// Traces of every layer's weight and input of a classifier, by whichever road holds.
#pragma once

#include <vector>

#include "autograd/curvature/exact_traces.hpp"
#include "autograd/curvature/hutchinson.hpp"
#include "autograd/curvature/road.hpp"

namespace goshawk {

struct ClassifierTraceOptions {
  /// exact: refused with a reason where it does not hold. automatic: exact where it holds.
  Road road = Road::automatic;
  ExactTraceOptions exact = {};  ///< also says whether weights and activations are wanted
  /// Of the double-backward road: probes for each layer's own Hessian block.
  HutchinsonOptions hutchinson = {};
};

struct ClassifierTraces {
  RoadChoice road;  ///< taken, and why
  std::vector<LayerTraces> layers;
  double loss = 0;  ///< mean cross-entropy
  std::int64_t images = 0;
};

/// exact_traces, or hutchinson on each layer's Hessian block and ActivationHessian, on the road that
/// choose_road finds for the first microbatch. On the double-backward road values per image are not known,
/// every recorded weight must be a leaf, and a layer that is used more than once has no activation trace (no
/// samples).
ClassifierTraces classifier_traces(const ClassifierPass& pass,
                                   const std::vector<std::int64_t>& microbatch_sizes,
                                   const ClassifierTraceOptions& options = {});

}  // namespace goshawk
