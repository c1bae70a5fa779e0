#include "06_pipeline/generators/sharded.h"

#include <map>
#include <set>

namespace ninefold::pipeline {
namespace {

enum class Gather { never, once, always };

Row with_whole_stage_actions(const Row& row, Gather gather) {
  std::map<int, int> left;  // actions, by stage
  for (const auto& cell : row) {
    if (cell) ++left[cell->stage];
  }
  Row result;
  std::set<int> begun;
  for (const auto& cell : row) {
    if (cell && gather != Gather::never && (begun.insert(cell->stage).second || gather == Gather::always)) {
      result.push_back(Action{cell->stage, Kind::unshard});
    }
    result.push_back(cell);
    if (!cell) continue;
    const bool is_last = --left[cell->stage] == 0;
    if (is_last) result.push_back(Action{cell->stage, Kind::reduce_grad});  // it is a weight gradient
    if (gather == Gather::always || (is_last && gather == Gather::once)) {
      result.push_back(Action{cell->stage, Kind::reshard});
    }
  }
  return result;
}

Schedule with_whole_stage_actions(const Schedule& schedule, Gather gather) {
  Schedule result;
  for (const Row& row : schedule) result.push_back(with_whole_stage_actions(row, gather));
  return result;
}

}  // namespace

Schedule with_sharded_stages(const Schedule& schedule, bool reshard_always) {
  return with_whole_stage_actions(schedule, reshard_always ? Gather::always : Gather::once);
}

Schedule with_reduced_stages(const Schedule& schedule) { return with_whole_stage_actions(schedule, Gather::never); }

}  // namespace ninefold::pipeline
