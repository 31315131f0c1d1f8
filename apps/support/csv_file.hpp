// Reading files of comma-separated numbers.
#pragma once

#include <string>
#include <vector>

namespace goshawk {

/// The numbers of a CSV file whose head is `head`, line by line. Throws Error naming the file and the line
/// for anything else.
std::vector<std::vector<double>> read_csv(const std::string& path, const std::string& head);

}  // namespace goshawk
