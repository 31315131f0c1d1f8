#include "quant/dorefa.hpp"

#include <cmath>

#include "autograd/ops.hpp"
#include "core/error.hpp"

namespace goshawk {

Variable dorefa_normalize(const Variable& w) {
  check(w.defined() && w.numel() > 0, "[dorefa_normalize] there are no weights");
  const Variable squashed = tanh(w);
  std::int64_t largest = 0;
  double extreme = 0;
  dispatch_floating(w.dtype(), "dorefa_normalize", [&]<class T>() {
    const T* t = squashed.value().data<T>();
    for (std::int64_t i = 0; i < w.numel(); ++i) {
      if (std::abs(t[i]) > std::abs(t[largest])) largest = i;
    }
    extreme = t[largest];
  });
  if (extreme == 0) return squashed;
  const Variable signed_maximum = gather(squashed, Tensor::from<std::int64_t>({largest}, {1}));
  return div(squashed, extreme > 0 ? signed_maximum : neg(signed_maximum));
}

}  // namespace goshawk
