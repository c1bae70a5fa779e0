// What a comparison finds, row by row, and what it is measured on.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "09_combined_3d/comparison/run.h"
#include "common/comm/cluster.h"

namespace ninefold::comparison {

// Machines that are not here: a name, and what their links and processors do.
struct Profile {
  std::string name;
  Cluster cluster;
  std::string note;  // the first line of the file, a comment
};

// By names between commas: of files in configs/clusters without their ending, or paths. Throws UserError for one that
// is not there; the sentence has the names that are.
std::vector<Profile> read_profiles(const std::string& names);

// What --cluster takes: the profile's links along these dimensions alone, since programs refuse any other. Throws
// UserError where the profile has no link for one.
std::string cluster_text(const Profile& profile, const std::vector<MeshDimension>& mesh);

// Throughput against one rank's: 1 where R ranks are R times as fast.
struct Figures {
  Speed speed;
  std::optional<double> efficiency;  // none without a baseline
};

struct Row {
  Technique technique;
  std::string command;                      // as it can be typed, without --report
  std::optional<Figures> here{};            // wall time; none where the run failed
  std::optional<double> loss_difference{};  // to the serial model's, the largest of all steps; none without a baseline
  std::map<std::string, double> memory{}, traffic{};  // Measurement's
  std::map<std::string, Figures> on{};                // virtual time, by profile
  std::string note{};                                 // what a reader should know besides
  std::string failure{};                              // the reason, where a run failed
};

// The kinds of memory that have a column of their own, and the sum of all others; none where the run failed.
inline constexpr std::string_view memory_columns[] = {"parameters", "gradients", "optimizer", "activations"};
std::optional<double> other_memory(const Row& row);
// Of Row's memory or traffic.
std::optional<double> find(const std::map<std::string, double>& numbers, std::string_view name);

// A point of the scaling figures, in virtual time.
struct ScalingPoint {
  std::string profile;
  Technique technique;
  int64_t batch = 0, length = 0;
  std::optional<Figures> figures{};
  std::string failure{};
};

struct Results {
  int ranks = 1;
  int cores = 1;
  std::string processor;
  Workload work;
  std::vector<Profile> profiles{};
  std::vector<Row> rows{};
  std::vector<Misfit> left_out{};
  std::string scaling = "none";  // strong: the same global batch for all; weak: the same for each rank
  std::vector<ScalingPoint> points{};

  bool has_failures() const;
};

// The processor's name as the system tells it.
std::string processor_name();

// What a run of the comparison takes besides.
struct Settings {
  int64_t steps = 8;          // of wall time
  int64_t virtual_steps = 3;  // the first two warm up, and virtual time is the same in all that follow
};

// Measures every technique here and on every profile; a row that fails has its reason. Progress goes to standard error.
std::vector<Row> compare(const std::vector<Technique>& techniques, const Workload& work,
                         const std::vector<Profile>& profiles, const Settings& settings);

// Tokens per second against those of the baseline times the ranks; none without a baseline.
std::optional<double> efficiency(const Speed& speed, int ranks, const Speed* baseline);

// Of a run in virtual time on the profile. Throws UserError with the reason where it fails.
Speed virtual_speed(const Technique& technique, const Workload& work, const Profile& profile, const Settings& settings);

// Efficiencies and differences of losses, against the baseline with the same model.
void relate_to_baselines(std::vector<Row>& rows, const std::map<std::string, std::vector<double>>& losses);

// Those that scale, on 1, 2, 4, … up to `most` ranks. `scaling` is strong or weak; weak multiplies the batch by the
// ranks; of `only`, as select reads it, what does not scale is left out.
std::vector<ScalingPoint> measure_scaling(const std::string& scaling, int most, const Workload& work,
                                          const std::string& only, const std::vector<Profile>& profiles,
                                          const Settings& settings);

}  // namespace ninefold::comparison
