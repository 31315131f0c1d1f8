#include "apps/support/evaluate.hpp"

#include <utility>
#include <vector>

#include "autograd/ops.hpp"
#include "core/error.hpp"
#include "datasets/loader.hpp"
#include "nn/layers.hpp"

namespace goshawk {
namespace {

// Brings back the modes of all modules, which may have one of their own, however the evaluation ends.
class KeepModes {
 public:
  explicit KeepModes(Module& model) {
    for (const NamedModule& m : model.named_modules()) modes_.emplace_back(m.module, m.module->mode());
  }
  ~KeepModes() {
    for (const auto& [module, mode] : modes_) module->set_mode(mode);  // each before those below it
  }
  KeepModes(const KeepModes&) = delete;
  KeepModes& operator=(const KeepModes&) = delete;

 private:
  std::vector<std::pair<Module*, Mode>> modes_;
};

}  // namespace

nlohmann::ordered_json evaluation_json(const Evaluation& evaluation) {
  return {{"accuracy", evaluation.accuracy()},
          {"correct", evaluation.correct},
          {"images", evaluation.images},
          {"loss", evaluation.loss}};
}

Evaluation evaluation_from_json(const nlohmann::json& json) {
  return {.images = json.at("images"), .correct = json.at("correct"), .loss = json.at("loss")};
}

std::string evaluation_text(const Evaluation& evaluation) {
  return fmt::format("accuracy {:.2f} %, {} of {} images correct, loss {:.6g}", 100 * evaluation.accuracy(),
                     evaluation.correct, evaluation.images, evaluation.loss);
}

Evaluation evaluate(Module& model, std::shared_ptr<const Dataset> dataset, const EvaluateOptions& options) {
  const KeepModes keep(model);
  model.set_mode(Mode::eval);
  const NoGrad no_grad;
  const DType dtype = model.parameters().front().dtype();
  Loader loader(std::move(dataset),
                {.batch_size = options.batch_size, .normalization = options.normalization});
  Evaluation result;
  double loss = 0;
  while (const auto batch = loader.next()) {
    const Variable logits = model(batch->images.to(dtype));
    loss += softmax_cross_entropy(logits, batch->labels, Reduction::sum).item();
    result.correct += count_correct(logits.value(), batch->labels);
    result.images += batch->size();
    if (options.on_logits) options.on_logits(*batch, logits.value());
    if (options.progress) options.progress(result.images);
  }
  result.loss = loss / static_cast<double>(result.images);
  return result;
}

}  // namespace goshawk
