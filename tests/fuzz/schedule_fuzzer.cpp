// Feeds the reader of schedules, or of stage times: it throws UserError, or gives a table that comes back as it was
// written, and that, where the checks let it through, can be simulated.
#include <cstdlib>

#include "06_pipeline/schedule/csv.h"
#include "06_pipeline/schedule/simulate.h"
#include "common/base/check.h"

namespace {

using namespace ninefold::pipeline;

void read_schedule(std::string_view content) {
  const Schedule schedule = parse_csv(content, "table.csv");
  if (csv_of(parse_csv(csv_of(schedule), "table.csv")) != csv_of(schedule)) std::abort();
  const CheckedSchedule checked(schedule, "table.csv");
  const Simulation simulation = simulate(checked, {std::vector<StageTimes>(checked.stages()), 0.5});
  if (!(simulation.bubble() >= -1e-9 && simulation.bubble() < 1)) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string content(reinterpret_cast<const char*>(data + 1), size - 1);
  try {
    data[0] % 4 == 0 ? void(parse_times(content, "times.txt")) : read_schedule(content);
  } catch (const ninefold::UserError&) {
  }
  return 0;
}
