// Affine maps per channel and batch normalisation, alone or fused with the residual addition and the ReLU
// that follow them. Gradients and their derivatives (all that a Hessian-vector product needs) are fused ops
// as well; a composition takes over where a derivative of that is asked for.
#include "core/kernels/norm.hpp"

#include <cmath>

#include "autograd/fallback.hpp"
#include "autograd/joint_jvp.hpp"
#include "autograd/ops.hpp"
#include "core/kernels/channel.hpp"

namespace goshawk {
namespace {

const Op& kChannelAffine = register_op("channel_affine", Linearity::bilinear);
const Op& kChannelAffineGrad = register_op("channel_affine_grad");
const Op& kBatchNormTrain = register_op("batch_norm_train");
const Op& kBatchNormTrainGrad = register_op("batch_norm_train_grad");

using kernels::NormGradients;
using kernels::NormWants;

Tensor inverse_std(const Tensor& var, double eps) {
  Tensor out = Tensor::empty_like(var);
  dispatch_floating(var.dtype(), "batch_norm", [&]<class T>() {
    for (std::int64_t c = 0; c < var.numel(); ++c) {
      out.data<T>()[c] = static_cast<T>(1 / std::sqrt(static_cast<double>(var.data<T>()[c]) + eps));
    }
  });
  return out;
}

void check_channels(const Tensor& gamma, const Tensor& beta, const Tensor& mean, const Tensor& var) {
  for (const Tensor* t : {&beta, &mean, &var}) {
    check(t->shape() == gamma.shape() && t->dtype() == gamma.dtype(),
          "[batch_norm] gamma is {} {} but beta, mean or variance {} {}; give one number of each per channel",
          gamma.dtype(), gamma.shape(), t->dtype(), t->shape());
  }
}

// y = x · s + t per channel with s = gamma · inv_std, t = beta − mean · s.
kernels::NormMap normalising_map(const Tensor& gamma, const Tensor& beta, const Tensor& mean,
                                 const Tensor& inv_std) {
  kernels::NormMap map{Tensor::empty_like(gamma), Tensor::empty_like(gamma)};
  dispatch_floating(gamma.dtype(), "batch_norm", [&]<class T>() {
    for (std::int64_t c = 0; c < gamma.numel(); ++c) {
      const double slope = static_cast<double>(gamma.data<T>()[c]) * inv_std.data<T>()[c];
      map.s.template data<T>()[c] = static_cast<T>(slope);
      map.t.template data<T>()[c] = static_cast<T>(beta.data<T>()[c] - mean.data<T>()[c] * slope);
    }
  });
  return map;
}

Tensor apply(const kernels::NormMap& map, const Tensor& x, const Epilogue& epilogue) {
  return kernels::channel_affine(x, map.s, map.t, epilogue.residual.value(), epilogue.relu);
}

Variable apply_epilogue(Variable y, const Epilogue& epilogue) {
  if (epilogue.residual.defined()) y = add(y, epilogue.residual);
  return epilogue.relu ? relu(y) : y;
}

/// gy where the ReLU passed, which its output `y` tells; all of it without a ReLU (y undefined).
Variable passed(const Variable& gy, const Tensor& y) {
  return y.defined() ? mask_positive(gy, y) : gy;
}

NormWants wants(const Backward& d, const Epilogue& epilogue) {
  NormWants w{.x = d.needs(0), .residual = epilogue.residual.defined() && d.needs(3)};
  if (w.x) w.x_sum = d.take_collected_in_place(0);
  if (w.residual) w.residual_sum = d.take_collected_in_place(3);
  return w;
}

NormGradients cotangents(const Backward& d) {
  return {d.grad(0).value(), d.grad(1).value(), d.grad(2).value(), d.grad(3).value()};
}

std::vector<NormGradients> tangents(std::span<const Forward> directions) {
  std::vector<NormGradients> all;
  for (const Forward& d : directions) {
    all.push_back({d.tangent(0).value(), d.tangent(1).value(), d.tangent(2).value(), d.tangent(3).value()});
  }
  return all;
}

std::vector<kernels::NormMoves> moves(std::span<const Forward> directions) {
  std::vector<kernels::NormMoves> all;
  for (const Forward& d : directions) {
    all.push_back({d.tangent(0).value(), d.tangent(1).value(), d.tangent(2).value()});
  }
  return all;
}

/// Which of a gradient's large tangents are wanted.
NormWants wants(const Forward& d) {
  return {.x = d.needs(0), .residual = d.needs(3)};
}

std::vector<Variable> as_variables(const NormGradients& g) {
  return {g.x, g.scale, g.shift, g.residual};
}

std::vector<JointJvp::Tangents> as_outputs(const std::vector<NormGradients>& gradients) {
  std::vector<JointJvp::Tangents> all;
  for (const NormGradients& g : gradients) all.push_back(as_variables(g));
  return all;
}
std::vector<JointJvp::Tangents> as_outputs(const std::vector<Tensor>& outputs) {
  std::vector<JointJvp::Tangents> all;
  for (const Tensor& y : outputs) all.push_back({y});
  return all;
}

/// What a rule does where its tangents are recorded.
std::vector<JointJvp::Tangents> by_transposition(std::span<const Forward> directions) {
  std::vector<JointJvp::Tangents> all;
  for (const Forward& d : directions) all.push_back(d.by_transposition());
  return all;
}

std::vector<Variable> incoming(const Backward& d) {
  return {d.grad(0), d.grad(1), d.grad(2), d.grad(3)};
}

/// Gradients of channel_affine with respect to x, s, t and the residual.
std::vector<Variable> channel_affine_grad(const Variable& gy, const Variable& x, const Variable& s,
                                          const Tensor& y, const NormWants& wanted) {
  const NormGradients first = kernels::affine_backward(gy.value(), x.value(), s.value(), y, wanted);
  const auto vjp = [gy, x, s, y](const Backward& d) {
    if (recording()) {
      const auto composition = [&y](const std::vector<Variable>& v) {
        const Variable g = passed(v[0], y);
        return std::vector{channel_scale(g, v[2]), channel_dot(g, v[1]), channel_sum(g), g};
      };
      return vjp_through_fallback(composition, {gy, x, s}, incoming(d));
    }
    const kernels::NormSecondGradients second =
        kernels::affine_double_backward(cotangents(d), gy.value(), x.value(), s.value(), y);
    return std::vector<Variable>{second.gy, second.x, second.scale};
  };
  const JointJvp jvp([gy, x, s, y](std::span<const Forward> directions) {
    if (recording()) return by_transposition(directions);
    return as_outputs(kernels::affine_backward_tangents(moves(directions), gy.value(), x.value(), s.value(),
                                                        y, wants(directions.front())));
  });
  return record(kChannelAffineGrad, {gy, x, s}, {first.x, first.scale, first.shift, first.residual}, vjp,
                jvp);
}

/// Gradients of batch_norm_train with respect to x, gamma, beta and the residual, written with elementary
/// ops.
std::vector<Variable> batch_norm_train_grad_composed(const Variable& gy, const Variable& x,
                                                     const Variable& gamma, double eps, const Tensor& y) {
  const double rows = static_cast<double>(x.numel()) / static_cast<double>(x.shape().back());
  const Variable one = Tensor::full(gamma.shape(), gamma.dtype(), 1);
  const Variable centred = channel_affine(x, one, scale(channel_sum(x), -1 / rows));
  const Variable inv_std = rsqrt(add_scalar(scale(channel_dot(centred, centred), 1 / rows), eps));
  const Variable normalised = channel_scale(centred, inv_std);
  const Variable g = passed(gy, y);
  const Variable gbeta = channel_sum(g), ggamma = channel_dot(g, normalised);
  const Variable slope = mul(gamma, inv_std);
  const Variable gx = sub(channel_affine(g, slope, scale(mul(slope, gbeta), -1 / rows)),
                          channel_scale(normalised, scale(mul(slope, ggamma), 1 / rows)));
  return {gx, ggamma, gbeta, g};
}

struct BatchStatistics {
  Tensor mean, inv_std;
  kernels::NormMap mask_map;  ///< what derivatives form the ReLU's mask with, or undefined
};

std::vector<Variable> batch_norm_train_grad(const Variable& gy, const Variable& x, const Variable& gamma,
                                            double eps, const BatchStatistics& batch, const Tensor& y,
                                            const NormWants& wanted) {
  const NormGradients first = kernels::batch_norm_backward(gy.value(), x.value(), gamma.value(), batch.mean,
                                                           batch.inv_std, y, wanted, batch.mask_map);
  const NormGradients sums{.x = {}, .scale = first.scale, .shift = first.shift, .residual = {}};
  const auto vjp = [gy, x, gamma, eps, batch, y, sums](const Backward& d) {
    if (recording()) {
      const auto composition = [eps, &y](const std::vector<Variable>& v) {
        return batch_norm_train_grad_composed(v[0], v[1], v[2], eps, y);
      };
      return vjp_through_fallback(composition, {gy, x, gamma}, incoming(d));
    }
    const kernels::NormSecondGradients second =
        kernels::batch_norm_double_backward(cotangents(d), sums, gy.value(), x.value(), gamma.value(),
                                            batch.mean, batch.inv_std, y, batch.mask_map);
    return std::vector<Variable>{second.gy, second.x, second.scale};
  };
  const JointJvp jvp([gy, x, gamma, batch, y, sums](std::span<const Forward> directions) {
    if (recording()) return by_transposition(directions);
    return as_outputs(kernels::batch_norm_backward_tangents(moves(directions), sums, gy.value(), x.value(),
                                                            gamma.value(), batch.mean, batch.inv_std, y,
                                                            wants(directions.front()), batch.mask_map));
  });
  return record(kBatchNormTrainGrad, {gy, x, gamma}, {first.x, first.scale, first.shift, first.residual}, vjp,
                jvp);
}

}  // namespace

Variable channel_affine(const Variable& x, const Variable& s, const Variable& t, const Epilogue& epilogue) {
  const Tensor y =
      kernels::channel_affine(x.value(), s.value(), t.value(), epilogue.residual.value(), epilogue.relu);
  const Tensor mask = epilogue.relu ? y : Tensor();
  const auto vjp = [x, s, epilogue, mask](const Backward& d) {
    return channel_affine_grad(d.grad(), x, s, mask, wants(d, epilogue));
  };
  const JointJvp jvp([x, s, mask](std::span<const Forward> directions) {
    if (recording()) return by_transposition(directions);
    return as_outputs(kernels::affine_tangents(tangents(directions), x.value(), s.value(), mask));
  });
  return record(kChannelAffine, {x, s, t, epilogue.residual}, y, vjp, jvp);
}

ChannelMap batch_norm_map(const Variable& gamma, const Variable& beta, const Tensor& mean, const Tensor& var,
                          double eps) {
  check_channels(gamma.value(), beta.value(), mean, var);
  const Tensor inv_std = inverse_std(var, eps);
  if (!recording()) {
    const kernels::NormMap map = normalising_map(gamma.value(), beta.value(), mean, inv_std);
    return {map.s, map.t};
  }
  const Variable s = mul(gamma, inv_std);
  return {s, sub(beta, mul(s, mean))};
}

Variable batch_norm_eval(const Variable& x, const Variable& gamma, const Variable& beta, const Tensor& mean,
                         const Tensor& var, double eps, const Epilogue& epilogue) {
  const auto [s, t] = batch_norm_map(gamma, beta, mean, var, eps);
  return channel_affine(x, s, t, epilogue);
}

Variable batch_norm_train_composed(const Variable& x, const Variable& gamma, const Variable& beta, double eps,
                                   const Epilogue& epilogue) {
  const double rows = static_cast<double>(x.numel()) / static_cast<double>(x.shape().back());
  const Variable mean = scale(channel_sum(x), 1 / rows);
  const Variable one = Tensor::full(gamma.shape(), gamma.dtype(), 1);
  const Variable centred = channel_affine(x, one, neg(mean));
  const Variable var = scale(channel_dot(centred, centred), 1 / rows);
  const Variable s = mul(gamma, rsqrt(add_scalar(var, eps)));
  return apply_epilogue(channel_affine(centred, s, beta), epilogue);
}

BatchNormTrain batch_norm_train(const Variable& x, const Variable& gamma, const Variable& beta, double eps,
                                const Epilogue& epilogue) {
  const kernels::ChannelMoments moments = kernels::channel_moments(x.value());
  check_channels(gamma.value(), beta.value(), moments.mean, moments.var);
  const Tensor inv_std = inverse_std(moments.var, eps);
  const kernels::NormMap map = normalising_map(gamma.value(), beta.value(), moments.mean, inv_std);
  const bool mask_from_x = epilogue.relu && !epilogue.residual.defined();
  const BatchStatistics batch{moments.mean, inv_std, mask_from_x ? map : kernels::NormMap()};
  const Tensor y = apply(map, x.value(), epilogue);
  const Tensor mask = epilogue.relu ? y : Tensor();
  const auto vjp = [x, gamma, eps, epilogue, batch, mask](const Backward& d) {
    return batch_norm_train_grad(d.grad(), x, gamma, eps, batch, mask, wants(d, epilogue));
  };
  const JointJvp jvp([x, gamma, batch, mask](std::span<const Forward> directions) {
    if (recording()) return by_transposition(directions);
    return as_outputs(kernels::batch_norm_tangents(tangents(directions), x.value(), gamma.value(), batch.mean,
                                                   batch.inv_std, mask, batch.mask_map));
  });
  return {record(kBatchNormTrain, {x, gamma, beta, epilogue.residual}, y, vjp, jvp), moments.mean,
          moments.var};
}

}  // namespace goshawk
