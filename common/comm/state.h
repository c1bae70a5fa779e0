// What is behind the handles Group and Pending. Only common/comm includes this.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/comm/collectives.h"
#include "common/comm/group.h"
#include "common/comm/timed_transport.h"
#include "common/comm/transport.h"

namespace ninefold {

struct Group::State {
  World* world;
  std::string name;
  std::vector<int> members;
  int rank;
  // Both absent in a group of one rank.
  std::unique_ptr<Transport> transport;
  std::unique_ptr<Collectives> collectives;
  double stream_end = 0;  // in virtual time: of the last collective that has ended
};

// A started call, shared by its Pending and by the World that advances it. `call` and `work` keep the tensors alive.
struct InFlight {
  Group group;
  Call call;
  std::unique_ptr<Work> work;  // in virtual time absent until it may run
  bool books_transport;        // what it hands to the transport goes into the ledger
  int64_t begin = 0;           // Trace::now() when it started
  bool done = false;
  Course course{};  // through virtual time
};

}  // namespace ninefold
