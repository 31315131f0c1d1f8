// The sections of a report, each from one part of a run. A section of which nothing is there has no blocks.
#pragma once

#include "apps/report/page.hpp"
#include "apps/report/run.hpp"

namespace goshawk {

/// The table or the one model's accuracies, the paper's numbers beside it, and the drops as a figure.
ReportSection table_section(const ReportRun& run);
/// Bits, mean trace, noise and Ω of each layer, or bits and costs, and the stages of fine-tuning.
ReportSection layers_section(const ReportRun& run);
/// Bytes against Ω, with the assignment of each point.
ReportSection frontier_section(const ReportRun& run);
/// What goshawk curvature measured: traces, spectral densities, the loss landscape.
ReportSection curvature_section(const ReportRun& run);
/// Accuracy and loss by epoch, of the baseline and of fine-tuning.
ReportSection training_section(const ReportRun& run);
/// What the packed files are made of, and of one model the bytes of each layer.
ReportSection size_section(const ReportRun& run);
/// The command, and all settings.
ReportSection reproduction_section(const ReportRun& run);

/// The whole page.
ReportPage report_page(const ReportRun& run);

}  // namespace goshawk
