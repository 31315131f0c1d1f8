#include "apps/support/figure.hpp"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <optional>
#include <utility>

#include "apps/support/figure_axis.hpp"
#include "apps/support/figure_text.hpp"
#include "core/error.hpp"

namespace goshawk {
namespace {

constexpr double kFont = 12, kTickFont = 11, kTitleFont = 15;
constexpr double kLine = 17;          // from one line of text to the next
constexpr double kCategoryStep = 17;  // height of a row
constexpr double kLeastColumn = 16;   // slanted names are this far apart
constexpr double kMarker = 3.6;       // radius
constexpr double kGap = 8;
constexpr double kLineSwatch = 22, kMarkSwatch = 12;
constexpr double kLeastPanel = 240, kPanelGap = 20;
// Colours for text on a cell; in the middle of the scale both can be read.
constexpr double kDarkUntil = 0.55;

/// Coordinates to a tenth of a pixel: more cannot be seen.
std::string px(double value) {
  std::string text = fmt::format("{:.1f}", value);
  if (text.ends_with(".0")) text.resize(text.size() - 2);
  return text == "-0" ? "0" : text;
}

/// Where a panel is in the figure that it belongs to.
struct PanelPlace {
  double x = 0, y = 0;
};

class Renderer {
 public:
  Renderer(const Figure& figure, const SvgOptions& options,
           const std::optional<PanelPlace>& place = std::nullopt)
      : figure_(figure),
        options_(options),
        place_(place),
        x_(figure.x, coordinates(true)),
        y_(figure.y, coordinates(false)),
        margin_(options.standalone && !place ? kGap : 0) {}

  std::string render() {
    if (!figure_.panels.empty()) {
      lay_out_panels();
      return frame();
    }
    lay_out();
    grid();
    cells();
    contours();
    for (const FigureRule& rule : figure_.rules) draw_rule(rule);
    bars();
    for (const FigureSeries& series : figure_.series) {
      if (series.band) draw_band(series);
      if (series.line) draw_line(series);
    }
    for (const FigureSeries& series : figure_.series) draw_points(series);
    say_when_nothing_is_shown();
    return frame();
  }

  struct Swatch {
    std::string name, picture;  ///< around y = 0, from x = 0 on
    double width = 0;
  };
  static std::vector<Swatch> swatches(const Figure& figure) {
    std::vector<Swatch> all;
    for (const FigureSeries& series : figure.series) {
      const double width = series.line ? kLineSwatch : kMarkSwatch;
      if (!series.name.empty()) all.push_back({series.name, swatch_of(series, width), width});
    }
    for (const FigureRule& rule : figure.rules) {
      if (rule.name.empty()) continue;
      all.push_back(
          {rule.name, fmt::format(R"(<path class="gf-rule" d="M0 0H{}"/>)", kLineSwatch), kLineSwatch});
    }
    return all;
  }

 private:
  // ── what must be seen ──

  std::vector<double> coordinates(bool along_x) const {
    std::vector<double> data;
    const auto add = [&](const std::optional<FigureInterval>& interval) {
      if (interval) data.insert(data.end(), {interval->low, interval->high});
    };
    for (const FigureSeries& series : figure_.series) {
      for (const FigurePoint& point : series.points) {
        data.push_back(along_x ? point.x : point.y);
        add(along_x ? point.x_error : point.y_error);
      }
    }
    for (const FigureCell& cell : figure_.cells) add(along_x ? cell.x : cell.y);
    for (const FigureRule& rule : figure_.rules) {
      if (rule.vertical == along_x) data.push_back(rule.value);
    }
    for (const auto& [category, sum] : bar_sums(along_x)) data.insert(data.end(), {0.0, sum});
    return data;
  }

  bool bars_lie() const { return figure_.y.scale == AxisScale::categories; }

  // How far the stacked bars reach, where they reach along this axis.
  std::vector<std::pair<double, double>> bar_sums(bool along_x) const {
    std::vector<std::pair<double, double>> sums;
    if (along_x != bars_lie()) return sums;
    for (const FigureSeries& series : figure_.series) {
      if (!series.bars) continue;
      for (const FigurePoint& point : series.points) {
        const double at = along_x ? point.y : point.x, value = along_x ? point.x : point.y;
        if (!std::isfinite(value)) continue;
        const auto it = std::find_if(sums.begin(), sums.end(), [&](const auto& s) { return s.first == at; });
        if (it == sums.end()) {
          sums.emplace_back(at, value);
        } else {
          it->second += value;
        }
      }
    }
    return sums;
  }

  // ── layout ──

  /// Of a file and of a panel; on a page the title stands outside.
  double title(double top) {
    if (!options_.standalone && !place_) return top;
    const double font = place_ ? kFont : kTitleFont;
    for (const std::string& line : wrap_text(figure_.title, font, options_.width - 2 * kGap)) {
      above_ += text(margin_, top + font - 1, line, place_ ? "gf-panel-title" : "gf-title");
      top += font + 5;
    }
    return top + 6;
  }

  void lay_out_panels() {
    double top = legend(title(4)) + 4;
    const double room = options_.width - 2 * margin_;
    const int fitting = static_cast<int>((room + kPanelGap) / (kLeastPanel + kPanelGap));
    const int columns = std::clamp(fitting, 1, std::max(figure_.columns, 1));
    const double width = (room - (columns - 1) * kPanelGap) / columns;
    double height = 0;  // of the row
    int column = 0;
    for (const Figure& panel : figure_.panels) {
      if (column == columns) {
        top += height + kPanelGap;
        height = 0;
        column = 0;
      }
      const SvgOptions options{.width = width, .standalone = options_.standalone};
      Renderer renderer(panel, options, PanelPlace{margin_ + column * (width + kPanelGap), top});
      body_ += renderer.render();
      height = std::max(height, renderer.total_);
      ++column;
    }
    total_ = top + height + margin_;
  }

  void lay_out() {
    double top = legend(title(4));
    for (const std::string& line : wrap_text(figure_.y.label, kFont, options_.width - 2 * kGap)) {
      above_ += text(margin_, top + 12, line, "");
      top += kLine;
    }
    if (!figure_.y.label.empty()) top += 4;

    height_ = figure_.plot_height;
    if (height_ == 0) {
      height_ = figure_.y.scale == AxisScale::categories
                    ? std::max<double>(2, static_cast<double>(figure_.y.categories.size())) * kCategoryStep
                    : std::clamp(options_.width * 0.55, 200.0, 320.0);
    }
    y_ticks_ = y_.ticks(static_cast<int>(height_ / 42));
    double widest = 0;
    for (const AxisTick& tick : y_ticks_) widest = std::max(widest, text_width(tick.label, kTickFont));
    left_ = std::min(widest + 2 * kGap, options_.width * 0.6);
    right_ = options_.width - 16;
    x_.place(left_, right_);
    const int wanted = static_cast<int>((right_ - left_) / (x_.scale() == AxisScale::log ? 48 : 58));
    x_ticks_ = x_.ticks(std::max(wanted, 2));
    top = slanted_labels(top);
    top_ = top + 4;
    bottom_ = top_ + height_;
    if (y_.scale() == AxisScale::categories) {
      y_.place(top_, bottom_);
    } else {
      y_.place(bottom_, top_);
    }
    double below = bottom_ + (slanted_ ? 6 : 20);
    for (const std::string& line : wrap_text(figure_.x.label, kFont, options_.width - 2 * kGap)) {
      // Below the plot's middle, but within the picture.
      const double half = text_width(line, kFont) / 2;
      const double middle = std::clamp((left_ + right_) / 2, half, std::max(half, options_.width - half));
      below_ += text(middle, below + 14, line, "", "middle");
      below += kLine;
    }
    total_ = colour_bar(below + 6);
  }

  // Names above the columns, slanted when they are too long to lie beside each other.
  double slanted_labels(double top) {
    if (x_.scale() != AxisScale::categories) return top;
    const double step = (right_ - left_) / std::max<double>(1, static_cast<double>(x_ticks_.size()));
    double widest = 0;
    for (const AxisTick& tick : x_ticks_) widest = std::max(widest, text_width(tick.label, kTickFont));
    if (widest + 6 <= step) return top;
    slanted_ = true;
    // At 45 degrees the last name would leave the picture: the plot makes room for it.
    const double reach = widest * std::sqrt(0.5);
    right_ = std::max(left_ + 0.4 * (right_ - left_), options_.width - reach - 4 + step / 2);
    right_ = std::min(right_, options_.width - 8);
    x_.place(left_, right_);
    return top + reach + 10;
  }

  double legend(double top) {
    double x = margin_;
    bool any = false;
    for (const Swatch& swatch : swatches(figure_)) {
      const double width = swatch.width + 6 + text_width(swatch.name, kFont) + 12;
      if (any && x + width > options_.width) {
        x = margin_;
        top += kLine;
      }
      above_ += fmt::format("<g transform=\"translate({} {})\">{}</g>", px(x), px(top + 8), swatch.picture);
      above_ += text(x + swatch.width + 6, top + 12, swatch.name, "");
      x += width;
      any = true;
    }
    return any ? top + kLine + 8 : top;
  }

  static std::string swatch_of(const FigureSeries& series, double width) {
    std::string svg;
    if (series.bars) {
      return fmt::format(R"(<rect class="gf-f{}" x="0" y="-6" width="{}" height="12"/>)", colour(series),
                         width);
    }
    if (series.line) {
      svg += fmt::format(R"(<path class="gf-line gf-s{}{}" d="M0 0H{}"/>)", colour(series),
                         series.dashed ? " gf-dashed" : "", width);
    }
    if (series.markers) {
      const auto [tag, geometry] = marker(series, width / 2, 0);
      svg += fmt::format(R"(<{} {} class="{}"/>)", tag, geometry, marker_style(series));
    }
    return svg;
  }

  double colour_bar(double top) {
    if (!figure_.colour_bar) return top;
    const FigureColourBar& bar = *figure_.colour_bar;
    for (const std::string& line : wrap_text(bar.label, kFont, options_.width - 2 * kGap)) {
      below_ += text(left_, top + 14, line, "");
      top += kLine;
    }
    top += 6;
    AxisMap map({.scale = bar.scale, .low = bar.range.low, .high = bar.range.high}, {});
    map.place(left_, right_);
    constexpr int kSteps = 40;
    const double step = (right_ - left_) / kSteps;
    for (int k = 0; k < kSteps; ++k) {
      below_ += fmt::format(R"(<rect x="{}" y="{}" width="{}" height="10" fill="{}"/>)", px(left_ + k * step),
                            px(top), px(step + 0.5), sequential_colour((k + 0.5) / kSteps));
    }
    for (const AxisTick& tick : map.ticks(static_cast<int>((right_ - left_) / 58))) {
      if (!tick.label.empty()) below_ += text(map(tick.value), top + 24, tick.label, "gf-tick", "middle");
    }
    return top + 32;
  }

  // ── pieces ──

  static std::string text(double x, double y, const std::string& content, const char* style,
                          const char* anchor = "") {
    return fmt::format(R"(<text x="{}" y="{}"{}{}>{}</text>)", px(x), px(y),
                       *style == 0 ? "" : fmt::format(" class=\"{}\"", style),
                       *anchor == 0 ? "" : fmt::format(" text-anchor=\"{}\"", anchor), xml_escape(content));
  }

  static int colour(const FigureSeries& series) { return series.colour % kFigureColours; }

  void grid() {
    for (const AxisTick& tick : x_ticks_) {
      const double x = x_(tick.value);
      if (x_.scale() != AxisScale::categories) {
        body_ += fmt::format(R"(<path class="gf-grid" d="M{} {}V{}"/>)", px(x), px(top_), px(bottom_));
      }
      if (tick.label.empty()) continue;
      if (slanted_) {
        body_ +=
            fmt::format(R"svg(<text class="gf-tick" transform="translate({} {}) rotate(-45)">{}</text>)svg",
                        px(x + 3), px(top_ - 6), xml_escape(tick.label));
      } else {
        const double half = text_width(tick.label, kTickFont) / 2;
        body_ += text(std::min(x, options_.width - half), bottom_ + 16, tick.label, "gf-tick", "middle");
      }
    }
    for (const AxisTick& tick : y_ticks_) {
      const double y = y_(tick.value);
      if (figure_.cells.empty()) {
        body_ += fmt::format(R"(<path class="gf-grid" d="M{} {}H{}"/>)", px(left_), px(y), px(right_));
      }
      if (!tick.label.empty()) body_ += text(left_ - kGap, y + 4, tick.label, "gf-tick", "end");
    }
    if (figure_.cells.empty()) {
      body_ += fmt::format(R"(<path class="gf-axis" d="M{} {}H{}"/>)", px(left_), px(bottom_), px(right_));
    }
  }

  void cells() {
    for (const FigureCell& cell : figure_.cells) {
      const auto [left, right] = std::minmax({x_(cell.x.low), x_(cell.x.high)});
      const auto [top, bottom] = std::minmax({y_(cell.y.low), y_(cell.y.high)});
      // Fields with text stand apart; those of a heat map overlap a little, or rounding would leave hairlines
      // between some of them.
      const double gap = cell.text.empty() ? -0.3 : 1;
      element(
          "rect",
          fmt::format(R"(x="{}" y="{}" width="{}" height="{}" fill="{}"{})", px(left + gap), px(top + gap),
                      px(right - left - 2 * gap), px(bottom - top - 2 * gap), sequential_colour(cell.shade),
                      cell.text.empty() ? R"( shape-rendering="crispEdges")" : ""),
          "", cell.tip);
      if (!cell.text.empty()) {
        body_ += text((left + right) / 2, (top + bottom) / 2 + 4, cell.text,
                      cell.shade < kDarkUntil ? "gf-on-dark" : "gf-on-light", "middle");
      }
    }
  }

  void contours() {
    for (const FigureContour& contour : figure_.contours) {
      std::string path;
      for (const ContourLine& line : contour.lines) {
        for (std::size_t k = 0; k < line.size(); ++k) {
          path += fmt::format("{}{} {}", k == 0 ? "M" : "L", px(x_(line[k].first)), px(y_(line[k].second)));
        }
      }
      if (path.empty()) continue;
      body_ +=
          clipped(fmt::format(R"(<path class="gf-contour {}" d="{}"/>)",
                              contour.shade < kDarkUntil ? "gf-line-on-dark" : "gf-line-on-light", path));
    }
    // After all lines, so that none crosses a label.
    std::vector<std::pair<double, double>> placed;
    for (const FigureContour& contour : figure_.contours) label_contour(contour, placed);
  }

  // At the point of the longest line that is furthest from the labels that are there; nowhere when that is
  // too near or the label would leave the plot.
  void label_contour(const FigureContour& contour, std::vector<std::pair<double, double>>& placed) {
    const auto longest = std::max_element(contour.lines.begin(), contour.lines.end(),
                                          [](const auto& a, const auto& b) { return a.size() < b.size(); });
    if (contour.label.empty() || longest == contour.lines.end()) return;
    const double half = text_width(contour.label, kTickFont) / 2 + 2;
    std::optional<std::pair<double, double>> best;
    double most = 2 * half + 6;  // names of one figure are about equally long
    for (const auto& [x, y] : *longest) {
      const std::pair at{x_(x), y_(y)};
      if (at.first - half < left_ || at.first + half > right_ || at.second - 8 < top_ ||
          at.second + 8 > bottom_)
        continue;
      double nearest = 1e6;
      for (const auto& other : placed)
        nearest = std::min(nearest, std::hypot(at.first - other.first, at.second - other.second));
      if (nearest <= most) continue;
      most = nearest;
      best = at;
    }
    if (!best) return;
    placed.push_back(*best);
    // On a ground of its own, so that the line does not go through it.
    const auto& [x, y] = *best;
    body_ += fmt::format(R"(<rect x="{}" y="{}" width="{}" height="14" rx="3" fill="{}"/>)", px(x - half),
                         px(y - 7), px(2 * half), sequential_colour(contour.shade));
    body_ += text(x, y + 4, contour.label,
                  contour.shade < kDarkUntil ? "gf-contour-label gf-on-dark" : "gf-contour-label gf-on-light",
                  "middle");
  }

  void draw_rule(const FigureRule& rule) {
    const AxisMap& map = rule.vertical ? x_ : y_;
    if (!map.shows(rule.value)) return;
    const double at = map(rule.value);
    body_ += rule.vertical
                 ? fmt::format(R"(<path class="gf-rule" d="M{} {}V{}"/>)", px(at), px(top_), px(bottom_))
                 : fmt::format(R"(<path class="gf-rule" d="M{} {}H{}"/>)", px(left_), px(at), px(right_));
  }

  void bars() {
    std::vector<std::pair<double, double>> reached;  // by category: where the next bar begins
    for (const FigureSeries& series : figure_.series) {
      if (!series.bars) continue;
      for (const FigurePoint& point : series.points) {
        const double at = bars_lie() ? point.y : point.x, value = bars_lie() ? point.x : point.y;
        if (!std::isfinite(at) || !std::isfinite(value)) continue;
        auto it = std::find_if(reached.begin(), reached.end(), [&](const auto& r) { return r.first == at; });
        if (it == reached.end()) it = reached.insert(reached.end(), {at, 0});
        const AxisMap& along = bars_lie() ? x_ : y_;
        const AxisMap& across = bars_lie() ? y_ : x_;
        const double from = along(std::max(it->second, along.low())), to = along(it->second + value);
        const auto [side, other] = std::minmax({across(at - 0.36), across(at + 0.36)});
        const auto [begin, end] = std::minmax({from, to});
        it->second += value;
        element("rect",
                bars_lie() ? fmt::format(R"(x="{}" y="{}" width="{}" height="{}")", px(begin), px(side),
                                         px(end - begin), px(other - side))
                           : fmt::format(R"(x="{}" y="{}" width="{}" height="{}")", px(side), px(begin),
                                         px(other - side), px(end - begin)),
                fmt::format("gf-f{}", colour(series)), point.tip);
      }
    }
  }

  // An empty plot could be a mistake of ours.
  void say_when_nothing_is_shown() {
    bool any = false, shown = !figure_.cells.empty() || !figure_.contours.empty();
    for (const FigureSeries& series : figure_.series) {
      for (const FigurePoint& point : series.points) {
        any = true;
        shown = shown || (series.bars ? std::isfinite(bars_lie() ? point.x : point.y) : visible(point));
      }
    }
    if (shown) return;
    body_ += text((left_ + right_) / 2, (top_ + bottom_) / 2 + 4,
                  any ? "no value that can be shown here" : "no data", "gf-tick", "middle");
  }

  bool visible(const FigurePoint& point) const { return x_.shows(point.x) && y_.shows(point.y); }

  void draw_line(const FigureSeries& series) {
    std::string path;
    bool broken = true;
    for (const FigurePoint& point : series.points) {
      if (!std::isfinite(point.x) || !std::isfinite(point.y)) {
        broken = true;
        continue;
      }
      path += fmt::format("{}{} {}", broken ? "M" : "L", px(x_(point.x)), px(y_(point.y)));
      broken = false;
    }
    body_ += clipped(fmt::format(R"(<path class="gf-line gf-s{}{}" d="{}"/>)", colour(series),
                                 series.dashed ? " gf-dashed" : "", path));
  }

  void draw_band(const FigureSeries& series) {
    std::string outline;
    const auto corner = [&](double x, double y) {
      if (!std::isfinite(x) || !std::isfinite(y)) return;
      outline += fmt::format("{}{} {}", outline.empty() ? "M" : "L", px(x_(x)), px(y_(y)));
    };
    for (const FigurePoint& point : series.points) {
      if (point.y_error) corner(point.x, point.y_error->high);
    }
    for (auto point = series.points.rbegin(); point != series.points.rend(); ++point) {
      if (point->y_error) corner(point->x, point->y_error->low);
    }
    body_ += clipped(fmt::format(R"(<path class="gf-band gf-f{}" d="{}Z"/>)", colour(series), outline));
  }

  void draw_points(const FigureSeries& series) {
    if (series.bars) return;
    for (const FigurePoint& point : series.points) {
      if (!visible(point)) continue;
      const double x = x_(point.x), y = y_(point.y);
      if (point.x_error && !series.band) error_bar(series, *point.x_error, y, true);
      if (point.y_error && !series.band) error_bar(series, *point.y_error, x, false);
      if (series.markers || point.emphasised) {
        if (point.emphasised) {
          body_ += fmt::format(R"(<circle class="gf-ring" cx="{}" cy="{}" r="{}"/>)", px(x), px(y),
                               px(kMarker + 3.4));
        }
        const auto [tag, geometry] = marker(series, x, y);
        element(tag, geometry, marker_style(series), point.tip, point.note);
      } else if (!point.tip.empty()) {
        element("circle", fmt::format(R"(cx="{}" cy="{}" r="{}")", px(x), px(y), px(kMarker)),
                fmt::format("gf-hit gf-f{}", colour(series)), point.tip, point.note);
      }
    }
  }

  void error_bar(const FigureSeries& series, const FigureInterval& interval, double at, bool lies) {
    if (!std::isfinite(interval.low) || !std::isfinite(interval.high)) return;
    const AxisMap& map = lies ? x_ : y_;
    const auto within = [&](double value) { return map(std::clamp(value, map.low(), map.high())); };
    const double low = within(interval.low), high = within(interval.high), cap = 3.2;
    body_ += lies
                 ? fmt::format(R"(<path class="gf-error gf-s{0}" d="M{1} {2}H{3}M{1} {4}V{5}M{3} {4}V{5}"/>)",
                               colour(series), px(low), px(at), px(high), px(at - cap), px(at + cap))
                 : fmt::format(R"(<path class="gf-error gf-s{0}" d="M{2} {1}V{3}M{4} {1}H{5}M{4} {3}H{5}"/>)",
                               colour(series), px(low), px(at), px(high), px(at - cap), px(at + cap));
  }

  // A shape of its own for each colour: an element's name and its geometry.
  static std::pair<const char*, std::string> marker(const FigureSeries& series, double x, double y) {
    const auto at = [&](double dx, double dy) {
      return fmt::format("{} {}", px(x + dx * kMarker), px(y + dy * kMarker));
    };
    const auto polygon = [](const auto&... corners) {
      std::string path;
      ((path += (path.empty() ? "M" : "L") + corners), ...);
      return std::pair{"path", fmt::format(R"(d="{}Z")", path)};
    };
    switch (colour(series)) {
      case 1:
        return polygon(at(0, -1.35), at(1.35, 0), at(0, 1.35), at(-1.35, 0));
      case 2:
        return polygon(at(-1, -1), at(1, -1), at(1, 1), at(-1, 1));
      case 3:
        return polygon(at(0, -1.3), at(1.25, 0.95), at(-1.25, 0.95));
      case 4:
        return polygon(at(0, 1.3), at(1.25, -0.95), at(-1.25, -0.95));
      default:
        return {"circle", fmt::format(R"(cx="{}" cy="{}" r="{}")", px(x), px(y), px(kMarker))};
    }
  }

  static std::string marker_style(const FigureSeries& series) {
    return series.hollow ? fmt::format("gf-hollow gf-s{}", colour(series))
                         : fmt::format("gf-mark gf-f{}", colour(series));
  }

  std::string attributes(const std::string& tip, const std::optional<std::size_t>& note) {
    if (tip.empty()) return "";
    if (options_.standalone) return " ";
    // The page's script lets the arrow keys go on from the first. Thousands of points make every attribute
    // count.
    const bool first = !std::exchange(focusable_, true);
    return fmt::format(R"( role="img"{}{} aria-label="{}")", first ? R"( tabindex="0")" : "",
                       note ? fmt::format(" data-note=\"{}\"", *note) : "", xml_escape(tip));
  }

  void element(const char* tag, const std::string& geometry, const std::string& style, const std::string& tip,
               const std::optional<std::size_t>& note = std::nullopt) {
    const std::string known = attributes(tip, note);
    const std::string all = style + (known.empty() ? "" : style.empty() ? "gf-tip" : " gf-tip");
    body_ +=
        fmt::format("<{} {}{}{}", tag, geometry, all.empty() ? "" : fmt::format(" class=\"{}\"", all), known);
    body_ += tip.empty() || !options_.standalone
                 ? "/>"
                 : fmt::format("><title>{}</title></{}>", xml_escape(tip), tag);
  }

  // Lines may leave the plot where an axis has limits of its own. An inner <svg> cuts them off; a clip path
  // would need an id that is unique on the page.
  std::string clipped(const std::string& content) const {
    const double x = left_, y = top_ - 2, width = right_ - left_ + 2, height = bottom_ - top_ + 4;
    return fmt::format(R"(<svg x="{0}" y="{1}" width="{2}" height="{3}" viewBox="{0} {1} {2} {3}">{4}</svg>)",
                       px(x), px(y), px(width), px(height), content);
  }

  std::string frame() const {
    const bool group = focusable_ || !figure_.panels.empty();
    std::string svg = fmt::format(
        R"(<svg class="gf" {4}width="{0}" height="{1}" viewBox="0 0 {0} {1}" role="{2}" aria-label="{3}">)",
        px(options_.width), px(total_), group ? "group" : "img", xml_escape(figure_.title),
        place_ ? fmt::format(R"(x="{}" y="{}" )", px(place_->x), px(place_->y))
               : R"(xmlns="http://www.w3.org/2000/svg" )");
    if (options_.standalone && !place_) {
      svg += fmt::format("<style>{}svg{{background:var(--gf-ground)}}</style>", figure_style());
      svg += R"svg(<rect width="100%" height="100%" style="fill:var(--gf-ground)"/>)svg";
    }
    return svg + above_ + body_ + below_ + "</svg>\n";
  }

  const Figure& figure_;
  const SvgOptions& options_;
  std::optional<PanelPlace> place_;
  AxisMap x_, y_;
  double margin_;  // left of the title, the legend and the labels
  std::vector<AxisTick> x_ticks_, y_ticks_;
  double left_ = 0, right_ = 0, top_ = 0, bottom_ = 0, height_ = 0, total_ = 0;
  bool slanted_ = false, focusable_ = false;
  std::string above_, body_, below_;
};

double widest_name(const std::vector<std::string>& names) {
  double widest = 0;
  for (const std::string& name : names) widest = std::max(widest, text_width(name, kTickFont));
  return widest;
}

}  // namespace

std::vector<FigureLegendEntry> legend_of(const Figure& figure) {
  std::vector<FigureLegendEntry> legend;
  for (const Renderer::Swatch& swatch : Renderer::swatches(figure)) {
    legend.push_back(
        {fmt::format(
             R"(<svg class="gf" width="{0}" height="14" viewBox="0 -7 {0} 14" aria-hidden="true">{1}</svg>)",
             px(swatch.width), swatch.picture),
         swatch.name});
  }
  return legend;
}

double least_width(const Figure& figure) {
  if (figure.x.scale != AxisScale::categories) return 0;
  const double rows = figure.y.scale == AxisScale::categories ? widest_name(figure.y.categories) : 40;
  return rows + 2 * kGap + kLeastColumn * static_cast<double>(figure.x.categories.size()) +
         widest_name(figure.x.categories) * std::sqrt(0.5) + kGap;
}

std::string to_svg(const Figure& figure, const SvgOptions& options) {
  check(options.width >= 200, "[figure] a width of {} is too narrow; give at least 200 pixels",
        options.width);
  SvgOptions widened = options;
  widened.width = std::max(options.width, std::ceil(least_width(figure)));
  return Renderer(figure, widened).render();
}

}  // namespace goshawk
