#include "06_pipeline/generators/interleaved.h"

#include <algorithm>

#include "06_pipeline/schedule/placement.h"
#include "common/base/check.h"

namespace ninefold::pipeline {

Schedule interleaved(int ranks, int micro_batches, int virtual_stages) {
  require(micro_batches % ranks == 0,
          "interleaved needs micro-batches ({}) divisible by stages ({}): a rank takes turns of so many on each of its "
          "virtual stages",
          micro_batches, ranks);
  const int total = micro_batches * virtual_stages;  // forwards of a rank
  Schedule schedule(ranks);
  for (int rank = 0; rank < ranks; ++rank) {
    Row& row = schedule[rank];
    // The turn-th forward, or backward, of the rank.
    const auto push = [&](Kind kind, int turn) {
      const int round = turn / ranks;  // of p micro-batches on one stage
      const int step = round % virtual_stages;
      const int chunk = kind == Kind::forward ? step : virtual_stages - 1 - step;
      const int micro_batch = round / virtual_stages * ranks + turn % ranks;
      row.push_back(Action{stage_at(Placement::loop, rank, chunk, ranks), kind, micro_batch});
    };
    // The last rank begins its first backward after p micro-batches on all stages but the last and one on the last;
    // each rank before it begins two later, one for the way down and one for the way back.
    const int warm_up = std::min((virtual_stages - 1) * ranks + 2 * (ranks - 1 - rank), total);
    int forwards = 0;
    while (forwards < warm_up) push(Kind::forward, forwards++);
    for (int backwards = 0; backwards < total; ++backwards) {
      if (forwards < total) push(Kind::forward, forwards++);
      push(Kind::backward, backwards);
    }
  }
  return schedule;
}

}  // namespace ninefold::pipeline
