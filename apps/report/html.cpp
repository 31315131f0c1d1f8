// A report as one HTML file that needs nothing else.
#include "apps/report/page.hpp"
#include "apps/support/command_line.hpp"
#include "apps/support/figure_text.hpp"

namespace goshawk {
namespace {

// Widths of the figures in pixels. Every figure is laid out for a wide and for a narrow window, so that its
// letters have their size in both.
constexpr double kFigureWidth = 504, kWideWidth = 1064, kSmallWidth = 326, kNarrowWidth = 338;
// Two panels beside each other are laid out like figures; three fit a wide window and, one below the other, a
// narrow one as they are.
constexpr double kPanelWidth = 524, kSmallPanelWidth = 340;

constexpr const char* kStyle = R"(*{box-sizing:border-box}
html{color-scheme:light dark;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--gf-ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans","DejaVu Sans",sans-serif}
:root{--page:#f4f5f7;--link:#005a8f}
@media (prefers-color-scheme:dark){:root{--page:#0e1114;--link:#7cc4f0}}
header,main,footer{max-width:1160px;margin:0 auto;padding:0 24px}
header{padding-top:32px}h1{font-size:30px;line-height:1.2;margin:0 0 4px;overflow-wrap:anywhere}
h2{font-size:21px;margin:44px 0 14px}h3{font-size:15px;font-weight:600;margin:0 0 10px}
a{color:var(--link)}p{max-width:75ch;overflow-wrap:anywhere}.soft{color:var(--gf-soft)}
.kind{color:var(--gf-soft);font-size:14px;margin:0}.summary{margin:0 0 18px;color:var(--gf-soft)}
nav{display:flex;flex-wrap:wrap;gap:4px 18px;margin:18px 0 0;font-size:15px}
dl.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(140px,1fr));gap:12px;margin:0}
dl.tiles div{background:var(--gf-ground);border:1px solid var(--gf-grid);border-radius:8px;padding:10px 14px}
dl.tiles dt{font-size:13px;color:var(--gf-soft)}dl.tiles dd{margin:0;font-size:23px;font-weight:600}
.grid{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:20px;margin:18px 0}
.small{grid-template-columns:repeat(3,minmax(0,1fr))}
figure,.box{margin:0;background:var(--gf-ground);border:1px solid var(--gf-grid);border-radius:8px;padding:16px}
figure.wide{grid-column:1/-1}
.legend{display:flex;flex-wrap:wrap;gap:2px 18px;margin:0 0 14px;padding:0;list-style:none;font-size:13.5px}
.legend svg{display:inline-block;margin:0 7px 0 0;vertical-align:-1px}
.panels{display:grid;gap:24px 22px}.two{grid-template-columns:repeat(2,minmax(0,1fr))}.three{grid-template-columns:repeat(3,minmax(0,1fr))}
h4{font-size:13.5px;font-weight:600;margin:0 0 2px}
figcaption{font-size:13.5px;line-height:1.45;color:var(--gf-soft);margin-top:8px;overflow-wrap:anywhere}
figure svg{display:block;max-width:100%;height:auto;margin:0 auto}figure svg.narrow{display:none}figure svg.own{max-width:none}
.scroll{overflow-x:auto}.box{margin:18px 0}.box p{margin:10px 0 0;font-size:13.5px;color:var(--gf-soft);line-height:1.45}
table{border-collapse:collapse;font-size:14px;font-variant-numeric:tabular-nums;min-width:100%}
th,td{padding:5px 10px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--gf-grid)}
th:first-child,td:first-child{text-align:left}thead th{font-weight:600;border-bottom-color:var(--gf-soft)}
thead tr.groups th{border-bottom:0;padding-bottom:0;color:var(--gf-soft);font-weight:400;text-align:left}
tbody tr:last-child td{border-bottom:0}td.first-of-group,th.first-of-group{border-left:1px solid var(--gf-grid)}
summary{cursor:pointer;font-weight:600;font-size:15px}details[open] summary{margin-bottom:10px}
pre{margin:0;font:13.5px/1.5 ui-monospace,"DejaVu Sans Mono",Menlo,monospace}
footer{padding-top:40px;padding-bottom:40px;font-size:13.5px;color:var(--gf-soft)}
#tip{position:fixed;z-index:9;max-width:min(430px,calc(100vw - 16px));pointer-events:none;white-space:pre-line;overflow-wrap:anywhere;
background:var(--gf-ink);color:var(--gf-ground);font-size:13px;line-height:1.4;padding:8px 11px;border-radius:6px}
#tip::first-line{font-weight:600}#tip[hidden]{display:none}
@media (max-width:1160px){.two{grid-template-columns:minmax(0,1fr)}.three{grid-template-columns:repeat(2,minmax(0,1fr))}}
@media (max-width:1000px){.grid{grid-template-columns:minmax(0,1fr)}}
@media (max-width:1000px) and (min-width:701px){.small{grid-template-columns:repeat(2,minmax(0,1fr))}}
@media (max-width:700px){header,main,footer{padding-left:12px;padding-right:12px}figure,.box{padding:12px 10px}
h1{font-size:25px}figure svg.wide{display:none}figure svg.narrow{display:block}dl.tiles dd{font-size:20px}
dl.tiles{grid-template-columns:repeat(2,minmax(0,1fr))}
.small,.three{grid-template-columns:minmax(0,1fr)}}
@media print{body{background:none}figure,.box{break-inside:avoid}}
)";

// Shows what a point says about itself when it is hovered, touched or focused; arrow keys go from point to
// point.
constexpr const char* kScript = R"((() => {
const box = document.getElementById('tip');
let shown = null;
const hide = () => { if (shown) shown.classList.remove('on'); shown = null; box.hidden = true; };
const show = point => {
  if (point === shown) return;
  hide();
  shown = point;
  point.classList.add('on');
  const note = point.dataset.note && point.closest('figure').querySelector('.notes').children[point.dataset.note];
  box.textContent = point.getAttribute('aria-label') + (note ? '\n' + note.textContent : '');
  box.hidden = false;
  const at = point.getBoundingClientRect(), size = box.getBoundingClientRect();
  const width = document.documentElement.clientWidth;
  box.style.left = Math.max(8, Math.min(at.left + at.width / 2 - size.width / 2, width - size.width - 8)) + 'px';
  const above = at.top - size.height - 10;
  box.style.top = (above < 8 ? Math.min(at.bottom + 10, Math.max(8, innerHeight - size.height - 8)) : above) + 'px';
};
const nearest = (svg, x, y) => {
  let best = null, least = 24;
  for (const point of svg.querySelectorAll('.gf-tip')) {
    const at = point.getBoundingClientRect();
    const distance = Math.hypot(at.left + at.width / 2 - x, at.top + at.height / 2 - y);
    if (distance < least) { best = point; least = distance; }
  }
  return best;
};
const hover = event => {
  const svg = event.target.closest('svg.gf');
  const point = svg && (nearest(svg, event.clientX, event.clientY) || event.target.closest('.gf-tip'));
  point ? show(point) : hide();
};
addEventListener('pointermove', hover);
addEventListener('pointerdown', hover);
addEventListener('scroll', () => { if (!shown || shown !== document.activeElement) hide(); }, {passive: true});
addEventListener('focusin', event => { if (event.target.matches('.gf-tip')) show(event.target); });
addEventListener('focusout', hide);
addEventListener('keydown', event => {
  if (event.key === 'Escape') return hide();
  const point = event.target.closest('.gf-tip');
  const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
  if (!point || !step) return;
  event.preventDefault();
  const points = [...point.closest('svg.gf').querySelectorAll('.gf-tip')];
  const next = points[points.indexOf(point) + step];
  if (!next) return;
  point.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
});
})();)";

std::string table_body(const ReportTable& table) {
  // Columns before which a group begins are set off by a line.
  std::vector<bool> begins(table.rows.front().size(), false);
  std::string html = "<div class=\"scroll\"><table><thead>";
  if (!table.groups.empty()) {
    html += "<tr class=\"groups\">";
    std::size_t column = 0;
    for (const auto& [name, span] : table.groups) {
      if (column > 0 && column < begins.size()) begins[column] = true;
      html += fmt::format("<th colspan=\"{}\"{}>{}</th>", span, column > 0 ? " class=\"first-of-group\"" : "",
                          xml_escape(name));
      column += static_cast<std::size_t>(span);
    }
    html += "</tr>";
  }
  for (std::size_t r = 0; r < table.rows.size(); ++r) {
    html += "<tr>";
    for (std::size_t c = 0; c < table.rows[r].size(); ++c) {
      const char* tag = r == 0 ? "th" : "td";
      html += fmt::format("<{0}{1}>{2}</{0}>", tag,
                          c < begins.size() && begins[c] ? " class=\"first-of-group\"" : "",
                          xml_escape(table.rows[r][c]));
    }
    html += r == 0 ? "</tr></thead><tbody>\n" : "</tr>\n";
  }
  return html + "</tbody></table></div>";
}

std::string with_class(std::string svg, const char* name) {
  return svg.replace(svg.find("class=\"gf\""), 10, fmt::format("class=\"gf {}\"", name));
}

// The figure for wide and for narrow windows, of which the style sheet shows one.
std::string both_layouts(const Figure& figure, double width) {
  const bool scrolls = least_width(figure) > kNarrowWidth;
  return with_class(to_svg(figure, {.width = width}), "wide") +
         with_class(to_svg(figure, {.width = kNarrowWidth}), scrolls ? "narrow own" : "narrow");
}

// The panels as the page's own grid, below a legend for all of them.
std::string panels(const Figure& figure) {
  const bool small = figure.columns > 2;
  std::string html = "<ul class=\"legend\">";
  for (const FigureLegendEntry& entry : legend_of(figure))
    html += fmt::format("<li>{}{}</li>", entry.swatch, xml_escape(entry.name));
  html += fmt::format("</ul>\n<div class=\"panels {}\">\n", small ? "three" : "two");
  for (const Figure& panel : figure.panels) {
    html +=
        fmt::format("<div><h4>{}</h4>{}</div>\n", xml_escape(panel.title),
                    small ? to_svg(panel, {.width = kSmallPanelWidth}) : both_layouts(panel, kPanelWidth));
  }
  html += "</div>";
  if (!figure.notes.empty()) {
    html += "<ol class=\"notes\" hidden=\"hidden\">";
    for (const std::string& note : figure.notes) html += "<li>" + xml_escape(note) + "</li>\n";
    html += "</ol>";
  }
  return html;
}

struct BlockWriter {
  std::string operator()(const ReportText& block) const { return "<p>" + xml_escape(block.text) + "</p>\n"; }

  std::string operator()(const ReportList& block) const {
    std::string html = "<ul>";
    for (const std::string& item : block.items) html += "<li>" + xml_escape(item) + "</li>\n";
    return html + "</ul>\n";
  }

  std::string operator()(const ReportCode& block) const {
    return "<div class=\"box scroll\"><pre><code>" + xml_escape(block.code) + "</code></pre></div>\n";
  }

  std::string operator()(const ReportTable& block) const {
    if (block.folded) {
      return fmt::format("<details class=\"box\"><summary>{}</summary>{}</details>\n",
                         xml_escape(block.caption), table_body(block));
    }
    return fmt::format("<div class=\"box\">{}<p>{}</p></div>\n", table_body(block),
                       xml_escape(block.caption));
  }

  std::string operator()(const ReportFigure& block) const {
    // Many columns take the page's whole width, and on a narrow page they scroll.
    const bool has_panels = !block.figure.panels.empty();
    const bool wide = has_panels || least_width(block.figure) > kFigureWidth;
    const double width = wide ? kWideWidth : block.small ? kSmallWidth : kFigureWidth;
    return fmt::format(
        "<figure id=\"figure-{}\"{}><h3>{}</h3>{}{}</figure>\n", block.name, wide ? " class=\"wide\"" : "",
        xml_escape(block.figure.title),
        has_panels ? panels(block.figure)
                   : "<div class=\"scroll\">" + both_layouts(block.figure, width) + "</div>",
        block.caption.empty() ? "" : "<figcaption>" + xml_escape(block.caption) + "</figcaption>");
  }
};

// Figures that follow each other stand side by side.
std::string section_body(const ReportSection& section) {
  std::string html;
  const char* open = nullptr;
  for (const ReportBlock& block : section.blocks) {
    const auto* figure = std::get_if<ReportFigure>(&block);
    const char* wanted = figure == nullptr ? nullptr : figure->small ? "grid small" : "grid";
    if (open != wanted) {
      if (open != nullptr) html += "</div>\n";
      if (wanted != nullptr) html += fmt::format("<div class=\"{}\">\n", wanted);
      open = wanted;
    }
    html += std::visit(BlockWriter{}, block);
  }
  return open == nullptr ? html : html + "</div>\n";
}

}  // namespace

std::string to_html(const ReportPage& page) {
  const std::string title = xml_escape(page.title);
  std::string html = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\n<title>{}</title>\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
      "<link rel=\"icon\" href=\"data:,\"/>\n<style>\n{}{}</style></head>\n<body><header>\n"
      "<p class=\"kind\">Goshawk report</p><h1>{}</h1>\n",
      title, figure_style(), kStyle, title);
  if (!page.summary.empty()) html += "<p class=\"summary\">" + xml_escape(page.summary) + "</p>\n";
  if (!page.highlights.empty()) {
    html += "<dl class=\"tiles\">";
    for (const auto& [what, value] : page.highlights) {
      html += fmt::format("<div><dt>{}</dt><dd>{}</dd></div>", xml_escape(what), xml_escape(value));
    }
    html += "</dl>\n";
  }
  html += "<nav>";
  for (const ReportSection& section : page.sections) {
    html += fmt::format("<a href=\"#{}\">{}</a>\n", section.id, xml_escape(section.title));
  }
  html += "</nav></header>\n<main>\n";
  for (const ReportSection& section : page.sections) {
    html += fmt::format("<section id=\"{}\"><h2>{}</h2>\n{}</section>\n", section.id,
                        xml_escape(section.title), section_body(section));
  }
  html += fmt::format(
      "</main>\n<footer>Written by goshawk {}.</footer>\n<div id=\"tip\" role=\"status\" "
      "hidden=\"hidden\"></div>\n"
      "<script>\n//<![CDATA[\n{}\n//]]>\n</script></body></html>\n",
      version(), kScript);
  return html;
}

}  // namespace goshawk
