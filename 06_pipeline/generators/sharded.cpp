#include "06_pipeline/generators/sharded.h"

#include <map>
#include <set>

namespace ninefold::pipeline {
namespace {

Row with_sharded_stages(const Row& row, bool reshard_always) {
  std::map<int, int> left;  // actions, by stage
  for (const auto& cell : row) {
    if (cell) ++left[cell->stage];
  }
  Row result;
  std::set<int> begun;
  for (const auto& cell : row) {
    if (cell && (begun.insert(cell->stage).second || reshard_always)) {
      result.push_back(Action{cell->stage, Kind::unshard});
    }
    result.push_back(cell);
    if (!cell) continue;
    const bool is_last = --left[cell->stage] == 0;
    if (is_last) result.push_back(Action{cell->stage, Kind::reduce_grad});  // it is a weight gradient
    if (is_last || reshard_always) result.push_back(Action{cell->stage, Kind::reshard});
  }
  return result;
}

}  // namespace

Schedule with_sharded_stages(const Schedule& schedule, bool reshard_always) {
  Schedule result;
  for (const Row& row : schedule) result.push_back(with_sharded_stages(row, reshard_always));
  return result;
}

}  // namespace ninefold::pipeline
