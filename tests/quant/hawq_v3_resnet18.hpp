// HAWQ-V3's integer programme on ResNet-18 (arXiv 2011.10680), as published by its authors
// (github.com/Zhen-Dong/HAWQ, ILP.ipynb and bit_config.py): mean trace and ‖Q(W) − W‖² at 8 and 4 bits of the
// 19 convolutions between the first one and the classifier. Budget in bytes: size4 + α (size8 − size4).
#pragma once

#include <cstdint>
#include <vector>

namespace goshawk::test {

inline const std::vector<double> kMeanTrace = {0.06857826, 0.03162379, 0.03298575, 0.01205663, 0.02222431,
                                               0.00596336, 0.06931772, 0.00807129, 0.00372905, 0.00530698,
                                               0.00209011, 0.00737569, 0.00210454, 0.00151197, 0.00158041,
                                               0.00078146, 0.00451841, 0.00098745, 0.00072944};
inline const std::vector<double> kNorm8 = {0.0235, 0.0125, 0.0102, 0.0082, 0.0145, 0.0344, 0.0023,
                                           0.0287, 0.0148, 0.0333, 0.0682, 0.0027, 0.0448, 0.0336,
                                           0.0576, 0.113,  0.0102, 0.0947, 0.0532};
inline const std::vector<double> kNorm4 = {6.743,   3.9691,  3.3281,  2.6796,  4.7277, 10.5966, 0.6827,
                                           9.0942,  4.8857,  10.7599, 21.7546, 0.8603, 14.5324, 10.9651,
                                           18.7706, 36.4044, 3.1572,  29.6994, 17.4016};
inline const std::vector<std::int64_t> kParameters = {
    36864,  36864, 36864,  36864,  73728,   147456,  8192,   147456,  147456, 294912,
    589824, 32768, 589824, 589824, 1179648, 2359296, 131072, 2359296, 2359296};

struct Answer {
  double alpha;
  const char* bits;
  double objective;
  double greedy_gap;  ///< of the greedy rule to the optimum; measured here, not published
};
inline const std::vector<Answer> kAnswers = {{0.75, "8888888888888488884", 0.03344059, 0.35383},
                                             {0.5, "8888888888888884844", 0.07450593, 0},
                                             {0.25, "8888888888888844444", 0.11829958, 0.01951}};

}  // namespace goshawk::test
