// The stand-in for a GPU: its threads meet at barriers, a missing barrier shows, and nobody else touches its memory.
#include "common/tensor/cuda/fibres/gpu.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <map>
#include <set>

#include "common/tensor/cuda/fibres/fibre_device.h"
#include "common/tensor/cuda/fibres/protected_memory.h"
#include "tests/support/numbers.h"

namespace ninefold::fibres {
namespace {

constexpr FibreOrder orders[] = {FibreOrder::forward, FibreOrder::reverse, FibreOrder::shuffled};

// Memory and fibres without a device; what kernels write to is the host's.
struct Grid {
  explicit Grid(FibreOrder order) : fibres(order, memory) {}
  ProtectedMemory memory;
  Fibres fibres;
};

// Every thread adds up what all threads of its block left.
void sum_of_block(int* sums, bool with_barrier) {
  auto* const left = reinterpret_cast<int*>(shared_memory());
  left[threadIdx.x] = static_cast<int>(threadIdx.x);
  if (with_barrier) __syncthreads();
  int sum = 0;
  for (unsigned i = 0; i < blockDim.x; ++i) sum += left[i];
  sums[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}

std::vector<int> sums(FibreOrder order, bool with_barrier) {
  Grid grid(order);
  std::vector<int> result(3 * 70);
  launch(sum_of_block, dim3(3), dim3(70), 70 * sizeof(int), &grid.fibres, result.data(), with_barrier);
  return result;
}

TEST(Fibres, MeetAtBarriers) {
  for (const FibreOrder order : orders) EXPECT_EQ(sums(order, true), std::vector<int>(3 * 70, 69 * 70 / 2));
}

TEST(Fibres, AMissingBarrierShows) {
  std::set<std::vector<int>> results;
  for (const FibreOrder order : orders) {
    const std::vector<int> found = sums(order, false);
    EXPECT_NE(found, std::vector<int>(3 * 70, 69 * 70 / 2));
    results.insert(found);
  }
  EXPECT_EQ(results.size(), std::size(orders)) << "each order sees something else";
}

// The value of the lane opposite, twice, and whether a thread of the block said yes.
void exchange_lanes(int* partners, int* any, int who) {
  const int lane = static_cast<int>(threadIdx.x);
  const int partner = __shfl_xor_sync(0xffffffffu, lane, 31);
  partners[lane] = __shfl_xor_sync(0xffffffffu, partner, 5);
  any[lane] = __syncthreads_or(lane == who);
}

TEST(Fibres, ExchangeWithinAWarp) {
  for (const FibreOrder order : orders) {
    Grid grid(order);
    for (const int who : {0, 40, 63, 64}) {
      std::vector<int> partners(64), any(64);
      launch(exchange_lanes, dim3(1), dim3(64), 0, &grid.fibres, partners.data(), any.data(), who);
      for (int lane = 0; lane < 64; ++lane) EXPECT_EQ(partners[lane], lane ^ 31 ^ 5);
      EXPECT_EQ(any, std::vector<int>(64, who < 64));
    }
  }
}

void wait_for_nobody() {
  if (threadIdx.x > 0) __syncthreads();
}

void fail() { expect(threadIdx.x != 5, "thread {} fails", threadIdx.x); }

TEST(Fibres, EndWithAnErrorWhereABarrierIsNotForAll) {
  Grid grid(FibreOrder::forward);
  EXPECT_THROW(launch(wait_for_nobody, dim3(1), dim3(4), 0, &grid.fibres), Error);
  EXPECT_THROW(launch(fail, dim3(1), dim3(8), 0, &grid.fibres), Error);
  std::vector<int> result(64);
  launch(sum_of_block, dim3(1), dim3(64), 64 * sizeof(int), &grid.fibres, result.data(), true);
  EXPECT_EQ(result, std::vector<int>(64, 63 * 64 / 2)) << "the next kernel is none the worse";
}

TEST(FibreDevice, NobodyElseTouchesItsMemory) {
  const DeviceHandle device = make_fibre_device(FibreOrder::forward);
  const Tensor x = Tensor::from<float>(device, {3}, {1, 2, 3});
  EXPECT_THROW(x.data<float>(), Error);
  EXPECT_EXIT(*static_cast<volatile float*>(x.raw()) = 1, testing::KilledBySignal(SIGSEGV), "");
  ops::scale_(x, 2);
  EXPECT_EQ(x.to_vector<float>(), (std::vector<float>{2, 4, 6}));
}

TEST(FibreDevice, WhatIsOffloadedLiesInTheHostsMemory) {
  const DeviceHandle device = make_fibre_device(FibreOrder::forward);
  const Tensor x = Tensor::from<float>(device, {3}, {1, 2, 3});
  const MemoryScope scope(*device, MemoryKind::host);
  const Tensor offloaded = Tensor::zeros(device, {3}, Dtype::f32);
  ops::add_(offloaded, x);
  EXPECT_EQ(std::vector<float>(offloaded.data<float>(), offloaded.data<float>() + 3), (std::vector<float>{1, 2, 3}));
  EXPECT_EQ(device->ledger().now(MemoryKind::host), 3 * 4);
}

TEST(FibreDevice, TheOrderOfThreadsChangesNoBits) {
  std::map<std::string, std::vector<Tensor>> results;
  for (const FibreOrder order : orders) {
    const DeviceHandle device = make_fibre_device(order);
    const Tensor x = random_tensor(device, {37, 129}, Dtype::bf16, 1),
                 weight = random_tensor(device, {129}, x.dtype(), 2);
    const ops::RmsNorm norm = ops::rms_norm(x, x, weight, 1e-5f);
    const Tensor dweight = Tensor::zeros(device, {129}, Dtype::f32);
    results["norm"].push_back(norm.y);
    results["dx"].push_back(ops::rms_norm_backward(x, x, x, weight, norm.inverse_deviation, Tensor(), dweight));
    results["dweight"].push_back(dweight);
    std::vector<int32_t> ids(37);
    for (int i = 0; i < 37; ++i) ids[i] = i * i % 5;
    const Tensor dtable = Tensor::zeros(device, {5, 129}, Dtype::f32);
    ops::embedding_backward(dtable, Tensor::from(device, {37}, ids), x);
    results["dtable"].push_back(dtable);
  }
  for (const auto& [name, tensors] : results) {
    EXPECT_TRUE(same_bits(tensors[0], tensors[1]) && same_bits(tensors[0], tensors[2])) << name;
  }
}

}  // namespace
}  // namespace ninefold::fibres
