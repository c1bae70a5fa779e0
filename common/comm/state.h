// What is behind the handles Group and Pending. Only common/comm includes this.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/comm/collectives.h"
#include "common/comm/group.h"
#include "common/comm/timed_transport.h"
#include "common/comm/traffic.h"
#include "common/comm/transport.h"

namespace ninefold {

struct Group::State {
  World* world;
  std::string name;
  DimensionTraffic* traffic;  // the ledger's
  std::vector<int> members;
  int rank;
  // Both absent in a group of one rank.
  std::unique_ptr<Transport> transport;
  std::unique_ptr<Collectives> collectives;
  double stream_end = 0;  // in virtual time: of the last collective that has ended
};

// What is under way of a call.
struct Started {
  std::shared_ptr<Work> work;  // in virtual time absent until it may run
  TrafficEntry* entry;         // where what it hands to the transport is booked; nullptr where it is not
  int64_t time;                // of the trace
};

// A started call, shared by its Pending and by the World that advances it. It keeps the call's tensors alive.
struct InFlight {
  Group group;
  Call call;
  Started started;
  bool done = false;
  Course course{};  // through virtual time
};

}  // namespace ninefold
