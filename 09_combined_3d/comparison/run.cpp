#include "09_combined_3d/comparison/run.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "common/base/check.h"
#include "common/base/text.h"

extern char** environ;

namespace ninefold::comparison {
namespace {

using nlohmann::json;

const json& at(const json& object, std::string_view path) {
  const json* found = &object;
  for (const std::string_view key : split(path, '.')) {
    const auto entry = found->find(std::string(key));
    require(found->is_object() && entry != found->end(), "the report lacks {}", path);
    found = &*entry;
  }
  return *found;
}

double number_at(const json& object, std::string_view path) {
  const json& found = at(object, path);
  require(found.is_number(), "the report's {} is no number", path);
  return found.get<double>();
}

std::optional<double> bubble_of(const json& report) {
  if (!report.contains("bubble")) return std::nullopt;
  return number_at(report, "bubble.measured");
}

Speed wall_speed(const json& report) {
  return {.milliseconds = number_at(report, "summary.ms_per_step"),
          .tokens_per_second = number_at(report, "summary.tokens_per_second"),
          .exposed_milliseconds = number_at(report, "exposed_communication.wall_ms_per_step"),
          .bubble = bubble_of(report)};
}

Speed virtual_speed(const json& report, const Speed& wall) {
  const double milliseconds = number_at(report, "summary.virtual_ms_per_step");
  require(milliseconds > 0, "the report's summary.virtual_ms_per_step must be above 0");
  return {.milliseconds = milliseconds,
          .tokens_per_second = wall.tokens_per_second * wall.milliseconds / milliseconds,
          .exposed_milliseconds = number_at(report, "exposed_communication.virtual_ms_per_step"),
          .bubble = bubble_of(report)};
}

std::map<std::string, double> traffic_of(const json& report, double steps) {
  std::map<std::string, double> traffic;
  const json& dimensions = at(report, "traffic");
  require(dimensions.is_null() || dimensions.is_object(), "the report's traffic is no object");
  for (const auto& [dimension, operations] : dimensions.items()) {
    for (const auto& [operation, entry] : operations.items()) {
      traffic[dimension] += number_at(entry, "measured") / steps;
    }
  }
  return traffic;
}

// The reading end of a pipe whose other end is a command's output.
class Pipe {
 public:
  Pipe() { require(::pipe2(ends_, O_CLOEXEC) == 0, "no pipe: {}", std::strerror(errno)); }
  ~Pipe() {
    ::close(ends_[0]);
    close_writing();
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;

  int writing() const { return ends_[1]; }
  void close_writing() {
    if (ends_[1] >= 0) ::close(ends_[1]);
    ends_[1] = -1;
  }
  std::string read_all() const {
    std::string all;
    char part[4096];
    for (ssize_t count = 1; count != 0;) {
      count = ::read(ends_[0], part, sizeof part);
      if (count < 0 && errno != EINTR) break;
      if (count > 0) all.append(part, static_cast<size_t>(count));
    }
    return all;
  }

 private:
  int ends_[2] = {-1, -1};
};

}  // namespace

Measurement parse_report(const json& report) {
  Measurement measurement;
  measurement.wall = wall_speed(report);
  if (at(report, "summary").contains("virtual_ms_per_step")) {
    measurement.in_virtual_time = virtual_speed(report, measurement.wall);
  }
  const json& steps = at(report, "steps");
  require(steps.is_array() && !steps.empty(), "the report has no steps");
  for (const json& step : steps) measurement.losses.push_back(number_at(step, "loss"));
  for (const auto& [kind, bytes] : at(report, "memory").items()) {
    measurement.memory[kind] = number_at(bytes, "measured_peak");
  }
  measurement.traffic = traffic_of(report, static_cast<double>(steps.size()));
  return measurement;
}

Finished run_command(const std::vector<std::string>& command) {
  Pipe pipe;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, pipe.writing(), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, pipe.writing(), STDERR_FILENO);
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  pid_t process = 0;
  const int error = ::posix_spawnp(&process, arguments[0], &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  require(error == 0, "{} cannot be started: {}", command[0], std::strerror(error));
  pipe.close_writing();
  Finished finished{.output = pipe.read_all()};
  int status = 0;
  while (::waitpid(process, &status, 0) < 0 && errno == EINTR) {
  }
  finished.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return finished;
}

std::string shell_line(const std::vector<std::string>& command) {
  constexpr std::string_view plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./=,:+@%";
  std::string line;
  for (const std::string& word : command) {
    const bool is_plain = !word.empty() && word.find_first_not_of(plain) == std::string::npos;
    line += (line.empty() ? "" : " ") + (is_plain ? word : "'" + word + "'");
  }
  return line;
}

std::string reason_of(const Finished& finished) {
  std::string last, error, sentence;
  for (const std::string_view line : split(finished.output, '\n')) {
    if (trimmed(line).empty()) continue;
    last = trimmed(line);
    if (last.find("Error: ") != std::string::npos) error = last;  // as Python ends a traceback
    if (sentence.empty() && line.starts_with("ninefold: ")) sentence = line.substr(line.find(' ') + 1);
  }
  for (const std::string& reason : {sentence, error, last}) {
    if (!reason.empty()) return reason;
  }
  return fmt::format("exit code {}, and nothing printed", finished.exit_code);
}

ReportFolder::ReportFolder() : path_((std::filesystem::temp_directory_path() / "ninefold_compare_XXXXXX").string()) {
  require(::mkdtemp(path_.data()) != nullptr, "no folder can be made at {}: {}", path_, std::strerror(errno));
}

ReportFolder::~ReportFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string build_folder() {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path().parent_path().string();
}

void require_program(const Technique& technique) {
  const std::string path = build_folder() + "/" + technique.program;
  require(::access(path.c_str(), X_OK) == 0, "{} is needed, and not built: build the whole repository", path);
}

std::vector<std::string> command_of(const Technique& technique, const Workload& work) {
  std::vector<std::string> command = {"mpirun", "--oversubscribe", "--quiet"};
  if (::geteuid() == 0) command.push_back("--allow-run-as-root");
  if (technique.ranks() > static_cast<int>(std::thread::hardware_concurrency())) {
    command.insert(command.end(), {"--mca", "mpi_yield_when_idle", "1"});
  }
  command.insert(command.end(), {"-n", fmt::format("{}", technique.ranks()), build_folder() + "/" + technique.program});
  const std::vector<std::string> arguments = arguments_of(technique, work);
  command.insert(command.end(), arguments.begin(), arguments.end());
  return command;
}

Measurement measure(const Technique& technique, const Workload& work, int64_t steps, const std::string& cluster) {
  const ReportFolder folder;
  std::vector<std::string> command = command_of(technique, work);
  command.insert(command.end(),
                 {"--steps", fmt::format("{}", steps), "--no-check", "--no-measure-peak", "--report", folder.path()});
  if (!cluster.empty()) command.insert(command.end(), {"--cluster", cluster});
  const Finished finished = run_command(command);
  require(finished.exit_code == 0, "{}", reason_of(finished));
  std::ifstream file(folder.path());
  const json report = json::parse(file, nullptr, /*allow_exceptions=*/false);
  require(!report.is_discarded(), "its report is no JSON");
  return parse_report(report);
}

}  // namespace ninefold::comparison
