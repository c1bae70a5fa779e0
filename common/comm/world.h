// World is the job: its ranks, the device, the books, and everything under way between ranks. `launch` is what every
// main calls; it starts and ends the process's part in the job and turns errors into sentences.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/stopwatch.h"
#include "common/comm/collectives.h"
#include "common/comm/group.h"
#include "common/comm/pending.h"
#include "common/comm/traffic.h"
#include "common/comm/virtual_clock.h"
#include "common/tensor/device.h"

namespace ninefold {

struct MeshDimension;  // common/comm/mesh.h
class VirtualTime;     // common/comm/virtual_time.h
struct Started;        // common/comm/state.h

// int main(int argc, char** argv) { return launch(argc, argv, run); }
//
// Runs `body` between MPI_Init and MPI_Finalize and returns its result. An exception on any rank ends the whole job
// with exit code 1: rank 0 prints "ninefold: sentence" at once; another rank gives rank 0 a second to say the same,
// then prints "ninefold: rank 3: sentence". Works with and without mpirun (one rank).
int launch(int argc, char** argv, const std::function<int(int argc, char** argv)>& body);

// Within `launch`, also before there is a World: this process's rank, the number of ranks, and whether it is the rank
// that prints (rank 0).
int job_rank();
int job_size();
bool on_first_rank();
// This process's rank among those on the same machine. The first time, all ranks of the job call it.
int local_rank();

struct WorldOptions {
  DeviceHandle device;
  double timeout = 120;              // seconds that a wait may last before the job ends
  bool debug_comm = false;           // every collective first compares its call between the ranks
  bool synchronous_sends = false;    // a send completes only once it is received: finds programs that rely on buffering
  std::optional<Cluster> cluster{};  // the machines whose virtual time is kept beside the wall time
};

// Made first, destroyed last, once per program; everything that holds a Group ends before it. While it lives it is
// subscribed to the device's after_kernel, so that communication advances while the caller computes.
class World {
 public:
  World(WorldOptions options, CollectivesFactory collectives);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  int rank() const;
  int size() const;
  const DeviceHandle& device() const { return options_.device; }
  // All ranks, named "world".
  const Group& group() const { return group_; }
  TrafficLedger& traffic() { return traffic_; }
  // Absent without a cluster, like its clock.
  const VirtualTime* virtual_time() const { return virtual_time_.get(); }
  VirtualClock* virtual_clock() const;
  // Seconds of wall time so far in which this rank waited for others within its own technique's calls.
  double waited() const { return waited_; }
  // FLOPs so far of the matmuls, attention and convolutions that this rank's device has executed within the books.
  double executed_flops() const { return executed_flops_; }

  // The training step that messages name.
  void set_step(int64_t step) { step_ = step; }

  // A group of the world ranks `members`, in that order; the caller is one of them, and all of them call it.
  Group make_group(std::string name, const std::vector<int>& members);

  // In virtual time: where the ranks are. Mesh calls it.
  void arrange(const std::vector<MeshDimension>& dimensions);

  // Advances everything under way, in the order it was started. Never waits.
  void progress();

  // Returns when everything that this rank has started is done. Whoever holds a Pending of it may still wait for that.
  void wait_for_all();

  // Makes progress until `done` returns true. After the timeout it prints where this rank waits, leaves the other ranks
  // a moment to say the same, and ends the job.
  template <typename Done>
  void wait_until(const Done& done, const Call& call, const Group& group);

 private:
  friend class Group;
  friend class Pending;
  // `transport` is absent for one rank.
  Group group_over(std::string name, std::vector<int> members, int rank, std::unique_ptr<Transport> transport);
  Pending start(const Group& group, Call&& call);
  // Start and wait.
  void run(const Group& group, Call&& call);
  // Checks and books the call; nothing where it is complete already.
  std::optional<Started> begin(const Group& group, const Call& call);
  // Books the call; returns where its bytes are still to be booked as they pass through the transport, or nullptr.
  TrafficEntry* book_start(const Group& group, const Call& call);
  void open(const Group& group, const Call& call, Started& started);
  bool step(const Group& group, Started& started);
  void advance(InFlight& in_flight);
  // The device waits for it, and may have its memory back: what is left of its tensors are their shapes, for messages.
  void leave_to_device(InFlight& in_flight) const;
  // Somebody has waited for it to be done.
  void join(const InFlight& in_flight);
  // The time of the trace; 0 without one.
  int64_t trace_now() const;
  void add_span(std::string_view category, const Call& call, const Group& group, int64_t begin);
  void add_virtual_span(std::string_view category, const InFlight& in_flight, double begin, double end);
  [[noreturn]] void give_up(const Call& call, const Group& group) const;
  // The host has been waiting for the device for so long.
  void while_device_works(double seconds);

  WorldOptions options_;
  CollectivesFactory make_collectives_;
  TrafficLedger traffic_;
  std::unique_ptr<VirtualTime> virtual_time_;
  double waited_ = 0;
  double executed_flops_ = 0;
  std::function<void(const KernelCost&)> outer_after_kernel_;
  std::function<void(double)> outer_while_waiting_;
  Group group_;
  std::vector<std::shared_ptr<InFlight>> in_flight_;
  DeviceHandle paper_ = make_meta_device();
  int64_t step_ = 0;
  bool progressing_ = false;
  int exceptions_before_;  // of the thread, when the world was made
};

// While it lives, nothing that happens is booked: calls that start and predictions do not count as traffic, and virtual
// time stands still. Checking and evaluating are not part of a technique. All ranks enter and leave it between the same
// calls.
class OutsideTheBooks {
 public:
  explicit OutsideTheBooks(World& world) : traffic_(world.traffic()), stop_(world.virtual_clock()) { traffic_.pause(); }
  ~OutsideTheBooks() { traffic_.resume(); }
  OutsideTheBooks(const OutsideTheBooks&) = delete;
  OutsideTheBooks& operator=(const OutsideTheBooks&) = delete;

 private:
  TrafficLedger& traffic_;
  ClockStop stop_;
};

template <typename Done>
void World::wait_until(const Done& done, const Call& call, const Group& group) {
  if (done()) return;
  const ClockStop stop(virtual_clock());
  const int64_t begin = trace_now();
  // Reading the clock lasts as long as a poll, and small messages come within a few of them.
  constexpr int polls_between_readings = 16;
  std::optional<Stopwatch> waited;
  for (int polls = 1; !done(); ++polls) {
    if (polls % polls_between_readings == 0) {
      if (!waited) waited.emplace();
      if (waited->seconds() > options_.timeout) give_up(call, group);
    }
    progress();
  }
  if (waited && call.operation != Operation::control && !traffic_.paused()) waited_ += waited->seconds();
  add_span("wait", call, group, begin);
}

}  // namespace ninefold
