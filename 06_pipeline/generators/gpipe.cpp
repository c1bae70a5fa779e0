#include "06_pipeline/generators/gpipe.h"

namespace ninefold::pipeline {

Schedule gpipe(int ranks, int micro_batches) {
  Schedule schedule(ranks);
  for (int rank = 0; rank < ranks; ++rank) {
    for (int i = 0; i < micro_batches; ++i) schedule[rank].push_back(Action{rank, Kind::forward, i});
    for (int i = 0; i < micro_batches; ++i) schedule[rank].push_back(Action{rank, Kind::backward, i});
  }
  return schedule;
}

}  // namespace ninefold::pipeline
