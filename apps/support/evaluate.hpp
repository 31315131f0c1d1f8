// Accuracy and loss of a model over a data set.
#pragma once

#include <functional>

#include "datasets/augment.hpp"
#include "datasets/dataset.hpp"
#include "nn/module.hpp"

namespace goshawk {

struct Evaluation {
  std::int64_t images = 0;
  std::int64_t correct = 0;
  double loss = 0;  ///< mean cross-entropy

  /// Fraction of the images that are classified right, in [0, 1].
  double accuracy() const {
    return images == 0 ? 0 : static_cast<double>(correct) / static_cast<double>(images);
  }
};

struct EvaluateOptions {
  std::int64_t batch_size = 250;
  Normalization normalization = {};
  /// Called after each batch with the images done so far.
  std::function<void(std::int64_t images)> progress = {};
};

/// Runs `model` in eval mode (its mode is restored) over every picture once, in order, unaugmented. Throws
/// Error when a label is not among the model's classes.
Evaluation evaluate(Module& model, std::shared_ptr<const Dataset> dataset,
                    const EvaluateOptions& options = {});

}  // namespace goshawk
