#include "04_model_parallel/computations.h"

#include <algorithm>

#include "common/base/median.h"
#include "common/comm/control.h"
#include "common/train/step_clock.h"

namespace ninefold {
namespace {

double bubble_of(const std::vector<Computations::Steps>& ranks, size_t step) {
  double cost = 0, busy = 0;
  for (const Computations::Steps& steps : ranks) {
    const std::vector<Computation>& actions = steps[step];
    if (actions.empty()) continue;
    cost = std::max(cost, actions.back().end - actions.front().begin);
    for (const Computation& action : actions) busy += action.seconds() / static_cast<double>(ranks.size());
  }
  return cost > 0 ? (cost - busy) / cost : 0;
}

}  // namespace

double Computations::now() const {
  const VirtualClock* const clock = world_.virtual_clock();
  return clock ? clock->now() : wall_.seconds();
}

std::vector<Computations::Steps> Computations::gather(const Group& group) const {
  std::vector<Steps> ranks(group.size());
  for (size_t step = first_counted(steps_.size()); step < steps_.size(); ++step) {
    const auto all = control::all_gather_bytes(group, control::to_bytes(steps_[step]));
    for (size_t rank = 0; rank < all.size(); ++rank) ranks[rank].push_back(control::from_bytes<Computation>(all[rank]));
  }
  return ranks;
}

double Computations::bubble(const Group& group) const {
  const std::vector<Steps> ranks = gather(group);
  std::vector<double> bubbles;
  for (size_t step = 0; step < ranks.front().size(); ++step) bubbles.push_back(bubble_of(ranks, step));
  return median(std::move(bubbles));
}

}  // namespace ninefold
