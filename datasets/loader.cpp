#include "datasets/loader.hpp"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <numeric>
#include <thread>
#include <vector>

#include "core/parallel.hpp"
#include "datasets/streams.hpp"

namespace goshawk {
namespace {

// Pictures per task: small pictures are grouped so that a task is worth its cost, large ones decode alone.
std::int64_t pictures_per_task(ImageSize size) {
  constexpr std::int64_t kBytes = std::int64_t{64} * 32 * 32 * 3;
  return std::clamp<std::int64_t>(kBytes / size.bytes(), 1, 64);
}

// Fills a batch; choose(index, picture) decodes picture `index` and says how to augment it.
template <class F>
Batch assemble(const Dataset& dataset, std::span<const std::int64_t> indices, const InputWriter& writer,
               const F& choose) {
  const ImageSize size = dataset.image_size();
  const auto n = static_cast<std::int64_t>(indices.size());
  Batch batch{Tensor::empty({n, size.height, size.width, 3}, DType::f32), Tensor::empty({n}, DType::i64),
              Tensor::empty({n}, DType::i64)};
  auto* images = batch.images.data<float>();
  auto* labels = batch.labels.data<std::int64_t>();
  std::copy(indices.begin(), indices.end(), batch.indices.data<std::int64_t>());
  parallel_for(n, pictures_per_task(size), [&](std::int64_t begin, std::int64_t end) {
    std::vector<std::uint8_t> picture(static_cast<std::size_t>(size.bytes()));
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t index = indices[static_cast<std::size_t>(i)];
      const AugmentationChoice choice = choose(index, std::span(picture));
      writer.write(picture, size, choice, {images + i * size.bytes(), picture.size()});
      labels[i] = dataset.label(index);
    }
  });
  return batch;
}

}  // namespace

Batch make_batch(const Dataset& dataset, std::span<const std::int64_t> indices,
                 const Normalization& normalization) {
  return assemble(dataset, indices, InputWriter(normalization),
                  [&](std::int64_t index, std::span<std::uint8_t> picture) {
                    dataset.decode(index, picture);
                    return AugmentationChoice{};
                  });
}

// Produces batches from `produce_` on and keeps those not yet consumed in a bounded queue.
class Loader::Worker {
 public:
  Worker(std::shared_ptr<const Dataset> dataset, const LoaderOptions& options)
      : dataset_(std::move(dataset)), options_(options), writer_(options.normalization) {
    check(options_.batch_size > 0, "[Loader] batch_size is {}; it must be at least 1", options_.batch_size);
    check(options_.prefetch >= 0, "[Loader] prefetch is {}; it must be 0 or more", options_.prefetch);
    check(options_.augmentation.crop_padding >= 0, "[Loader] crop_padding is {}; it must be 0 or more",
          options_.augmentation.crop_padding);
    check(dataset_->size() > 0, "[Loader] {} has no pictures", dataset_->name());
    steps_ = options_.drop_last ? dataset_->size() / options_.batch_size
                                : (dataset_->size() - 1) / options_.batch_size + 1;
    check(steps_ > 0,
          "[Loader] drop_last leaves no batch: {} has {} pictures and batch_size is {}; use a smaller one",
          dataset_->name(), dataset_->size(), options_.batch_size);
  }
  ~Worker() { stop(); }

  void start(LoaderState state) {
    check(state.epoch >= 0 && state.step >= 0 && state.step <= steps_,
          "[Loader] there is no position (epoch {}, step {}); an epoch of {} has {} steps", state.epoch,
          state.step, dataset_->name(), steps_);
    stop();
    queue_.clear();
    error_ = nullptr;
    consume_ = state;
    produce_ = state;
    // Right at the end of an epoch only the report of it is outstanding.
    if (produce_.step == steps_) produce_ = {state.epoch + 1, 0};
    if (options_.prefetch == 0) return;
    stopping_ = false;
    thread_ = std::thread([this] { run(); });
  }

  std::optional<Batch> next() {
    if (consume_.step == steps_) {
      consume_ = {consume_.epoch + 1, 0};
      return std::nullopt;
    }
    Batch batch = options_.prefetch == 0 ? make(consume_) : pop();
    ++consume_.step;
    return batch;
  }

  LoaderState state() const { return consume_; }
  bool failed() {
    const std::lock_guard lock(mutex_);
    return error_ != nullptr;
  }
  std::int64_t steps() const { return steps_; }
  const Dataset& dataset() const { return *dataset_; }
  const LoaderOptions& options() const { return options_; }

 private:
  Batch make(LoaderState at) {
    if (order_.empty() || order_epoch_ != at.epoch) {
      order_epoch_ = at.epoch;
      if (options_.shuffle) {
        order_ = Random(options_.seed, stream::number(stream::kShuffle, at.epoch, 0))
                     .permutation(dataset_->size());
      } else if (order_.empty()) {
        order_.resize(static_cast<std::size_t>(dataset_->size()));
        std::iota(order_.begin(), order_.end(), 0);
      }
    }
    const std::int64_t begin = at.step * options_.batch_size;
    const std::int64_t count = std::min(options_.batch_size, dataset_->size() - begin);
    const std::span indices(order_.data() + begin, static_cast<std::size_t>(count));
    Batch batch =
        assemble(*dataset_, indices, writer_, [&](std::int64_t index, std::span<std::uint8_t> picture) {
          Random random(options_.seed, stream::number(stream::kAugment, at.epoch, index));
          dataset_->decode(index, picture, options_.random_decode ? &random : nullptr);
          return choose_augmentation(options_.augmentation, random);
        });
    batch.epoch = at.epoch;
    batch.step = at.step;
    return batch;
  }

  void run() {
    try {
      for (;;) {
        {
          std::unique_lock lock(mutex_);
          space_.wait(lock, [&] {
            return stopping_ || static_cast<std::int64_t>(queue_.size()) < options_.prefetch;
          });
          if (stopping_) return;
        }
        Batch batch = make(produce_);
        produce_ = produce_.step + 1 < steps_ ? LoaderState{produce_.epoch, produce_.step + 1}
                                              : LoaderState{produce_.epoch + 1, 0};
        std::lock_guard lock(mutex_);
        queue_.push_back(std::move(batch));
        filled_.notify_one();
      }
    } catch (...) {
      std::lock_guard lock(mutex_);
      error_ = std::current_exception();
      filled_.notify_one();
    }
  }

  Batch pop() {
    std::unique_lock lock(mutex_);
    filled_.wait(lock, [&] { return !queue_.empty() || error_ != nullptr; });
    // Batches prepared before the failure come first.
    if (queue_.empty()) std::rethrow_exception(error_);
    Batch batch = std::move(queue_.front());
    queue_.pop_front();
    space_.notify_one();
    return batch;
  }

  void stop() {
    if (!thread_.joinable()) return;
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
      space_.notify_one();
    }
    thread_.join();
  }

  std::shared_ptr<const Dataset> dataset_;
  LoaderOptions options_;
  InputWriter writer_;
  std::int64_t steps_ = 0;
  LoaderState consume_;  // of the consumer

  // Of the producer: the thread while it runs.
  LoaderState produce_;
  std::vector<std::int64_t> order_;
  std::int64_t order_epoch_ = 0;

  std::thread thread_;
  std::mutex mutex_;  // guards what follows
  std::condition_variable space_;
  std::condition_variable filled_;
  std::deque<Batch> queue_;
  std::exception_ptr error_;
  bool stopping_ = false;
};

Loader::Loader(std::shared_ptr<const Dataset> dataset, const LoaderOptions& options, LoaderState start)
    : worker_(std::make_unique<Worker>(std::move(dataset), options)) {
  worker_->start(start);
}
Loader::~Loader() = default;

std::int64_t Loader::steps_per_epoch() const {
  return worker_->steps();
}
std::optional<Batch> Loader::next() {
  return worker_->next();
}
LoaderState Loader::state() const {
  return worker_->state();
}
const Dataset& Loader::dataset() const {
  return worker_->dataset();
}
const LoaderOptions& Loader::options() const {
  return worker_->options();
}
void Loader::seek(LoaderState state) {
  if (state != worker_->state() || worker_->failed()) worker_->start(state);
}

}  // namespace goshawk
