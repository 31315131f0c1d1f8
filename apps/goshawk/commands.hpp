// The subcommands of the program. Each function adds one, with its options and what it does.
#pragma once

#include "apps/support/cli11.hpp"

namespace goshawk {

/// The models there are.
void add_models_command(CLI::App& program);
/// What a data set holds.
void add_data_command(CLI::App& program);
/// Full-precision training.
void add_train_command(CLI::App& program);
/// From weights, data and a budget to a fine-tuned packed model.
void add_quantize_command(CLI::App& program);
/// The last part of that: from weights and bits to a packed model.
void add_finetune_command(CLI::App& program);
/// Gradient and Hessian-vector product of one batch, to compare with another framework.
void add_hvp_command(CLI::App& program);
/// Eigenvalues, traces and more of the Hessian, with their errors, layer by layer.
void add_curvature_command(CLI::App& program);
/// Accuracy and loss of a model on labelled pictures.
void add_evaluate_command(CLI::App& program);
/// What quantizing each layer to each width costs, by every measure there is.
void add_sensitivity_command(CLI::App& program);
/// Bits for every layer, from the costs of its choices and a budget.
void add_allocate_command(CLI::App& program);
/// How fast a model is on this machine.
void add_bench_command(CLI::App& program);
/// A run directory as a page for people.
void add_report_command(CLI::App& program);
/// Completions for a shell, of all commands that were added before.
void add_completion_command(CLI::App& program);

}  // namespace goshawk
