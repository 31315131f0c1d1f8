// The spectral density of an operator, by stochastic Lanczos quadrature.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "autograd/curvature/hutchinson.hpp"
#include "autograd/curvature/operator.hpp"
#include "autograd/curvature/results.hpp"

namespace goshawk {

/// Gauss quadrature for the spectral measure of one random vector v of length 1: vᵀ f(A) v ≈ Σ weights ·
/// f(nodes), exact for polynomials of degree < 2 · nodes.
struct Quadrature {
  std::vector<double> nodes;    ///< rising; the outer ones approximate the extreme eigenvalues
  std::vector<double> weights;  ///< ≥ 0, summing to 1
};

/// A Lanczos process under way: the orthonormal basis, whose last vector is the next to be multiplied, and
/// the tridiagonal matrix so far.
struct LanczosProcess {
  std::vector<Vector> basis;
  std::vector<double> diagonal;
  std::vector<double> off_diagonal;
};

/// Everything known between two products: enough to go on after a break and end with the same bits. Vectors
/// are never changed in place once they are here.
struct SpectralDensityState {
  Probe probe = Probe::rademacher;
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;
  int steps = 0;
  std::vector<Quadrature> quadratures;  ///< of the probes that are done
  std::vector<LanczosProcess> running;  ///< of the probes of the present pass
  int products = 0;
};

struct SpectralDensityOptions {
  Probe probe = Probe::rademacher;
  /// Lanczos steps per probe, each a product: resolution. Memory holds probes_per_pass · steps vectors.
  int steps = 80;
  /// Probe k is drawn from the random stream (seed, stream + k).
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;
  /// Standard deviation of the Gaussian that each node is spread to in the curve; 0 for a hundredth of the
  /// distance between the outermost nodes.
  double smoothing = 0;
  int points = 1024;  ///< of the curve
  /// Stop when the largest standard error on the curve is at most this part of its peak.
  double relative_error = 0.1;
  int min_probes = 4;
  int max_probes = 32;
  /// Probes that take their steps side by side (LinearOperator::apply_many).
  int probes_per_pass = 2;
  /// Called after each step with the state (save it to resume later); returning false ends the loop.
  std::function<bool(const SpectralDensityState& state)> progress = {};
};

/// The density at the points of a grid, with the standard error over the probes (infinite for one probe).
struct DensityCurve {
  std::vector<double> grid;
  std::vector<double> density;
  std::vector<double> standard_error;
  double smoothing = 0;  ///< standard deviation of the Gaussian that was used
};

struct SpectralDensity {
  std::vector<Quadrature> quadratures;  ///< one for each probe
  DensityCurve curve;                   ///< empty when not a single probe was finished
  Estimate mean;                        ///< mean eigenvalue, trace / n
  Estimate trace;     ///< converged, as the mean is, when the curve has: see SpectralDensityOptions
  double lowest = 0;  ///< outermost nodes of all probes: within the spectrum, and near its ends
  double highest = 0;
  int products = 0;
  bool converged = false;
};

/// φ(x) = (1/n) Σ_i δ(x − λ_i) by stochastic Lanczos quadrature (Ubaru, Chen & Saad, SIAM J. Matrix Anal.
/// Appl. 38(4), 2017; for Hessians Ghorbani, Krishnan & Xiao, arXiv 1901.10159): from each probe `steps`
/// steps of Lanczos with full reorthogonalisation, whose tridiagonal matrix gives the nodes (its eigenvalues)
/// and the weights (squared first elements of its eigenvectors). A non-null `state` is where to start (as a
/// former call left it, or empty) and is kept up to date. Throws Error for options out of range, a state that
/// does not belong to them, or a product that is not finite.
SpectralDensity spectral_density(const LinearOperator& a, const SpectralDensityOptions& options = {},
                                 SpectralDensityState* state = nullptr);

/// (1/n) Σ_i f(λ_i) = tr f(A) / n: the mean over the probes of Σ weights · f(nodes), with its standard error.
/// Throws Error when there are no quadratures.
Estimate spectral_mean(std::span<const Quadrature> quadratures, const std::function<double(double)>& f);

/// The density on `points` equally spaced points that reach six standard deviations beyond the outermost
/// nodes, so that the curve's integral is 1. `smoothing` as in SpectralDensityOptions.
DensityCurve density_curve(std::span<const Quadrature> quadratures, double smoothing = 0, int points = 1024);
/// The density on a grid of your own.
DensityCurve density_curve(std::span<const Quadrature> quadratures, std::vector<double> grid,
                           double smoothing);

}  // namespace goshawk
