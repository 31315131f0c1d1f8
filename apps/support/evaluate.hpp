// Accuracy and loss of a model over a data set.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "datasets/augment.hpp"
#include "datasets/dataset.hpp"
#include "datasets/loader.hpp"
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

/// {"accuracy" (0 to 1), "correct", "images", "loss"}.
nlohmann::ordered_json evaluation_json(const Evaluation& evaluation);
/// The inverse; throws nlohmann's exception for anything else, as RunDirectory::read_json expects.
Evaluation evaluation_from_json(const nlohmann::json& json);
/// "accuracy 91.70 %, 9170 of 10000 images correct, loss 0.3".
std::string evaluation_text(const Evaluation& evaluation);

struct EvaluateOptions {
  std::int64_t batch_size = 250;
  Normalization normalization = {};
  /// Called after each batch with the images done so far.
  std::function<void(std::int64_t images)> progress = {};
  /// Called with each batch and its logits.
  std::function<void(const Batch& batch, const Tensor& logits)> on_logits = {};
};

/// Runs `model` in eval mode over every picture once, in order, unaugmented. The modes of its modules are as
/// they were afterwards, however it ends. Throws Error when a label is not among the model's classes.
Evaluation evaluate(Module& model, std::shared_ptr<const Dataset> dataset,
                    const EvaluateOptions& options = {});

}  // namespace goshawk
