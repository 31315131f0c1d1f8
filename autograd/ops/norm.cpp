// Batch normalisation, alone or fused with the residual addition and the ReLU that follow it.
#include <cmath>

#include "autograd/fallback.hpp"
#include "autograd/ops.hpp"
#include "core/kernels/channel.hpp"

namespace goshawk {
namespace {

const Op& kBatchNormTrain = register_op("batch_norm_train");

Tensor inverse_std(const Tensor& var, double eps) {
  Tensor out = Tensor::empty_like(var);
  dispatch_floating(var.dtype(), "batch_norm", [&]<class T>() {
    for (std::int64_t c = 0; c < var.numel(); ++c) {
      out.data<T>()[c] = static_cast<T>(1 / std::sqrt(static_cast<double>(var.data<T>()[c]) + eps));
    }
  });
  return out;
}

// y = x · s + t per channel with s = gamma · inv_std, t = beta − mean · s.
Tensor normalise(const Tensor& x, const Tensor& gamma, const Tensor& beta, const Tensor& mean,
                 const Tensor& inv_std, const NormEpilogue& epilogue) {
  Tensor s = Tensor::empty_like(gamma), t = Tensor::empty_like(gamma);
  dispatch_floating(x.dtype(), "batch_norm", [&]<class T>() {
    for (std::int64_t c = 0; c < gamma.numel(); ++c) {
      const double slope = static_cast<double>(gamma.data<T>()[c]) * inv_std.data<T>()[c];
      s.data<T>()[c] = static_cast<T>(slope);
      t.data<T>()[c] = static_cast<T>(beta.data<T>()[c] - mean.data<T>()[c] * slope);
    }
  });
  return kernels::channel_affine(x, s, t, epilogue.residual.value(), epilogue.relu);
}

Variable apply_epilogue(Variable y, const NormEpilogue& epilogue) {
  if (epilogue.residual.defined()) y = add(y, epilogue.residual);
  return epilogue.relu ? relu(y) : y;
}

}  // namespace

Variable batch_norm_eval(const Variable& x, const Variable& gamma, const Variable& beta, const Tensor& mean,
                         const Tensor& var, double eps, const NormEpilogue& epilogue) {
  const Tensor inv_std = inverse_std(var, eps);
  if (!recording()) return normalise(x.value(), gamma.value(), beta.value(), mean, inv_std, epilogue);
  const Variable s = mul(gamma, inv_std);
  return apply_epilogue(channel_affine(x, s, sub(beta, mul(s, mean))), epilogue);
}

Variable batch_norm_train_composed(const Variable& x, const Variable& gamma, const Variable& beta, double eps,
                                   const NormEpilogue& epilogue) {
  const double rows = static_cast<double>(x.numel()) / static_cast<double>(x.shape().back());
  const Variable mean = scale(channel_sum(x), 1 / rows);
  const Variable one = Tensor::full(gamma.shape(), gamma.dtype(), 1);
  const Variable centred = channel_affine(x, one, neg(mean));
  const Variable var = scale(channel_dot(centred, centred), 1 / rows);
  const Variable s = mul(gamma, rsqrt(add_scalar(var, eps)));
  return apply_epilogue(channel_affine(centred, s, beta), epilogue);
}

BatchNormTrain batch_norm_train(const Variable& x, const Variable& gamma, const Variable& beta, double eps,
                                const NormEpilogue& epilogue) {
  const kernels::ChannelMoments moments = kernels::channel_moments(x.value());
  const Tensor inv_std = inverse_std(moments.var, eps);
  const Tensor y = normalise(x.value(), gamma.value(), beta.value(), moments.mean, inv_std, epilogue);
  const auto vjp = [x, gamma, beta, eps, epilogue, y, mean = moments.mean, inv_std](const Backward& d) {
    if (recording()) {
      std::vector<Variable> inputs{x, gamma, beta};
      if (epilogue.residual.defined()) inputs.push_back(epilogue.residual);
      auto grads = vjp_through_fallback(
          [&](const std::vector<Variable>& v) {
            return batch_norm_train_composed(
                v[0], v[1], v[2], eps, {.relu = epilogue.relu, .residual = v.size() > 3 ? v[3] : Variable()});
          },
          inputs, d.grad());
      grads.resize(4);
      return grads;
    }
    const bool residual_grad = epilogue.residual.defined() && d.needs(3);
    const kernels::BatchNormGradients g = kernels::batch_norm_backward(
        d.grad().value(), x.value(), gamma.value(), mean, inv_std, y, epilogue.relu, residual_grad);
    return std::vector<Variable>{g.gx, g.ggamma, g.gbeta, g.residual};
  };
  return {record(kBatchNormTrain, {x, gamma, beta, epilogue.residual}, y, vjp), moments.mean, moments.var};
}

}  // namespace goshawk
