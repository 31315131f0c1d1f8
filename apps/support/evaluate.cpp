#include "apps/support/evaluate.hpp"

#include "autograd/ops.hpp"
#include "datasets/loader.hpp"
#include "nn/layers.hpp"

namespace goshawk {

Evaluation evaluate(Module& model, std::shared_ptr<const Dataset> dataset, const EvaluateOptions& options) {
  const Mode mode = model.mode();
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
    if (options.progress) options.progress(result.images);
  }
  result.loss = loss / static_cast<double>(result.images);
  model.set_mode(mode);
  return result;
}

}  // namespace goshawk
