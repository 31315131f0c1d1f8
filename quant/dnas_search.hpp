// The search of DNAS: weights and architecture learn in turns, each from its own part of the training data.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "datasets/loader.hpp"
#include "nn/optimizer.hpp"
#include "nn/schedule.hpp"
#include "quant/dnas.hpp"

namespace goshawk {

/// What one epoch of the search did.
struct DnasEpoch {
  std::int64_t epoch = 0;  ///< counted from 0
  double temperature = 0;
  double lr = 0;                 ///< of the weights, in the epoch's last step
  double weight_loss = 0;        ///< mean cross-entropy on the weights' part
  double weight_accuracy = 0;    ///< in train mode, on augmented pictures, under samples of the mixture
  double architecture_loss = 0;  ///< mean cross-entropy on the architecture's part; 0 while θ waits
  double penalty = 0;            ///< mean β (log size)^γ there
  double expected_bytes = 0;     ///< of the weights under softmax(θ)
  double most_probable_bytes = 0;
  double confidence = 0;  ///< mean over the groups of the largest probability
};

struct DnasOptions {
  std::int64_t epochs = 30;
  std::int64_t warmup_epochs = 1;  ///< at first only the weights learn
  double weight_share = 0.8;       ///< of the training data that the weights learn from; θ gets the rest
  double temperature = 5;          ///< T = temperature · exp(−temperature_decay · epoch)
  double temperature_decay = 0.065;
  double gamma = 10;  ///< of the size penalty; larger wants smaller networks. docs/dnas.md has what it does
  double beta = 0;    ///< of the size penalty; 0 makes the penalty 1 where the search starts, as in the paper
  SgdOptions weights = {.lr = 0.01, .momentum = 0.9, .weight_decay = 1e-4};
  Schedule schedule = {};  ///< learning rate of the weights by their step; empty: weights.lr throughout
  double quantizer_lr_multiplier = 1;  ///< of learned steps, which have no weight decay
  AdamOptions architecture = {.lr = 0.01, .weight_decay = 5e-4};
  LoaderOptions loader = {};  ///< of both parts; shuffled with loader.seed, which also splits the data
  std::uint64_t seed = 0;     ///< of the Gumbel noise
  std::string checkpoint;     ///< file, written after every epoch; empty: none
  /// After every epoch, before its checkpoint is written.
  std::function<void(const DnasEpoch&)> on_epoch = {};
  /// After every step, with those done and those of the whole search.
  std::function<void(std::int64_t done, std::int64_t total)> on_step = {};
};

/// Steps of the weights in one epoch, for schedules.
std::int64_t weight_steps_per_epoch(std::int64_t training_images, const DnasOptions& options);

/// Searches, and returns the log; the architecture is then in net.theta() and net.most_probable_within(…) and
/// its like. The model's weights have been trained as part of the mixture. In every epoch the weights take a
/// pass of SGD over their part of `train_set` with m ~ gumbel_softmax(θ), then θ a pass of Adam over the
/// other part on the loss cross-entropy · β (log size(m))^γ (Algorithm 1 of the paper). The model is left in
/// eval mode with m = softmax(θ). When the checkpoint exists, continues from it: log, weights and θ have the
/// same bits as without the interruption, for any number of threads. Throws Error when the checkpoint belongs
/// to another search, when a loss is not finite, and for options that make no sense.
std::vector<DnasEpoch> search(SuperNet& net, std::shared_ptr<const Dataset> train_set,
                              const DnasOptions& options);

}  // namespace goshawk
