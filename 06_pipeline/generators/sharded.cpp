#include "06_pipeline/generators/sharded.h"

#include <map>
#include <set>

namespace ninefold::pipeline {
namespace {

Row with_sharded_stages(const Row& row) {
  std::map<int, int> left;  // actions, by stage
  for (const auto& cell : row) {
    if (cell) ++left[cell->stage];
  }
  Row result;
  std::set<int> unsharded;
  for (const auto& cell : row) {
    if (cell && unsharded.insert(cell->stage).second) result.push_back(Action{cell->stage, Kind::unshard});
    result.push_back(cell);
    if (!cell || --left[cell->stage] > 0) continue;
    result.push_back(Action{cell->stage, Kind::reduce_grad});  // a stage's last action is a weight gradient
    result.push_back(Action{cell->stage, Kind::reshard});
  }
  return result;
}

}  // namespace

Schedule with_sharded_stages(const Schedule& schedule) {
  Schedule result;
  for (const Row& row : schedule) result.push_back(with_sharded_stages(row));
  return result;
}

}  // namespace ninefold::pipeline
