#include "apps/support/contours.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <map>
#include <tuple>

#include "core/error.hpp"

namespace goshawk {
namespace {

// An edge of the grid, by the corner it begins at and whether it goes along x. Two squares share it, so the
// pieces of a line that meet on it are found by it, and not by comparing coordinates.
struct Edge {
  std::size_t i = 0, k = 0;
  bool along_x = false;
  bool operator<(const Edge& other) const {
    return std::tie(i, k, along_x) < std::tie(other.i, other.k, other.along_x);
  }
};

class Contours {
 public:
  Contours(const std::vector<double>& xs, const std::vector<double>& ys, const std::vector<double>& values,
           double level)
      : xs_(xs), ys_(ys), values_(values), level_(level) {}

  std::vector<ContourLine> lines() {
    for (std::size_t i = 0; i + 1 < xs_.size(); ++i) {
      for (std::size_t k = 0; k + 1 < ys_.size(); ++k) cross_square(i, k);
    }
    std::vector<ContourLine> all;
    // Open lines from their ends first; what is left is closed.
    for (const bool closed : {false, true}) {
      for (const auto& [edge, neighbours] : neighbours_) {
        if ((closed || neighbours.size() == 1) && !done_[edge]) all.push_back(follow(edge, closed));
      }
    }
    return all;
  }

 private:
  double value(std::size_t i, std::size_t k) const { return values_[i * ys_.size() + k]; }

  void join(const Edge& a, const Edge& b) {
    neighbours_[a].push_back(b);
    neighbours_[b].push_back(a);
  }

  void cross_square(std::size_t i, std::size_t k) {
    // Counter-clockwise; edge e goes from corner e to the next.
    const std::array<std::pair<std::size_t, std::size_t>, 4> corners{
        {{i, k}, {i + 1, k}, {i + 1, k + 1}, {i, k + 1}}};
    const std::array<Edge, 4> edges{{{i, k, true}, {i + 1, k, false}, {i, k + 1, true}, {i, k, false}}};
    std::array<bool, 4> up{};
    double mean = 0;
    for (std::size_t c = 0; c < 4; ++c) {
      const double v = value(corners[c].first, corners[c].second);
      if (!std::isfinite(v)) return;
      up[c] = v >= level_;
      mean += v / 4;
    }
    std::vector<std::size_t> crossed;
    for (std::size_t e = 0; e < 4; ++e) {
      if (up[e] != up[(e + 1) % 4]) crossed.push_back(e);
    }
    if (crossed.size() == 2) join(edges[crossed[0]], edges[crossed[1]]);
    if (crossed.size() < 4) return;
    // A saddle: opposite corners are above. Its middle says which of them are connected.
    if ((mean >= level_) == up[0]) {
      join(edges[0], edges[1]);
      join(edges[2], edges[3]);
    } else {
      join(edges[3], edges[0]);
      join(edges[1], edges[2]);
    }
  }

  std::pair<double, double> point(const Edge& edge) const {
    const std::size_t i = edge.i + (edge.along_x ? 1 : 0), k = edge.k + (edge.along_x ? 0 : 1);
    const double from = value(edge.i, edge.k), to = value(i, k);
    const double part = (level_ - from) / (to - from);
    return {xs_[edge.i] + part * (xs_[i] - xs_[edge.i]), ys_[edge.k] + part * (ys_[k] - ys_[edge.k])};
  }

  ContourLine follow(Edge edge, bool closed) {
    ContourLine line;
    while (true) {
      line.push_back(point(edge));
      done_[edge] = true;
      const std::vector<Edge>& next = neighbours_[edge];
      const auto it = std::find_if(next.begin(), next.end(), [&](const Edge& e) { return !done_[e]; });
      if (it == next.end()) break;
      edge = *it;
    }
    if (closed) line.push_back(line.front());
    return line;
  }

  const std::vector<double>&xs_, &ys_, &values_;
  double level_;
  std::map<Edge, std::vector<Edge>> neighbours_;
  std::map<Edge, bool> done_;
};

}  // namespace

std::vector<ContourLine> contour_lines(const std::vector<double>& xs, const std::vector<double>& ys,
                                       const std::vector<double>& values, double level) {
  check(
      xs.size() >= 2 && ys.size() >= 2 && values.size() == xs.size() * ys.size(),
      "[contours] {} values for {} by {} points; give one for each, and at least two points along each axis",
      values.size(), xs.size(), ys.size());
  return Contours(xs, ys, values, level).lines();
}

}  // namespace goshawk
