#include "01_collectives/plan/plan.h"

namespace ninefold::collectives {

Plan renamed(Plan plan, const std::function<int(int peer)>& peer_of, const std::function<Chunks(Chunks)>& chunks_of) {
  for (Step& step : plan.steps) {
    for (Action& action : step) {
      action.peer = peer_of(action.peer);
      action.chunks = chunks_of(action.chunks);
    }
  }
  return plan;
}

}  // namespace ninefold::collectives
