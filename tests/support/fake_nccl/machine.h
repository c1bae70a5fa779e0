// What the parts of the fake NCCL share: the machine that it claims to run on, its streams and its communicators.
#pragma once

#include <mpi.h>
#include <nccl.h>

#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <vector>

#include "common/base/check.h"
#include "common/comm/world.h"
#include "tests/support/fake_nccl/fake_nccl.h"

// True once it is complete; called again and again until then.
using Task = std::function<bool()>;

struct FakeStream {
  std::deque<Task> tasks;
  // Whether it waits for a moment of the stream in which kernels compute, since it was last told to carry something:
  // kernels compute at once here, so that nothing else would show that it does not wait for them.
  bool waits_for_kernels = false;
};

struct FakeEvent {
  bool has_passed = true;
  bool is_of_kernels = false;
};

struct FakeCommunicator {
  int32_t id = 0;
  int rank = 0;
  std::vector<int> world_ranks;
  int32_t operations = 0;
};

namespace ninefold::fake_nccl {

struct Machine {
  std::weak_ptr<Device> device;
  int version = 22800;
  bool is_shared = false;
  int64_t operations = 0;
  int32_t ids = 0;
  std::set<FakeStream*> streams;

  HostAccess& host_access() const { return device.lock()->host_access(); }
  // Lets every stream do what it can.
  void poll() const;
};
Machine& machine();

inline constexpr int bootstrap_tag = 1, data_tag = 2;

// Of the fake alone.
MPI_Comm world();

}  // namespace ninefold::fake_nccl
