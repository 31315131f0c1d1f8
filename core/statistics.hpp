// Distributions that error bars need.
#pragma once

namespace goshawk {

/// P(T ≤ t) for Student's t distribution with `degrees` > 0 degrees of freedom, to about 14 digits.
double student_t_cdf(double t, double degrees);
/// The t with P(T ≤ t) = p. Throws Error unless 0 < p < 1 and degrees > 0.
double student_t_quantile(double p, double degrees);

}  // namespace goshawk
