#include "09_combined_3d/comparison/pytorch.h"

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "09_combined_3d/comparison/progress_line.h"
#include "common/base/check.h"
#include "common/base/text.h"

namespace ninefold::comparison {
namespace {

constexpr const char* script = NINEFOLD_ROOT "/09_combined_3d/comparison/pytorch.py";

std::vector<std::string> command_of(const std::string& python, const std::string& technique, int ranks,
                                    const Workload& work, int64_t steps) {
  std::vector<std::string> command = {python,
                                      "-m",
                                      "torch.distributed.run",
                                      "--standalone",
                                      "--nproc-per-node",
                                      fmt::format("{}", ranks),
                                      script,
                                      "--technique",
                                      technique};
  const std::pair<const char*, int64_t> numbers[] = {
      {"--layers", work.layers},     {"--dim", work.dim},     {"--heads", work.heads},
      {"--kv-heads", work.kv_heads}, {"--ffn", work.ffn},     {"--vocab", work.vocab},
      {"--length", work.length},     {"--batch", work.batch}, {"--steps", steps}};
  for (const auto& [option, value] : numbers) command.insert(command.end(), {option, fmt::format("{}", value)});
  command.insert(command.end(), {"--dtype", work.dtype});
  return command;
}

}  // namespace

PyTorch::PyTorch() {
  const char* named = std::getenv("PYTHON");
  python_ = named && *named ? named : "python3";
  Finished finished;
  try {
    finished = run_command(
        {python_, "-c", "import torch, torch.distributed.fsdp as f; f.fully_shard; print(torch.__version__)"});
  } catch (const UserError&) {
    finished.exit_code = 127;
  }
  require(finished.exit_code == 0,
          "--with-pytorch: {} has no PyTorch of version 2.6 or later; install it (pip install torch), or name the "
          "interpreter that has it in PYTHON",
          python_);
  version_ = trimmed(finished.output);
}

void PyTorch::add_rows(std::vector<Row>& rows, int ranks, const Workload& work, int64_t steps) const {
  const struct {
    const char *name, *technique, *dimension;
  } all[] = {{"serial", "serial", nullptr},
             {"DDP", "ddp", "dp_replicate"},
             {"FSDP2", "fsdp2", "dp_shard"},
             {"TP", "tp", "tp"},
             {"1F1B", "1f1b", "pp"}};
  std::optional<Speed> serial;
  size_t number = 0;
  for (const auto& [name, technique, dimension] : all) {
    Row row{.technique = {.name = fmt::format("PyTorch {}", name), .program = script, .mesh = {}, .options = {}},
            .command = {}};
    if (dimension) row.technique.mesh = {{dimension, ranks}};
    const ProgressLine line(++number, std::size(all), row.technique.name);
    const ReportFolder folder;
    std::vector<std::string> command = command_of(python_, technique, row.technique.ranks(), work, steps);
    row.command = shell_line(command);
    command.insert(command.end(), {"--report", folder.path()});
    try {
      const Finished finished = run_command(command);
      require(finished.exit_code == 0, "{}", reason_of(finished));
      std::ifstream file(folder.path());
      const auto report = nlohmann::json::parse(file, nullptr, /*allow_exceptions=*/false);
      const Measurement found = parse_report(report);
      if (!dimension) serial = found.wall;
      row.here = {.speed = found.wall, .efficiency = efficiency(found.wall, ranks, serial ? &*serial : nullptr)};
      row.memory = found.memory;
      row.note = fmt::format("PyTorch {}, gloo, {}", version_, report.value("best", ""));
    } catch (const UserError& error) {
      row.failure = error.what();
    }
    line.end(row.here, row.failure);
    rows.push_back(std::move(row));
  }
}

}  // namespace ninefold::comparison
