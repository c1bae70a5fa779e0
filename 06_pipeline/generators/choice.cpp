#include "06_pipeline/generators/choice.h"

#include "06_pipeline/schedule/csv.h"
#include "common/base/check.h"
#include "common/data/file.h"

namespace ninefold::pipeline {

void ScheduleChoice::declare(Options& options) {
  options.add_choice("--schedule", schedule, generator_names(), "how the work is ordered");
  options.add("--virtual-stages", virtual_stages, "stages on a rank, for interleaved", {.minimum = 1, .maximum = 1024});
  options.add("--schedule-csv", csv, "a table of your own instead: row = rank, cell = action like 2F5");
}

void ScheduleChoice::validate(const Options& given) const {
  for (const char* own : {"--schedule", "--virtual-stages"}) {
    require(!given.given("--schedule-csv") || !given.given(own), "--schedule-csv and {} exclude each other; give one",
            own);
  }
  require(!given.given("--virtual-stages") || find_generator(schedule).stages_per_rank == 0,
          "--virtual-stages is for interleaved; {} has its own number of stages on a rank ({})", schedule,
          find_generator(schedule).stages_per_rank);
}

Schedule ScheduleChoice::table(int ranks, int micro_batches) const {
  if (is_from_file()) return parse_csv(read_file(csv), csv);
  return find_generator(schedule).make({ranks, micro_batches, virtual_stages});
}

}  // namespace ninefold::pipeline
