#include "common/tensor/cuda/fibres/fibres.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <numeric>

#include "common/base/check.h"
#include "common/tensor/cuda/fibres/protected_memory.h"

namespace ninefold::fibres {
namespace {

thread_local Fibres* running_fibres = nullptr;

dim3 index_in(dim3 extent, unsigned i) { return {i % extent.x, i / extent.x % extent.y, i / extent.x / extent.y}; }

unsigned count_of(dim3 extent) { return extent.x * extent.y * extent.z; }

}  // namespace

Fibres& Fibres::running() { return *running_fibres; }

void Fibres::tell(std::function<void()> work) { notes ? notes->push_back(std::move(work)) : work(); }

void Fibres::run(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& body) {
  const ProtectedMemory::Open open(memory_);
  running_fibres = this;
  gridDim = grid;
  blockDim = block;
  body_ = &body;
  for (const unsigned index : ordered(count_of(grid))) {
    blockIdx = index_in(grid, index);
    prepare_block(block, shared_bytes);
    run_block();
  }
}

void Fibres::move_bytes(void* to, const void* from, int64_t bytes) {
  const ProtectedMemory::Open open(memory_);
  std::memmove(to, from, static_cast<size_t>(bytes));
}

void Fibres::prepare_block(dim3 block, size_t shared_bytes) {
  const unsigned count = count_of(block);
  threads_.clear();
  threads_.resize(count);
  for (unsigned i = 0; i < count; ++i) threads_[i].index = index_in(block, i);
  warps_.assign((count + warp_threads - 1) / warp_threads, Barrier{warp_threads});
  if (count % warp_threads > 0) warps_.back().members = count % warp_threads;
  block_ = Barrier{count};
  for (auto& slots : slots_) slots.resize(warps_.size() * warp_threads);
  Chunk poison;
  std::fill(std::begin(poison.bytes), std::end(poison.bytes), std::byte{0xff});
  shared_.assign((shared_bytes + sizeof poison - 1) / sizeof poison, poison);
}

void Fibres::run_block() {
  for (auto left = static_cast<unsigned>(threads_.size()); left > 0;) {
    unsigned resumed = 0;
    for (const unsigned warp : ordered(static_cast<unsigned>(warps_.size()))) resumed += run_warp(warp, left);
    expect(resumed > 0, "{} threads of a block wait at a barrier that the others never reach", left);
  }
}

unsigned Fibres::run_warp(unsigned warp, unsigned& left) {
  unsigned resumed = 0;
  for (bool any_ran = true; any_ran;) {
    any_ran = false;
    for (const unsigned lane : ordered(warps_[warp].members)) {
      const unsigned i = warp * warp_threads + lane;
      const Thread& thread = threads_[i];
      const bool waits = thread.waits_at && thread.waits_at->generation == thread.waits_for;
      if (thread.has_ended || waits) continue;
      any_ran = true;
      ++resumed;
      resume(i);
      if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
      left -= thread.has_ended;
    }
  }
  return resumed;
}

std::vector<unsigned> Fibres::ordered(unsigned count) {
  std::vector<unsigned> order(count);
  std::iota(order.begin(), order.end(), 0u);
  if (order_ == FibreOrder::reverse) std::reverse(order.begin(), order.end());
  if (order_ == FibreOrder::shuffled) shuffling_.shuffle(order);
  return order;
}

void Fibres::resume(unsigned index) {
  Thread& thread = threads_[index];
  current_ = index;
  threadIdx = thread.index;
  Fibre fibre = std::move(thread.fibre);
  if (!fibre) fibre = idle_fibre();
  fibre = std::move(fibre).resume();
  if (thread.has_ended) {
    idle_.push_back(std::move(fibre));
  } else {
    thread.fibre = std::move(fibre);
  }
}

Fibres::Fibre Fibres::idle_fibre() {
  if (!idle_.empty()) {
    Fibre fibre = std::move(idle_.back());
    idle_.pop_back();
    return fibre;
  }
  return Fibre(std::allocator_arg, stacks_, [this](Fibre&& scheduler) {
    scheduler_ = std::move(scheduler);
    while (true) {
      run_thread();
      scheduler_ = std::move(scheduler_).resume();  // until it is given another thread
    }
    return std::move(scheduler_);
  });
}

void Fibres::run_thread() {
  try {
    (*body_)();
  } catch (const boost::context::detail::forced_unwind&) {  // the fibre is destroyed while it waits
    throw;
  } catch (...) {
    error_ = std::current_exception();
  }
  threads_[current_].has_ended = true;
}

void Fibres::wait_at(Barrier& barrier) {
  const unsigned generation = barrier.generation;
  if (++barrier.arrived == barrier.members) {
    barrier.arrived = 0;
    ++barrier.generation;
    barrier.any[barrier.generation % 2] = false;
    return;  // the last to come need not wait
  }
  const unsigned self = current_;
  threads_[self].waits_at = &barrier;
  threads_[self].waits_for = generation;
  scheduler_ = std::move(scheduler_).resume();
}

void Fibres::wait_for_warp() { wait_at(warps_[current_ / warp_threads]); }

void Fibres::wait_for_block() { wait_at(block_); }

bool Fibres::any_of_block(bool predicate) {
  bool& any = block_.any[block_.generation % 2];
  any |= predicate;
  wait_for_block();
  return any;
}

std::byte* Fibres::slot(unsigned thread) { return slots_[warps_[thread / warp_threads].generation % 2][thread].bytes; }

}  // namespace ninefold::fibres
