// A data set of one's own: pictures that get brighter to the right, or downwards. Which of the two?
#include <algorithm>

#include "autograd/grad.hpp"
#include "core/random.hpp"
#include "datasets/loader.hpp"
#include "nn/init.hpp"
#include "nn/layers.hpp"
#include "nn/optimizer.hpp"

using namespace goshawk;

namespace {

// Six members describe a data set. `decode` is called from several threads: it must not change anything, and
// what is random in a picture must follow from its number alone.
class Gradients : public Dataset {
 public:
  Gradients(std::int64_t size, std::uint64_t seed) : size_(size), seed_(seed) {}

  std::int64_t size() const override { return size_; }
  ImageSize image_size() const override { return {12, 16}; }
  std::int64_t label(std::int64_t index) const override {
    check_index(index);
    return index % 2;
  }
  void decode(std::int64_t index, std::span<std::uint8_t> out, Random* /*crop*/) const override {
    check_index(index);
    check_buffer(out);
    Random random(seed_, static_cast<std::uint64_t>(index));
    const double slope = 4 + 4 * random.uniform(), start = 60 * random.uniform();
    for (std::int64_t y = 0, k = 0; y < image_size().height; ++y) {
      for (std::int64_t x = 0; x < image_size().width; ++x) {
        const double grey = start + slope * static_cast<double>(label(index) == 0 ? x : y);
        for (int channel = 0; channel < 3; ++channel, ++k) {
          const double noisy = grey + 20 * random.normal();
          out[static_cast<std::size_t>(k)] = static_cast<std::uint8_t>(std::clamp(noisy, 0.0, 255.0));
        }
      }
    }
  }
  const std::vector<std::string>& class_names() const override { return classes_; }
  const std::string& name() const override { return name_; }

 private:
  std::int64_t size_;
  std::uint64_t seed_;
  std::vector<std::string> classes_{"to the right", "downwards"};
  std::string name_ = "gradients";
};

}  // namespace

int main() {
  const auto train_set = std::make_shared<Gradients>(400, 1), test_set = std::make_shared<Gradients>(100, 2);
  const Normalization normalization = measure_normalization(*train_set);
  Loader loader(train_set, {.batch_size = 20, .shuffle = true, .seed = 1, .normalization = normalization});

  Random random(/*seed=*/1);
  Sequential net;
  net.add<Conv2d>({.in = 3, .out = 8, .kernel = 3, .padding = 1});
  net.add<ReLU>();
  net.add<GlobalAvgPool>();
  net.add<Linear>({.in = 8, .out = 2});
  pytorch_default_init(net, random);
  Sgd sgd(net.named_parameters(), {.lr = 0.05, .momentum = 0.9});

  for (int epoch = 0; epoch < 5; ++epoch) {
    while (const auto batch = loader.next())
      sgd.step(grad(softmax_cross_entropy(net(batch->images), batch->labels), sgd.parameters()));
  }
  Loader test(test_set, {.batch_size = test_set->size(), .normalization = normalization});
  const Batch all = *test.next();
  const std::int64_t correct = count_correct(net(all.images).value(), all.labels);
  fmt::print("{} of {} test pictures right\n", correct, all.size());
  return correct > 90 ? 0 : 1;
}
