// Tensors and their views, the memory ledger, the caching allocator, and tensors without memory.
#include "common/tensor/tensor.h"

#include <gtest/gtest.h>

#include <random>

#include "common/tensor/caching_allocator.h"
#include "common/tensor/ops.h"

namespace ninefold {
namespace {

constexpr int64_t mebibyte = int64_t{1} << 20;

TEST(Tensor, ViewsShareTheElements) {
  const DeviceHandle device = make_cpu_device();
  const Tensor x = Tensor::from<int32_t>(device, {4, 3}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11});
  const Tensor middle = x.rows(1, 3);
  EXPECT_EQ(middle.shape(), (Shape{2, 3}));
  EXPECT_EQ(middle.to_vector<int32_t>(), (std::vector<int32_t>{3, 4, 5, 6, 7, 8}));
  EXPECT_EQ(middle.rows(1, 2).to_vector<int32_t>(), (std::vector<int32_t>{6, 7, 8}));
  EXPECT_EQ(x.slice(5, {2, 2}).to_vector<int32_t>(), (std::vector<int32_t>{5, 6, 7, 8}));
  EXPECT_EQ(x.reshape({2, 6}).rows(1, 2).to_vector<int32_t>(), (std::vector<int32_t>{6, 7, 8, 9, 10, 11}));
  middle.data<int32_t>()[0] = 42;
  EXPECT_EQ(x.data<int32_t>()[3], 42);
  EXPECT_TRUE(middle.shares_storage_with(x));
  EXPECT_EQ(x.dim(-1), 3);
}

TEST(Tensor, WhatDoesNotFitIsAnError) {
  const DeviceHandle device = make_cpu_device();
  const Tensor x = Tensor::zeros(device, {4, 3}, Dtype::f32);
  EXPECT_THROW(x.rows(1, 5), Error);
  EXPECT_THROW(x.rows(-1, 2), Error);
  EXPECT_THROW(x.slice(10, {3}), Error);
  EXPECT_THROW(x.reshape({5, 3}), Error);
  EXPECT_THROW(x.data<int32_t>(), Error);
  EXPECT_THROW(Tensor::from<float>(device, {3}, {1.0f}), Error);
  EXPECT_THROW(Tensor().device(), Error);
}

TEST(Tensor, EmptyTensorsTakeNoMemory) {
  const DeviceHandle device = make_cpu_device();
  const Tensor x = Tensor::empty(device, {0, 5}, Dtype::bf16);
  EXPECT_EQ(x.size(), 0);
  EXPECT_EQ(x.rows(0, 0).size(), 0);
  EXPECT_TRUE(x.to_vector<bf16>().empty());
  EXPECT_EQ(device->ledger().peak_total(), 0);
}

TEST(Ledger, BooksRequestedBytesByKind) {
  const DeviceHandle device = make_cpu_device();
  const Ledger& ledger = device->ledger();
  const Tensor activation = Tensor::empty(device, {17}, Dtype::f32);
  EXPECT_EQ(ledger.now(MemoryKind::activations), 68);
  {
    const MemoryScope scope(*device, MemoryKind::parameters);
    const Tensor parameter = Tensor::empty(device, {100}, Dtype::bf16);
    EXPECT_EQ(ledger.now(MemoryKind::parameters), 200);
    EXPECT_EQ(ledger.peak_total(), 268);
  }
  EXPECT_EQ(ledger.now(MemoryKind::parameters), 0);
  EXPECT_EQ(ledger.peak(MemoryKind::parameters), 200);
  EXPECT_EQ(device->kind(), MemoryKind::activations);
}

TEST(Ledger, ViewsCostNothingAndKeepTheirStorage) {
  const DeviceHandle device = make_cpu_device();
  Tensor x = Tensor::empty(device, {32}, Dtype::f32);
  const Tensor view = x.rows(3, 7);
  x = Tensor();
  EXPECT_EQ(device->ledger().now(MemoryKind::activations), 128);
}

TEST(CachingAllocator, AlignsReusesAndReports) {
  CachingAllocator allocator;
  EXPECT_EQ(allocator.reserved(), 0);
  void* const first = allocator.allocate(2 * mebibyte);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(first) % 64, 0u);
  EXPECT_EQ(allocator.reserved(), 64 * mebibyte);
  allocator.deallocate(first, 2 * mebibyte);
  EXPECT_EQ(allocator.allocate(2 * mebibyte), first) << "freed memory is used again";
  EXPECT_EQ(allocator.reserved(), 64 * mebibyte);
}

TEST(CachingAllocator, LargeRequestsGetASegmentOfTheirSize) {
  CachingAllocator allocator;
  allocator.allocate(100 * mebibyte + 64);
  EXPECT_EQ(allocator.reserved(), 102 * mebibyte);
}

TEST(CachingAllocator, NeighboursJoinAgainInWhateverOrderTheyAreFreed) {
  const int64_t quarter = 16 * mebibyte;
  const std::vector<std::vector<int>> orders = {{0, 1, 2, 3}, {3, 2, 1, 0}, {1, 3, 0, 2}, {2, 0, 3, 1}};
  CachingAllocator allocator;
  for (const auto& order : orders) {
    std::vector<void*> parts;
    for (int i = 0; i < 4; ++i) parts.push_back(allocator.allocate(quarter));
    for (const int i : order) allocator.deallocate(parts[static_cast<size_t>(i)], quarter);
    void* const whole = allocator.allocate(4 * quarter);
    EXPECT_EQ(allocator.reserved(), 4 * quarter);
    allocator.deallocate(whole, 4 * quarter);
  }
}

TEST(CachingAllocator, TakesTheSmallestBlockThatFits) {
  CachingAllocator allocator;
  void* const large = allocator.allocate(8 * mebibyte);
  allocator.allocate(mebibyte);
  void* const fitting = allocator.allocate(4 * mebibyte);
  allocator.allocate(mebibyte);
  allocator.deallocate(large, 8 * mebibyte);
  allocator.deallocate(fitting, 4 * mebibyte);
  EXPECT_EQ(allocator.allocate(3 * mebibyte), fitting);
}

TEST(CachingAllocator, SmallRequestsLiveApart) {
  CachingAllocator allocator;
  allocator.allocate(64);
  EXPECT_EQ(allocator.reserved(), 64 * mebibyte);
  void* const whole = allocator.allocate(64 * mebibyte);
  EXPECT_EQ(allocator.reserved(), 128 * mebibyte);
  allocator.deallocate(whole, 64 * mebibyte);
  allocator.allocate(128);
  EXPECT_EQ(allocator.allocate(64 * mebibyte), whole);
}

TEST(CachingAllocator, FreeingTwiceOrTheWrongSizeIsAnError) {
  CachingAllocator allocator;
  void* const address = allocator.allocate(128);
  EXPECT_THROW(allocator.deallocate(address, 64), Error);
  allocator.deallocate(address, 128);
  EXPECT_THROW(allocator.deallocate(address, 128), Error);
  EXPECT_THROW(allocator.allocate(65), Error);
}

TEST(CachingAllocator, LiveBlocksNeverOverlap) {
  CachingAllocator allocator;
  std::mt19937 generator(1);
  std::map<std::byte*, int64_t> live;
  for (int i = 0; i < 20'000; ++i) {
    if (live.size() > 100 || (!live.empty() && generator() % 2)) {
      const auto victim = std::next(live.begin(), generator() % live.size());
      allocator.deallocate(victim->first, victim->second);
      live.erase(victim);
    } else {
      const int64_t bytes = 64 * (1 + generator() % (generator() % 8 == 0 ? 100'000 : 300));
      auto* const address = static_cast<std::byte*>(allocator.allocate(bytes));
      const auto next = live.lower_bound(address);
      ASSERT_TRUE(next == live.end() || address + bytes <= next->first);
      ASSERT_TRUE(next == live.begin() || std::prev(next)->first + std::prev(next)->second <= address);
      live[address] = bytes;
    }
  }
  EXPECT_LE(allocator.reserved(), 1024 * mebibyte);
}

TEST(Ledger, BooksATensorUnderAnotherKind) {
  const DeviceHandle device = make_cpu_device();
  const Tensor tensor = Tensor::empty(device, {32}, Dtype::f32);
  const Tensor view = tensor.rows(0, 4);
  view.book_as(MemoryKind::communication);
  EXPECT_EQ(tensor.kind(), MemoryKind::communication);
  EXPECT_EQ(device->ledger().now(MemoryKind::activations), 0);
  EXPECT_EQ(device->ledger().now(MemoryKind::communication), 128);
  EXPECT_EQ(device->ledger().peak(MemoryKind::activations), 128);
}

TEST(Meta, CountsWithoutMemory) {
  const DeviceHandle device = make_meta_device();
  const MemoryScope scope(*device, MemoryKind::parameters);
  const Tensor huge = Tensor::zeros(device, {int64_t{1} << 40}, Dtype::f32);
  EXPECT_EQ(huge.raw(), nullptr);
  EXPECT_EQ(huge.data<float>(), nullptr);
  EXPECT_EQ(huge.rows(5, 10).raw(), nullptr);
  EXPECT_EQ(device->ledger().now(MemoryKind::parameters), int64_t{4} << 40);
  EXPECT_EQ(device->reserved(), 0);
}

TEST(Meta, OperationsGiveShapesAndCosts) {
  const DeviceHandle device = make_meta_device();
  double flops = 0;
  device->after_kernel = [&](const KernelCost& cost) { flops += cost.flops; };
  const Tensor x = Tensor::empty(device, {1000, 2000}, Dtype::bf16),
               w = Tensor::empty(device, {3000, 2000}, Dtype::bf16);
  const Tensor y = ops::matmul(x, w, {.transpose_b = true});
  EXPECT_EQ(y.shape(), (Shape{1000, 3000}));
  EXPECT_EQ(flops, 2.0 * 1000 * 2000 * 3000);
  const Tensor positions = Tensor::from<int32_t>(device, {2}, {0, 1});
  ops::rope_(y, positions, ops::rope_frequencies(100, 10000.0), ops::RopeDirection::forward);
  EXPECT_EQ(ops::sum_of_squares(y).value(), 0.0);
  EXPECT_THROW(ops::matmul(x, w), Error);
}

TEST(Device, OperationsRefuseTensorsOfTwoDevices) {
  const Tensor x = Tensor::zeros(make_cpu_device(), {4}, Dtype::f32),
               y = Tensor::zeros(make_meta_device(), {4}, Dtype::f32);
  EXPECT_THROW(ops::add(x, y), Error);
  EXPECT_THROW(ops::add(x, Tensor()), Error);
}

TEST(Device, TheHookHearsOfEveryOperation) {
  const DeviceHandle device = make_cpu_device();
  std::vector<std::string> names;
  double bytes = 0;
  device->after_kernel = [&](const KernelCost& cost) {
    names.emplace_back(cost.name);
    bytes += cost.bytes;
  };
  const Tensor x = Tensor::zeros(device, {10}, Dtype::f32);
  ops::add_(x, ops::relu(x));
  EXPECT_EQ(names, (std::vector<std::string>{"relu", "add"}));
  EXPECT_EQ(bytes, 2 * 40 + 3 * 40);
}

}  // namespace
}  // namespace ninefold
