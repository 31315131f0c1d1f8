// Layers whose outputs meet in one sum. Hardware that adds integers wants these in equal widths.
#pragma once

#include <string>
#include <vector>

#include "autograd/curvature/linear_site.hpp"

namespace goshawk {

/// The layers whose outputs meet in one operation, as those of a block and of what bypasses it do in a
/// residual sum, directly or through other sums: a shortcut without a layer carries all that met before it.
/// HAWQ-V3 (Yao et al., arXiv 2011.10680) gives the layers of a sum one width. Names in network
/// order; layers that meet with no other are left out.
std::vector<std::vector<std::string>> residual_groups(const ClassifierGraph& graph);

}  // namespace goshawk
