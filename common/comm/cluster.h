// Cluster describes machines that you do not have: what the links along each mesh dimension carry, and how fast a rank
// computes. With it a run has, beside its wall time, a virtual time (virtual_time.h): that of these machines.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace ninefold {

struct MeshDimension;  // common/comm/mesh.h

// A message of S bytes arrives after latency + S / bandwidth: the α–β model.
struct Link {
  double bandwidth = 0;  // B/s
  double latency = 0;    // s
};

// A kernel takes as long as its FLOPs or as its bytes, whichever is longer: the roofline.
struct ComputeRate {
  double flops = 0;                                         // FLOP/s
  double memory = std::numeric_limits<double>::infinity();  // B/s
};

struct Cluster {
  std::map<std::string, Link> links{};  // by mesh dimension
  // What computing costs; without it, the rank's own processor time.
  std::optional<ComputeRate> compute{};
  // B/s at which collectives add what they receive; additions are free unless it is given.
  double reduce = std::numeric_limits<double>::infinity();
  // Messages larger than this wait for the receiver; smaller ones leave at once.
  int64_t rendezvous = std::numeric_limits<int64_t>::max();

  // Reads entries between spaces, or the file of that name, which has one entry a line and comments after '#'. A
  // description has a '=' and the name of a file has none. Entries, with decimal units:
  //   dp_replicate=10GB/s,5us          bandwidth and latency of a mesh dimension's links
  //   compute=50TF/s,memory=1TB/s      or compute=cpu, the default: the rank's own processor time
  //   reduce=100GB/s   rendezvous=64kB
  // Throws UserError for anything else.
  static Cluster parse(const std::string& description);

  // Throws UserError unless every link belongs to a dimension, and every dimension larger than one has a link.
  void require_fits(const std::vector<MeshDimension>& dimensions) const;
};

}  // namespace ninefold
