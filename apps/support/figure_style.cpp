// Colours and lettering of figures. Okabe and Ito's palette, lightened where the ground is dark.
#include <algorithm>
#include <array>
#include <cmath>
#include <fmt/format.h>

#include "apps/support/figure.hpp"

namespace goshawk {

std::string figure_style() {
  std::string css = R"(:root{--gf-ground:#fff;--gf-ink:#1c2024;--gf-soft:#59616a;--gf-grid:#e3e7ea;
--gf-0:#0072b2;--gf-1:#d55e00;--gf-2:#009e73;--gf-3:#b8588f;--gf-4:#e69f00;--gf-5:#56b4e9;--gf-6:#1c2024}
@media (prefers-color-scheme:dark){:root{--gf-ground:#171b20;--gf-ink:#e8ebee;--gf-soft:#a6afb8;--gf-grid:#313840;
--gf-0:#56b4e9;--gf-1:#f0803c;--gf-2:#2fc99c;--gf-3:#e291c0;--gf-4:#f0e442;--gf-5:#8fa3ff;--gf-6:#e8ebee}}
.gf{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans","DejaVu Sans",sans-serif;font-size:12px}
.gf text{fill:var(--gf-ink)}.gf .gf-tick{fill:var(--gf-soft);font-size:11px}
.gf .gf-title{font-size:15px;font-weight:600}.gf .gf-panel-title{font-weight:600}.gf .gf-on-dark{fill:#fff}.gf .gf-on-light{fill:#1c2024}
.gf .gf-grid{stroke:var(--gf-grid);stroke-width:1}.gf .gf-axis{stroke:var(--gf-soft);stroke-width:1}
.gf .gf-rule{stroke:var(--gf-ink);stroke-width:1.2;stroke-dasharray:5 4}
.gf .gf-line{fill:none;stroke-width:1.8;stroke-linejoin:round}.gf .gf-dashed{stroke-dasharray:6 3}
.gf .gf-band{opacity:.22;stroke:none}.gf .gf-error{stroke-width:1.4}
.gf .gf-mark{stroke:var(--gf-ground);stroke-width:.8}.gf .gf-hollow{fill:var(--gf-ground);stroke-width:1.6}
.gf .gf-contour{fill:none;stroke-width:1.1;stroke-linejoin:round}
.gf .gf-line-on-dark{stroke:#fff}.gf .gf-line-on-light{stroke:#1c2024}
.gf .gf-contour-label{font-size:11px}
.gf .gf-ring{fill:none;stroke:var(--gf-ink);stroke-width:1.6}
.gf .gf-hit{opacity:0}.gf .gf-tip:focus{outline:none}
.gf .gf-tip:focus-visible,.gf .gf-tip.on{opacity:1;stroke:var(--gf-ink);stroke-width:2.4}
)";
  for (int k = 0; k < kFigureColours; ++k) {
    css += fmt::format(".gf .gf-f{0}{{fill:var(--gf-{0})}}.gf .gf-s{0}{{stroke:var(--gf-{0})}}", k);
  }
  return css + "\n";
}

std::string sequential_colour(double shade) {
  // Cividis at equal distances: lightness grows evenly, also for eyes without red or green cones.
  static constexpr std::array<std::array<double, 3>, 9> kStops{{{0, 34, 78},
                                                                {26, 56, 111},
                                                                {64, 77, 108},
                                                                {94, 98, 110},
                                                                {124, 123, 120},
                                                                {156, 147, 118},
                                                                {188, 174, 108},
                                                                {222, 203, 88},
                                                                {254, 232, 56}}};
  const double position = (std::isfinite(shade) ? std::clamp(shade, 0.0, 1.0) : 1.0) * (kStops.size() - 1);
  const auto below = std::min(static_cast<std::size_t>(position), kStops.size() - 2);
  const double part = position - static_cast<double>(below);
  std::string text = "#";
  for (std::size_t c = 0; c < 3; ++c) {
    const double mixed = kStops[below][c] * (1 - part) + kStops[below + 1][c] * part;
    text += fmt::format("{:02x}", static_cast<int>(std::lround(mixed)));
  }
  return text;
}

}  // namespace goshawk
