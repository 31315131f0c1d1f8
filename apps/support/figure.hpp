// Figures as vector graphics: axes, lines, points with error bars and tooltips, bars, coloured cells, a
// legend, and several of these side by side. What a figure shows is plain data; to_svg() lays it out for a
// width, so that the same figure serves a page, a telephone and a file of its own.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "apps/support/contours.hpp"

namespace goshawk {

enum class AxisScale : std::uint8_t {
  linear,
  log,
  categories,  ///< coordinate k is the k-th name; along y from the top
};

struct FigureAxis {
  std::string label = {};
  AxisScale scale = AxisScale::linear;
  std::vector<std::string> categories = {};
  /// Limits; those of the data, a little widened, where they are absent. With limits, what lies outside is
  /// cut off.
  std::optional<double> low = {}, high = {};
};

struct FigureInterval {
  double low = 0, high = 0;
};

struct FigurePoint {
  double x = 0, y = 0;
  std::optional<FigureInterval> x_error = {}, y_error = {};
  std::string tip = {};  ///< shown when the point is hovered or focused; may have several lines
  std::optional<std::size_t> note = {};  ///< on a page the tip goes on with this one of Figure::notes
  bool emphasised = false;               ///< larger and ringed
};

/// How many series can be told apart by colour; those after them begin again, dashed.
inline constexpr int kFigureColours = 7;

struct FigureSeries {
  std::string name = {};  ///< in the legend; empty: not there
  int colour = 0;         ///< 0 … kFigureColours − 1: its line's colour and its markers' shape
  bool line = false;
  bool dashed = false;
  bool markers = false;  ///< without them a point with a tip is only seen when it is hovered
  bool hollow = false;   ///< markers
  bool bars = false;     ///< along the axis that has no categories, each on what the series before it made
  bool band = false;     ///< fills between the y errors of neighbouring points
  std::vector<FigurePoint> points = {};
};

/// A dashed line across the whole plot, explained in the legend.
struct FigureRule {
  bool vertical = false;
  double value = 0;
  std::string name = {};
};

/// A rectangle in a colour of the sequential scale, such as a field of a heat map.
struct FigureCell {
  FigureInterval x, y;
  double shade = 0;  ///< 0 … 1, see sequential_colour
  std::string text = {};
  std::string tip = {};
};

/// Where the values behind the cells are equal.
struct FigureContour {
  double shade = 0;  ///< of cells with that value: the line is light on dark ones and dark on light ones
  std::string label = {};  ///< stands on the longest of the lines, where there is room
  std::vector<ContourLine> lines = {};
};

/// Explains the cells' shades.
struct FigureColourBar {
  std::string label = {};
  AxisScale scale = AxisScale::linear;
  FigureInterval range = {};
};

struct Figure {
  std::string title = {};
  FigureAxis x = {}, y = {};
  std::vector<FigureCell> cells = {};
  std::vector<FigureContour> contours = {};
  std::vector<FigureSeries> series = {};
  std::vector<FigureRule> rules = {};
  std::optional<FigureColourBar> colour_bar = {};
  /// What many points have to say, once for all of them. Too much for a file, whose points have their tips
  /// alone.
  std::vector<std::string> notes = {};
  /// The figure is these, in rows of `columns` where there is room. Of its own it then has a title, notes,
  /// and in the legend its series and rules; a panel's name none there.
  std::vector<Figure> panels = {};
  int columns = 2;
  /// Height of the plot without labels, in pixels; 0: by the categories along y, or by the width.
  double plot_height = 0;
};

struct SvgOptions {
  double width = 520;  ///< in pixels; text has the same size for any width
  /// A file of its own: with the title, the style and tips as <title>. Otherwise the page has figure_style()
  /// and shows as tips what the points have as aria-label; the first point of a figure can be focused.
  bool standalone = false;
};

/// As wide as the options say, or as least_width() if that is more.
std::string to_svg(const Figure& figure, const SvgOptions& options);

/// A line of a legend: its colour and mark as a picture, and its name.
struct FigureLegendEntry {
  std::string swatch, name;
};
/// The legend of a figure with panels, for a page that lays them out itself.
std::vector<FigureLegendEntry> legend_of(const Figure& figure);

/// The width in pixels that the names of the columns need in order not to overlap; 0 without columns.
double least_width(const Figure& figure);

/// The style sheet of all figures, for light and dark surroundings.
std::string figure_style();

/// A colour-blind-safe scale (cividis) from dark blue (0) to yellow (1), as "#rrggbb".
std::string sequential_colour(double shade);

}  // namespace goshawk
