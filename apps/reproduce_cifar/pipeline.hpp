// From data to table: the baseline, then every row and seed that was asked for.
#pragma once

#include "apps/reproduce_cifar/options.hpp"

namespace goshawk {

/// Makes what is missing in the run, and prints the table of all that it has. Several processes may work in
/// one run, each on other rows.
void reproduce(const ReproduceOptions& options);

}  // namespace goshawk
