// The ports of one rank in virtual time, and the links that they lead to.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "common/comm/cluster.h"
#include "common/comm/mesh.h"

namespace ninefold {

// A message whose time is not known yet.
class Unbooked {
 public:
  virtual ~Unbooked() = default;
  // Gives the message its time, if what that depends on is known; true if it did.
  virtual bool book() = 0;
};

// One direction of a port. Messages occupy it one after the other, in the order in which they were posted.
struct Port {
  double free = 0;  // when the last one that was booked ends
  std::deque<Unbooked*> unbooked{};

  void post(Unbooked& message) {
    unbooked.push_back(&message);
    book();
  }
  void book() {
    while (!unbooked.empty() && unbooked.front()->book()) unbooked.pop_front();
  }
};

// Directions of ports, as bits.
using PortSet = uint64_t;

// A rank has one full-duplex port for each dimension of the mesh, shared by all groups. Two ranks are joined by the
// link of the outermost dimension in which their coordinates differ.
class Ports {
 public:
  Ports(const Cluster& cluster, int rank) : cluster_(cluster), rank_(rank) {}

  // Where the ranks are: there are no ports before. UserError where the cluster does not fit the mesh.
  void arrange(const std::vector<MeshDimension>& dimensions);
  bool is_arranged() const { return !lines_.empty(); }

  // What joins this rank with another one. `peer` is a rank of the world.
  struct Line {
    Link link{};
    Port sending{}, receiving{};
  };
  Line& line_to(int peer) { return lines_[index_of(peer)]; }
  PortSet sending_to(int peer) const { return PortSet{1} << (2 * index_of(peer)); }
  PortSet receiving_from(int peer) const { return PortSet{2} << (2 * index_of(peer)); }

 private:
  size_t index_of(int peer) const;

  const Cluster& cluster_;
  int rank_;
  std::vector<int> strides_{};  // between neighbours along each dimension
  std::vector<Line> lines_{};   // by dimension
};

}  // namespace ninefold
