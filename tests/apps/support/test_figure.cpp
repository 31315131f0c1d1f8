#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <doctest/doctest.h>
#include <limits>
#include <set>

#include "apps/support/contours.hpp"
#include "apps/support/figure.hpp"
#include "apps/support/figure_axis.hpp"
#include "apps/support/figure_text.hpp"
#include "core/error.hpp"
#include "tests/support/scratch_directory.hpp"
#include "tests/support/xml.hpp"

using namespace goshawk;

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

std::vector<std::string> labels(const AxisMap& axis, int wanted) {
  std::vector<std::string> named;
  for (const AxisTick& tick : axis.ticks(wanted)) {
    if (!tick.label.empty()) named.push_back(tick.label);
  }
  return named;
}

AxisMap axis(AxisScale scale, double low, double high) {
  return AxisMap({.scale = scale, .low = low, .high = high}, {});
}

/// What stands between each `before` and the next `after`.
std::vector<std::string> all_between(const std::string& text, const std::string& before,
                                     const std::string& after) {
  std::vector<std::string> found;
  for (std::size_t at = text.find(before); at != std::string::npos; at = text.find(before, at)) {
    at += before.size();
    found.push_back(text.substr(at, text.find(after, at) - at));
  }
  return found;
}

/// The numbers in a path or an attribute.
std::vector<double> numbers(const std::string& text) {
  std::vector<double> values;
  for (const char* at = text.c_str(); *at != 0;) {
    char* end = nullptr;
    const double value = std::strtod(at, &end);
    if (end == at) {
      ++at;
    } else {
      values.push_back(value);
      at = end;
    }
  }
  return values;
}

/// The points of the one line in a figure, as pixels.
std::vector<std::pair<double, double>> line_pixels(const std::string& svg) {
  const auto paths = all_between(svg, "<path class=\"gf-line gf-s0\" d=\"M", "\"");
  std::vector<std::pair<double, double>> pixels;
  const std::vector<double> values = numbers(paths.at(paths.size() - 1));
  for (std::size_t k = 0; k + 1 < values.size(); k += 2) pixels.emplace_back(values[k], values[k + 1]);
  return pixels;
}

Figure line_figure(const std::vector<std::pair<double, double>>& points, AxisScale y = AxisScale::linear) {
  Figure figure{.title = "A line", .x = {.label = "x"}, .y = {.label = "y", .scale = y}};
  FigureSeries series{.line = true};
  for (const auto& [at, value] : points) series.points.push_back({.x = at, .y = value});
  figure.series.push_back(series);
  return figure;
}

/// A figure in both ways it is written.
std::vector<std::string> both(const Figure& figure) {
  return {to_svg(figure, {.width = 480}), to_svg(figure, {.width = 480, .standalone = true})};
}

void check_sound(const Figure& figure) {
  for (const std::string& svg : both(figure)) {
    CHECK(is_well_formed(svg));
    CHECK(svg.starts_with("<svg class=\"gf\" xmlns=\"http://www.w3.org/2000/svg\""));
    for (const char* bad : {"nan", "inf", "NaN"}) CHECK_MESSAGE(!contains(svg, bad), svg);
  }
}

}  // namespace

TEST_CASE("linear axes have ticks at round numbers, as many digits as their step needs") {
  using Labels = std::vector<std::string>;
  CHECK(labels(axis(AxisScale::linear, 0, 10), 5) == Labels{"0", "2", "4", "6", "8", "10"});
  CHECK(labels(axis(AxisScale::linear, -0.3, 0.3), 6) ==
        Labels{"-0.3", "-0.2", "-0.1", "0.0", "0.1", "0.2", "0.3"});
  CHECK(labels(axis(AxisScale::linear, 0, 30000), 3) == Labels{"0", "10,000", "20,000", "30,000"});
  CHECK(labels(axis(AxisScale::linear, 0, 2e-6), 2) == Labels{"0", "1·10⁻⁶", "2·10⁻⁶"});
  const AxisMap map = axis(AxisScale::linear, 7, 93);
  for (const AxisTick& tick : map.ticks(6)) CHECK(map.shows(tick.value));
}

TEST_CASE("log axes have ticks at powers of ten, and between them where there is room") {
  using Labels = std::vector<std::string>;
  CHECK(labels(axis(AxisScale::log, 1e-9, 1e3), 4) == Labels{"10⁻⁹", "10⁻⁶", "10⁻³", "10⁰", "10³"});
  CHECK(labels(axis(AxisScale::log, 0.1, 5), 5) == Labels{"0.1", "0.2", "0.5", "1", "2", "5"});
  CHECK(labels(axis(AxisScale::log, 1, 1e5), 5) == Labels{"1", "10", "100", "1,000", "10,000", "100,000"});
  // In less than a decade there may be one round number of these; one tick says nothing.
  CHECK(labels(axis(AxisScale::log, 2.2, 4.9), 5) == Labels{"2.5", "3.0", "3.5", "4.0", "4.5"});
  CHECK(labels(axis(AxisScale::log, 1.7, 4.7), 4).size() >= 2);
  // Even steps on a scale that is not: names that would meet are left out, their lines are not.
  const AxisMap crowded = axis(AxisScale::log, 0.021, 0.094);
  CHECK(labels(crowded, 8) == Labels{"0.03", "0.04", "0.05", "0.06", "0.07", "0.08"});
  CHECK(crowded.ticks(8).back().value == doctest::Approx(0.09));
}

TEST_CASE("categories run along an axis with half a step on each side") {
  AxisMap map({.scale = AxisScale::categories, .categories = {"a", "b", "c"}}, {});
  map.place(0, 300);
  CHECK(map(0) == doctest::Approx(50));
  CHECK(map(2) == doctest::Approx(250));
  CHECK(labels(map, 1) == std::vector<std::string>{"a", "b", "c"});
}

TEST_CASE("an axis shows its data, and something sensible without any") {
  const AxisMap open({}, {2, kNan, 12, INFINITY});
  CHECK(open.low() == doctest::Approx(1.6));
  CHECK(open.high() == doctest::Approx(12.4));
  CHECK(AxisMap({}, {0, 10}).low() == 0);
  for (const AxisScale scale : {AxisScale::linear, AxisScale::log}) {
    for (const std::vector<double>& data :
         {std::vector<double>{}, {kNan}, {3}, {0}, {-1}, {1e-300}, {1e300}}) {
      AxisMap map({.scale = scale}, data);
      map.place(0, 100);
      CHECK(map.low() < map.high());
      CHECK(!map.ticks(5).empty());
      CHECK(map.ticks(5).size() < 40);
    }
  }
  const AxisMap log({.scale = AxisScale::log}, {1, 100});
  CHECK(!log.shows(0));
  CHECK(!log.shows(-3));
  CHECK(log.shows(10));
}

TEST_CASE("points land where the scales say") {
  // Three equal steps along both axes, so three equal steps in pixels; y grows upwards.
  for (const AxisScale scale : {AxisScale::linear, AxisScale::log}) {
    const bool log = scale == AxisScale::log;
    const auto at = [&](int k) { return log ? std::pow(10, k) : 1.0 + k; };
    Figure figure = line_figure({{0, at(0)}, {1, at(1)}, {2, at(2)}}, scale);
    const auto pixels = line_pixels(to_svg(figure, {.width = 480}));
    REQUIRE(pixels.size() == 3);
    for (int k : {1, 2}) {
      CHECK(pixels[k].first - pixels[k - 1].first ==
            doctest::Approx(pixels[1].first - pixels[0].first).epsilon(0.01));
      CHECK(pixels[k].second - pixels[k - 1].second ==
            doctest::Approx(pixels[1].second - pixels[0].second).epsilon(0.01));
      CHECK(pixels[k].second < pixels[k - 1].second);
    }
    CHECK(pixels[0].first >= 0);
    CHECK(pixels[2].first <= 480);
    // With limits of its own an axis begins and ends there: the right end of the plot is 16 pixels in.
    figure.x.low = 0;
    figure.x.high = 2;
    CHECK(line_pixels(to_svg(figure, {.width = 480}))[2].first == doctest::Approx(464).epsilon(0.001));
  }
  // A marker is where its grid line is.
  Figure marked{.y = {.scale = AxisScale::categories, .categories = {"one"}},
                .series = {{.markers = true, .points = {{.x = 5, .y = 0}}}}};
  marked.x.low = 4;
  marked.x.high = 6;
  const std::string svg = to_svg(marked, {.width = 480});
  const auto circle = numbers(all_between(svg, "<circle cx=\"", "\" class=\"gf-mark gf-f0\"").at(0));
  bool on_grid = false;
  for (const std::string& grid : all_between(svg, "class=\"gf-grid\" d=\"M", "\"")) {
    on_grid = on_grid || std::abs(numbers(grid)[0] - circle[0]) < 0.11;
  }
  CHECK(on_grid);
}

TEST_CASE("a line is broken where a value is not a number, and a point is not drawn there") {
  Figure figure = line_figure({{0, 1}, {1, kNan}, {2, 3}, {3, INFINITY}, {4, 2}});
  figure.series[0].markers = true;
  check_sound(figure);
  const std::string svg = to_svg(figure, {.width = 480});
  const auto path = all_between(svg, "<path class=\"gf-line gf-s0\" d=\"", "\"").at(0);
  CHECK(std::count(path.begin(), path.end(), 'M') == 3);
  CHECK(!contains(path, "L"));
  CHECK(all_between(svg, "class=\"gf-mark gf-f0\"", ">").size() == 3);
}

TEST_CASE("figures of nothing, of one point and of numbers that are none are figures all the same") {
  check_sound({});
  CHECK(contains(both({})[0], ">no data</text>"));
  check_sound({.title = "Empty", .x = {.label = "x"}, .y = {.scale = AxisScale::categories}});
  for (const AxisScale scale : {AxisScale::linear, AxisScale::log}) {
    check_sound(line_figure({}, scale));
    check_sound(line_figure({{1, 1}}, scale));
    check_sound(line_figure({{0, 0}, {0, 0}}, scale));
    check_sound(line_figure({{kNan, kNan}}, scale));
    CHECK(contains(both(line_figure({{kNan, 1}, {2, kNan}}, scale))[1],
                   ">no value that can be shown here</text>"));
    CHECK(!contains(both(line_figure({{1, 1}}, scale))[0], "no data"));
    check_sound(line_figure({{-1, -1}, {1e300, 1e-300}}, scale));
  }
  CHECK(contains(both(line_figure({{1, 0}, {2, -5}}, AxisScale::log))[0], "no value that can be shown here"));
  check_sound(
      {.y = {.scale = AxisScale::categories, .categories = {"a", "b"}},
       .series = {{.bars = true, .points = {{.x = kNan, .y = 0}, {.x = 3, .y = 1}}},
                  {.band = true, .points = {{.x = 1, .y = 0, .y_error = FigureInterval{kNan, 2}}}},
                  {.markers = true, .points = {{.x = 1, .y = 0, .x_error = FigureInterval{kNan, 2}}}}}});
  Figure cells{.cells = {{.x = {0, 1}, .y = {0, 1}, .shade = kNan, .tip = "?"}}};
  check_sound(cells);
  CHECK_THROWS_AS(to_svg({}, {.width = 100}), Error);
}

TEST_CASE("everything a figure can hold is well-formed, whatever it is called") {
  const std::string odd = "c<&\"'>\n\x01\xff|*µ";
  Figure figure{.title = odd,
                .x = {.label = odd, .scale = AxisScale::log},
                .y = {.label = odd, .scale = AxisScale::categories, .categories = {odd, "b"}},
                .rules = {{.vertical = true, .value = 3, .name = odd}},
                .colour_bar = FigureColourBar{odd, AxisScale::log, {0.1, 10}}};
  for (int colour = 0; colour < kFigureColours; ++colour) {
    figure.series.push_back({.name = odd,
                             .colour = colour,
                             .markers = true,
                             .hollow = colour % 2 == 1,
                             .points = {{.x = 1.0 + colour,
                                         .y = 0,
                                         .x_error = FigureInterval{0.5, 2.0 + colour},
                                         .tip = odd,
                                         .emphasised = colour == 3}}});
  }
  figure.series.push_back({.name = odd, .bars = true, .points = {{.x = 4, .y = 1, .tip = odd}}});
  check_sound(figure);
  for (const std::string& svg : both(figure)) {
    CHECK(!contains(svg, odd));
    CHECK(contains(svg, "c&lt;&amp;&quot;&#39;&gt;"));
    CHECK(contains(svg, "µ"));
  }
  // Tips are <title> in a file and labels on a page, of which one can be reached with Tab.
  const auto page = both(figure)[0], file = both(figure)[1];
  CHECK(contains(file, "<title>"));
  CHECK(!contains(file, "tabindex"));
  CHECK(all_between(page, "tabindex=\"0\"", ">").size() == 1);
  CHECK(all_between(page, "role=\"img\"", "aria-label").size() == 8);
}

TEST_CASE("text is escaped, numbers are written for people") {
  CHECK(xml_escape("a<b>&\"'\n\t\x02\xffµ") ==
        "a&lt;b&gt;&amp;&quot;&#39;&#10;??"
        "?µ");
  CHECK(with_thousands(1234567) == "1,234,567");
  CHECK(with_thousands(-1234) == "-1,234");
  CHECK(with_thousands(999) == "999");
  CHECK(readable(0) == "0");
  CHECK(readable(0.026114) == "0.02611");
  CHECK(readable(3.2e-5, 2) == "3.2·10⁻⁵");
  CHECK(readable(123456) == "123,456");
  CHECK(readable(kNan) == "nan");
  CHECK(wrap_text("one two three", 12, 50) == std::vector<std::string>{"one two", "three"});
}

TEST_CASE("the style has every colour for light and for dark, and each can be told from its ground") {
  const std::string style = figure_style();
  const std::size_t dark = style.find("@media (prefers-color-scheme:dark)");
  REQUIRE(dark != std::string::npos);
  // Relative luminance and contrast as WCAG 2 defines them.
  const auto luminance = [](const std::string& hex) {
    const std::string digits =
        hex.size() == 3 ? std::string{hex[0], hex[0], hex[1], hex[1], hex[2], hex[2]} : hex;
    double sum = 0;
    const double weights[] = {0.2126, 0.7152, 0.0722};
    for (int c = 0; c < 3; ++c) {
      const double v = std::stoi(digits.substr(static_cast<std::size_t>(2 * c), 2), nullptr, 16) / 255.0;
      sum += weights[c] * (v <= 0.03928 ? v / 12.92 : std::pow((v + 0.055) / 1.055, 2.4));
    }
    return sum;
  };
  const auto contrast = [&](const std::string& a, const std::string& b) {
    const auto [low, high] = std::minmax({luminance(a), luminance(b)});
    return (high + 0.05) / (low + 0.05);
  };
  const std::string light_part = style.substr(0, dark);
  const std::string dark_part = style.substr(dark, style.find("}}", dark) - dark + 1);
  for (const std::string& part : {light_part, dark_part}) {
    const auto colour = [&](const std::string& name) {
      const std::size_t at = part.find("--gf-" + name + ":#");
      REQUIRE_MESSAGE(at != std::string::npos, name);
      const std::size_t begin = at + name.size() + 7;
      return part.substr(begin, part.find_first_of(";}", begin) - begin);
    };
    const std::string ground = colour("ground");
    CHECK(contrast(colour("ink"), ground) > 7);
    CHECK(contrast(colour("soft"), ground) > 4.5);
    std::set<std::string> colours;
    for (int k = 0; k < kFigureColours; ++k) {
      const std::string own = colour(std::to_string(k));
      CHECK_MESSAGE(contrast(own, ground) > 2, own);
      colours.insert(own);
      CHECK(contains(style, ".gf .gf-f" + std::to_string(k) + "{"));
      CHECK(contains(style, ".gf .gf-s" + std::to_string(k) + "{"));
    }
    CHECK(colours.size() == kFigureColours);
  }
  CHECK(luminance(light_part.substr(light_part.find("ground:#") + 8, 3)) > 0.9);
  CHECK(luminance(dark_part.substr(dark_part.find("ground:#") + 8, 6)) < 0.05);
  // A file brings the style with it, a page has it once.
  const auto svgs = both(line_figure({{0, 1}, {1, 2}}));
  CHECK(!contains(svgs[0], "prefers-color-scheme"));
  CHECK(contains(svgs[1], "prefers-color-scheme:dark"));

  CHECK(sequential_colour(0) == "#00224e");
  CHECK(sequential_colour(1) == "#fee838");
  CHECK(sequential_colour(-3) == sequential_colour(0));
  CHECK(sequential_colour(kNan) == sequential_colour(1));
  for (int k = 0; k < 10; ++k) {
    CHECK(luminance(sequential_colour(k / 10.0).substr(1)) <
          luminance(sequential_colour((k + 1) / 10.0).substr(1)));
  }
}

TEST_CASE("contours lie over the cells, each with its label") {
  std::vector<double> steps;
  for (int k = -20; k <= 20; ++k) steps.push_back(k / 10.0);
  std::vector<double> values;
  for (const double x : steps) {
    for (const double y : steps) values.push_back(x * x + y * y);
  }
  Figure figure{.x = {.low = -2, .high = 2}, .y = {.low = -2, .high = 2}, .plot_height = 400};
  for (const double radius : {1.0, 1.5}) {
    figure.contours.push_back({.shade = radius - 0.6,
                               .label = "r=" + std::to_string(radius).substr(0, 3),
                               .lines = contour_lines(steps, steps, values, radius * radius)});
  }
  check_sound(figure);
  const std::string svg = to_svg(figure, {.width = 480});
  const auto dark = all_between(svg, "<path class=\"gf-contour gf-line-on-dark\" d=\"", "\"");
  const auto light = all_between(svg, "<path class=\"gf-contour gf-line-on-light\" d=\"", "\"");
  REQUIRE(dark.size() == 1);
  REQUIRE(light.size() == 1);
  // The inner circle is half as high as the plot and the outer three quarters.
  const auto height = [](const std::string& path) {
    const std::vector<double> all = numbers(path);
    double least = 1e9, most = -1e9;
    for (std::size_t k = 1; k < all.size(); k += 2) {
      least = std::min(least, all[k]);
      most = std::max(most, all[k]);
    }
    return most - least;
  };
  CHECK(height(dark[0]) == doctest::Approx(200).epsilon(0.01));
  CHECK(height(light[0]) == doctest::Approx(300).epsilon(0.01));
  CHECK(contains(svg, ">r=1.0</text>"));
  CHECK(contains(svg, ">r=1.5</text>"));
  // A contour without lines has no label either.
  figure.contours = {{.shade = 0.5, .label = "none"}};
  CHECK(!contains(to_svg(figure, {.width = 480}), "none"));
}

TEST_CASE("panels stand in rows of as many as there is room for, under one title and one legend") {
  Figure figure{.title = "Both", .series = {{.name = "a mark", .markers = true}}, .notes = {"eight & more"}};
  figure.rules.push_back({.name = "a rule"});
  for (const char* title : {"First", "Second", "Third"}) {
    figure.panels.push_back(
        {.title = title,
         .x = {.label = "x"},
         .series = {{.markers = true, .points = {{.x = 1, .y = 2, .tip = title, .note = 0}}}},
         .plot_height = 100});
  }
  check_sound(figure);
  const auto places = [&](double width) {
    const std::string svg = to_svg(figure, {.width = width, .standalone = true});
    std::vector<std::pair<double, double>> at;
    for (const std::string& place : all_between(svg, "<svg class=\"gf\" x=\"", " width")) {
      const auto xy = numbers(place);
      at.emplace_back(xy.at(0), xy.at(1));
    }
    // All of them within the picture, and nothing of it empty.
    const double height = numbers(all_between(svg, "height=\"", "\"").at(0)).at(0);
    CHECK(at.back().second + 100 < height);
    return at;
  };
  const auto wide = places(700);
  REQUIRE(wide.size() == 3);
  CHECK(wide[0].second == wide[1].second);
  CHECK(wide[0].first < wide[1].first);
  CHECK(wide[2].first == wide[0].first);
  CHECK(wide[2].second > wide[0].second + 100);
  const auto narrow = places(400);
  CHECK(narrow[1].first == narrow[0].first);
  CHECK(narrow[1].second > narrow[0].second + 100);
  figure.columns = 3;
  CHECK(places(900)[2].second == places(900)[0].second);

  const std::string file = both(figure)[1], page = to_svg(figure.panels[0], {.width = 300});
  for (const char* name : {">Both<", ">First<", ">Third<", ">a mark<", ">a rule<"})
    CHECK_MESSAGE(contains(file, name), name);
  CHECK(all_between(file, "<style>", "<").size() == 1);
  CHECK(all_between(file, "xmlns=", ">").size() == 1);
  // On a page the title and the legend are the page's, and a point says which note is its own.
  CHECK(!contains(page, ">First<"));
  CHECK(contains(page, "data-note=\"0\" aria-label=\"First\""));
  const auto legend = legend_of(figure);
  REQUIRE(legend.size() == 2);
  CHECK(legend[0].name == "a mark");
  CHECK(legend[1].name == "a rule");
  for (const FigureLegendEntry& entry : legend) CHECK(is_well_formed(entry.swatch));
}
