// The list of all schedules, by name.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "06_pipeline/schedule/placement.h"
#include "06_pipeline/schedule/schedule.h"

namespace ninefold::pipeline {

struct PipelineSize {
  int ranks = 1;
  int micro_batches = 1;
  int virtual_stages = 2;  // stages a rank, for the schedule that lets one choose
};

struct Generator {
  std::string_view name;
  std::string_view idea;
  Placement placement;
  int stages_per_rank;  // 0: PipelineSize::virtual_stages
  // Throws UserError for a size that the schedule's rule excludes.
  Schedule (*make)(const PipelineSize& size);

  int chunks(const PipelineSize& size) const { return stages_per_rank == 0 ? size.virtual_stages : stages_per_rank; }
};

const std::vector<Generator>& generators();

// Throws UserError, with the names that there are.
const Generator& find_generator(std::string_view name);

// The names of all, in the order in which the chapter tells of them.
std::vector<std::string> generator_names();

}  // namespace ninefold::pipeline
