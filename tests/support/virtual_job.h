// A world in virtual time for tests. Its figures are powers of two, so that sums of times are exact.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <thread>

#include "01_collectives/collectives.h"
#include "common/comm/control.h"
#include "common/comm/mesh.h"
#include "common/comm/virtual_time.h"

namespace ninefold {

// Two kinds of links: α + S / β.
inline constexpr Link slow = {.bandwidth = 1 << 20, .latency = 1.0 / (1 << 10)};
inline constexpr Link fast = {.bandwidth = 1 << 26, .latency = 1.0 / (1 << 16)};

inline Cluster test_cluster() {
  Cluster cluster;
  cluster.links = {{"outer", slow}, {"inner", fast}};
  cluster.compute = ComputeRate{.flops = 1};
  return cluster;
}

struct VirtualJob {
  explicit VirtualJob(std::vector<MeshDimension> dimensions, const Cluster& cluster = test_cluster(),
                      const CollectivesFactory& collectives = collectives::ours(), bool synchronous_sends = false)
      : world({.device = make_cpu_device(), .timeout = 20, .synchronous_sends = synchronous_sends, .cluster = cluster},
              collectives),
        mesh(world, std::move(dimensions)) {}

  double now() const { return world.virtual_time()->clock().now(); }
  double latest() const {
    const std::vector<double> all = control::all_gather(world.group(), now());
    return *std::max_element(all.begin(), all.end());
  }
  // So much of virtual time, at one FLOP/s.
  void compute(double seconds) const { world.device()->after_kernel({"compute", seconds, 0}); }
  // A moment of real time, another one on every rank and in every call.
  void dawdle() { std::this_thread::sleep_for(std::chrono::microseconds(random() % 3000)); }
  Tensor tensor(int64_t bytes) const { return Tensor::zeros(world.device(), {bytes / 4}, Dtype::f32); }

  World world;
  Mesh mesh;
  std::minstd_rand random{std::random_device{}()};
};

}  // namespace ninefold
