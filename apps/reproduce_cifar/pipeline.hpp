// From data to table: each step leaves a file in the run directory and is skipped when that file is there.
#pragma once

#include <map>
#include <memory>

#include "apps/reproduce_cifar/options.hpp"
#include "apps/reproduce_cifar/rows.hpp"
#include "apps/reproduce_cifar/table.hpp"
#include "apps/support/run_directory.hpp"
#include "apps/support/trainer.hpp"
#include "nn/module.hpp"
#include "quant/allocation.hpp"

namespace goshawk {

class Pipeline {
 public:
  /// Loads the data, opens the run directory and reads what earlier runs left in it.
  explicit Pipeline(const ReproduceOptions& options);

  /// Makes the rows that were asked for, and what they need, and prints the table.
  void run();

 private:
  std::unique_ptr<Module> new_model() const;
  /// A model with the baseline's weights, in eval mode.
  std::unique_ptr<Module> baseline_model() const;
  /// What the metadata of every weight file says.
  std::map<std::string, std::string> checkpoint_metadata() const;
  TrainerOptions trainer_options(const Row& row, std::int64_t epochs) const;

  void make_baseline();
  void measure_sensitivity();
  void assign_bits(const Row& row);
  /// pareto-ROW.json: sizes and Omegas of the non-dominated assignments; layers take widths in `order`.
  void write_frontier(const Row& row, const MonotoneAllocator& allocator) const;
  void finetune(const Row& row);

  void finish(const RowResult& result);
  void write_table() const;
  bool wanted(const Row& row) const;
  void say(const std::string& text) const;

  ReproduceOptions options_;
  std::shared_ptr<const Dataset> train_set_, test_set_;
  RunDirectory run_;  // after the data: a wrong --data leaves no run directory behind
  Normalization normalization_;
  std::optional<Sensitivity> sensitivity_;
  std::map<std::string, BitAssignment> bits_;
  std::map<std::string, RowResult> results_;
};

}  // namespace goshawk
