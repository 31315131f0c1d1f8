// Distributions that error bars need.
#pragma once

namespace goshawk {

/// P(T ≤ t) for Student's t distribution with `degrees` degrees of freedom, to about 14 digits, also those of
/// a small probability. Throws Error unless `degrees` is positive and finite.
double student_t_cdf(double t, double degrees);
/// The t with P(T ≤ t) = p. Throws Error unless 0 < p < 1 and `degrees` is positive and finite.
double student_t_quantile(double p, double degrees);

}  // namespace goshawk
