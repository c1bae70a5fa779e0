#include "common/comm/virtual_time.h"

#include <algorithm>

#include "common/comm/state.h"

namespace ninefold {
namespace {

bool is_collective(const Call& call) { return call.operation != Operation::send && call.operation != Operation::recv; }

PortSet ports_of(const Ports& ports, const Group& group, const Call& call) {
  if (call.operation == Operation::send) return ports.sending_to(group.members()[call.peer]);
  if (call.operation == Operation::recv) return ports.receiving_from(group.members()[call.peer]);
  PortSet all = 0;
  for (int peer = 0; peer < group.size(); ++peer) {
    if (peer == group.rank()) continue;
    all |= ports.sending_to(group.members()[peer]) | ports.receiving_from(group.members()[peer]);
  }
  return all;
}

}  // namespace

VirtualTime::VirtualTime(Cluster cluster, int rank)
    : cluster_(std::move(cluster)),
      clock_(cluster_.compute),
      network_{.cluster = cluster_, .ports = Ports(cluster_, rank)} {}

std::unique_ptr<Transport> VirtualTime::timed(std::unique_ptr<Transport> transport, std::vector<int> members) {
  return std::make_unique<TimedTransport>(std::move(transport), std::move(members), network_);
}

void VirtualTime::issue(InFlight& call, bool is_timed) const {
  if (!network_.ports.is_arranged()) return;
  call.course.is_timed = is_timed;
  // Collectives keep their order even where they are not timed: it gives their messages their tags.
  if (is_timed || is_collective(call.call)) call.course.ports = ports_of(network_.ports, call.group, call.call);
  call.course.begin = clock_.now();
}

bool VirtualTime::may_run(const InFlight& call, PortSet busy) { return (call.course.ports & busy) == 0; }

// A single message needs its port no longer once it is booked.
PortSet VirtualTime::keeps_busy(const InFlight& call) {
  if (call.done) return 0;
  const bool is_booked = call.started.work && !is_collective(call.call) && call.course.unbooked == 0;
  return is_booked ? 0 : call.course.ports;
}

VirtualTime::Run::Run(VirtualTime* time, InFlight& call) : time_(time) {
  if (!time || !call.course.is_timed) return;
  Course& course = call.course;
  if (!call.started.work) {
    if (is_collective(call.call)) course.begin = std::max(course.begin, call.group.state_->stream_end);
    course.reached = course.begin;
  }
  time->network_.running = &course;
}

VirtualTime::Run::~Run() {
  if (time_) time_->network_.running = nullptr;
}

void VirtualTime::ended(const InFlight& call) const {
  if (call.course.is_timed && is_collective(call.call)) call.group.state_->stream_end = call.course.reached;
}

void VirtualTime::waited(const InFlight& call) {
  if (!call.course.is_timed) return;
  const ClockStop stop(&clock_);
  exposed_[call.group.name()] += clock_.wait_until(call.course.reached);
}

}  // namespace ninefold
