// Which schedule a user chose: one of the list, or a table of their own.
#pragma once

#include <string>

#include "06_pipeline/generators/generators.h"
#include "common/base/options.h"

namespace ninefold::pipeline {

struct ScheduleChoice {
  std::string schedule = "1f1b";
  std::string csv;  // a file, instead
  int virtual_stages = 2;

  void declare(Options& options);
  // Throws UserError where options contradict each other.
  void validate(const Options& given) const;

  bool is_from_file() const { return !csv.empty(); }
  // The file, or the schedule's name.
  const std::string& name() const { return is_from_file() ? csv : schedule; }
  // The table, for so many ranks and micro-batches, if it is generated.
  Schedule table(int ranks, int micro_batches) const;
};

}  // namespace ninefold::pipeline
