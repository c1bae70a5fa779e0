// One run of a training program under mpirun, and what its report says. Programs are run as a user would, each with
// processes of its own, and not within this one: every row starts with empty caches and books, a row that fails takes
// nothing else with it, and the command line that made a number can be typed again.
#pragma once

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "09_combined_3d/comparison/techniques.h"

namespace ninefold::comparison {

// Of wall time, or of the virtual time of a cluster.
struct Speed {
  double milliseconds = 0;  // of a step, median
  double tokens_per_second = 0;
  double exposed_milliseconds = 0;  // of a step: communication that nothing hides
  std::optional<double> bubble;     // of a pipeline: the part of the time in which ranks do not compute
};

// What a report says.
struct Measurement {
  Speed wall;
  std::optional<Speed> in_virtual_time;
  std::vector<double> losses;             // of each step
  std::map<std::string, double> memory;   // bytes, by kind: the peak on the rank with most of it
  std::map<std::string, double> traffic;  // bytes that rank 0 sends in a step, by mesh dimension
};

// Of the JSON that --report writes. Throws UserError that names what it lacks.
Measurement parse_report(const nlohmann::json& report);

// What a command printed, and how it ended.
struct Finished {
  int exit_code = 0;
  std::string output;  // standard output and error together
};

// Runs a command to its end. Throws UserError where it cannot be started.
Finished run_command(const std::vector<std::string>& command);

// As it could be typed in a shell.
std::string shell_line(const std::vector<std::string>& command);

// The sentence of a program that failed, or else the last that it printed.
std::string reason_of(const Finished& finished);

// A folder for reports that is removed at the end.
class ReportFolder {
 public:
  ReportFolder();
  ~ReportFolder();
  ReportFolder(const ReportFolder&) = delete;
  ReportFolder& operator=(const ReportFolder&) = delete;
  std::string path() const { return path_ + "/report.json"; }

 private:
  std::string path_;
};

// The folder of the build that this program is part of. Throws UserError where the technique's program is not in it.
std::string build_folder();
void require_program(const Technique& technique);

// `mpirun … program …`, without what a run adds: steps, report and cluster.
std::vector<std::string> command_of(const Technique& technique, const Workload& work);

// Trains so many steps, without the check. `cluster` is empty or what --cluster takes. Throws UserError with the reason
// where the run fails.
Measurement measure(const Technique& technique, const Workload& work, int64_t steps, const std::string& cluster);

}  // namespace ninefold::comparison
