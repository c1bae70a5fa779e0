#include "01_collectives/benchmark/fit.h"

#include <fmt/format.h>

#include "01_collectives/benchmark/link.h"
#include "common/base/report.h"
#include "common/comm/control.h"

namespace ninefold::collectives {
namespace {

std::vector<MessageTime> measure_dimension(const Group& group, const BenchOptions& options) {
  const Group& world = group.world().group();
  std::vector<MessageTime> times;
  world.barrier();
  if (group.members().front() == 0 && group.rank() < 2) {
    times = measure_messages(group, options.sizes(), options.rounds);
  }
  return control::broadcast(world, times);
}

nlohmann::ordered_json as_json(const Link& link, const std::vector<MessageTime>& times) {
  nlohmann::ordered_json json = {{"latency_s", link.latency}, {"bandwidth_b_s", link.bandwidth}};
  for (const auto& [bytes, seconds] : times) json["messages"].push_back({{"bytes", bytes}, {"time_us", seconds * 1e6}});
  return json;
}

void print(const Group& group, const Link& link, const std::vector<MessageTime>& times, int rounds) {
  Table table({"bytes", "us", "fitted us"});
  for (const auto& [bytes, seconds] : times) {
    const double fitted = link.latency + static_cast<double>(bytes) / link.bandwidth;
    table.add_row(
        {fmt::format("{}", bytes), fmt::format("{:.2f}", seconds * 1e6), fmt::format("{:.2f}", fitted * 1e6)});
  }
  fmt::print("# {}: from rank 0 to rank {}, half a round trip, medians of {} rounds\n{}", group.name(),
             group.members()[1], rounds, table.text());
}

}  // namespace

nlohmann::ordered_json fit_links(const Mesh& mesh, const BenchOptions& options) {
  nlohmann::ordered_json fits = nlohmann::ordered_json::object();
  std::vector<std::string> descriptions;
  for (const MeshDimension& dimension : mesh.dimensions()) {
    if (dimension.size == 1) continue;
    const Group& group = mesh[dimension.name];
    const std::vector<MessageTime> times = measure_dimension(group, options);
    const Link link = fit_link(times);
    if (on_first_rank()) print(group, link, times, options.rounds);
    fits[dimension.name] = as_json(link, times);
    descriptions.push_back(description_of(dimension.name, link));
  }
  const std::string cluster = fmt::format("{}", fmt::join(descriptions, " "));
  if (on_first_rank()) fmt::print("--cluster \"{}\"\n", cluster);
  return {{"fit", fits}, {"cluster", cluster}};
}

}  // namespace ninefold::collectives
