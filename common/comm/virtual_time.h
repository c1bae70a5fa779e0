// Virtual time: what the steps of a run would take on the machines of a Cluster, whatever they take here.
//
// Every rank has a clock, which computing advances; messages have times of their own (timed_transport.h). Only waiting
// joins the two: the clock goes on to the end of what was waited for, and that jump is exposed communication. The
// rules:
//   A call begins when it is issued; a collective not before the one before it in the same group has ended.
//   Each message of a call is posted when all that the call has seen complete was complete.
//   Calls that share a direction of a port use it in the order in which they were issued: a later one does nothing
//   before an earlier one has booked all its messages. So a receive that is waiting for its message keeps everything
//   that is issued after it from receiving in the same dimension.
// With a compute rate nothing depends on real time: the same run gives the same times to the last bit. (With one
// exception, Pending::test, whose answer tells the program how fast the real messages are.)
#pragma once

#include <map>
#include <memory>
#include <string>

#include "common/comm/timed_transport.h"
#include "common/comm/virtual_clock.h"

namespace ninefold {

struct InFlight;  // common/comm/state.h

class VirtualTime {
 public:
  VirtualTime(Cluster cluster, int rank);
  VirtualTime(const VirtualTime&) = delete;
  VirtualTime& operator=(const VirtualTime&) = delete;

  VirtualClock& clock() { return clock_; }
  const VirtualClock& clock() const { return clock_; }
  const Cluster& cluster() const { return cluster_; }
  // Where the ranks are. Calls before the first mesh take no time.
  void arrange(const std::vector<MeshDimension>& dimensions) { network_.ports.arrange(dimensions); }

  std::unique_ptr<Transport> timed(std::unique_ptr<Transport> transport, std::vector<int> members);

  // Exposed communication so far: seconds that the clock advanced in waits, by the name of the group.
  const std::map<std::string, double>& exposed() const { return exposed_; }

  // What World does with a call. It is issued; it may run once no call before it keeps one of its ports busy; it is run
  // again and again until it has ended; somebody may wait for it.
  void issue(InFlight& call, bool is_timed) const;
  static bool may_run(const InFlight& call, PortSet busy);
  static PortSet keeps_busy(const InFlight& call);
  void ended(const InFlight& call) const;
  void waited(const InFlight& call);

  // While it lives, the messages that are posted are those of `call`.
  class Run {
   public:
    // Does nothing without a VirtualTime.
    Run(VirtualTime* time, InFlight& call);
    ~Run();
    Run(const Run&) = delete;
    Run& operator=(const Run&) = delete;

   private:
    VirtualTime* time_;
  };

 private:
  Cluster cluster_;
  VirtualClock clock_;
  TimedNetwork network_;
  std::map<std::string, double> exposed_;
};

}  // namespace ninefold
