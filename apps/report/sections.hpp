// The sections of a report, each from one part of a run. A section of which nothing is there has no blocks.
#pragma once

#include <optional>

#include "apps/report/page.hpp"
#include "apps/report/run.hpp"

namespace goshawk {

/// The table or the one model's accuracies, the paper's numbers beside it, and the drops as a figure.
ReportSection table_section(const ReportRun& run);
/// What the choices of bits for one budget are worth before and after fine-tuning; none with fewer than two.
std::optional<ReportFigure> choices_figure(const ReportRun& run);
/// Bits, mean trace, noise and Ω of each layer, or bits and costs, and the stages of fine-tuning.
ReportSection layers_section(const ReportRun& run);
/// Bytes against Ω, with the assignment of each point.
ReportSection frontier_section(const ReportRun& run);
/// What goshawk curvature measured: traces, spectral densities, the loss landscape.
ReportSection curvature_section(const ReportRun& run);
/// Of predict_loss: how well each sensitivity ranks random assignments.
ReportSection ranking_section(const ReportRun& run);
/// Of predict_loss: every random assignment, predicted against true loss change.
ReportSection predictions_section(const ReportRun& run);
/// Accuracy and loss by epoch, of the baseline and of fine-tuning.
ReportSection training_section(const ReportRun& run);
/// What the packed files are made of, and of one model the bytes of each layer.
ReportSection size_section(const ReportRun& run);
/// The command, and all settings.
ReportSection reproduction_section(const ReportRun& run);

/// For each width, widest first, a line such as "8 bits: conv1, linear", each after a line break.
std::string assignment_text(const std::vector<std::string>& layers, const std::vector<int>& bits);
/// "mean trace" of "hawq-v2", as figures of predictions name a sensitivity; an unknown one's own name.
std::string predictor_title(const std::string& name);

/// The whole page.
ReportPage report_page(const ReportRun& run);

}  // namespace goshawk
