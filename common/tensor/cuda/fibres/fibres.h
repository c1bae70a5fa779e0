// A GPU's grid of blocks of threads on one thread of the host. Every thread of a block is a fibre (Boost.Context) that
// runs until it waits at a barrier; blocks run one after the other. In which order is chosen: a kernel in which a
// barrier is missing gives another result in another order.
#pragma once

#include <boost/context/fiber.hpp>
#include <boost/context/fixedsize_stack.hpp>
#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <vector>

#include "common/base/random.h"
#include "common/tensor/cuda/fibres/fibre_device.h"

namespace ninefold::fibres {

class ProtectedMemory;  // common/tensor/cuda/fibres/protected_memory.h

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3() = default;
  dim3(unsigned x_, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

// CUDA's variables of the running thread.
inline thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

class Fibres {
 public:
  static constexpr unsigned warp_threads = 32;
  static constexpr size_t slot_bytes = 48;

  Fibres(FibreOrder order, ProtectedMemory& memory) : order_(order), memory_(memory) {}

  // Does the work, which is a run or a copy, or notes it while a list is given.
  void tell(std::function<void()> work);
  std::vector<std::function<void()>>* notes = nullptr;  // not owned

  // Calls `thread` once in every thread of every block. The device's memory is open while it lasts. Throws Error when
  // threads wait at a barrier that others never reach.
  void run(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& thread);

  // Copies within the device's memory.
  void move_bytes(void* to, const void* from, int64_t bytes);

  // ---- for the thread that runs ----
  static Fibres& running();
  unsigned lane() const { return current_ % warp_threads; }
  // Where a lane leaves what others read after the warp's next barrier. Two take turns, so that a lane may leave the
  // next value while others still read.
  std::byte* own_slot() { return slot(current_); }
  const std::byte* slot_of(unsigned lane) { return slot(current_ / warp_threads * warp_threads + lane); }
  void wait_for_warp();
  void wait_for_block();
  bool any_of_block(bool predicate);
  unsigned char* shared_memory() { return reinterpret_cast<unsigned char*>(shared_.data()); }

 private:
  using Fibre = boost::context::fiber;

  // Where some of the threads meet.
  struct Barrier {
    unsigned members = 0, arrived = 0, generation = 0;
    bool any[2] = {};  // of the predicates of this generation and of the last
  };
  struct Thread {
    dim3 index;
    Fibre fibre;  // suspended; empty before the thread begins and after it ends
    const Barrier* waits_at = nullptr;
    unsigned waits_for = 0;  // the generation whose end it waits for
    bool has_ended = false;
  };
  struct alignas(16) Slot {
    std::byte bytes[slot_bytes];
  };

  void prepare_block(dim3 block, size_t shared_bytes);
  void run_block();
  // Lets a warp run as far as it comes without the others, so that what it does too early shows. Returns how many
  // threads went on, and takes those that ended from `left`.
  unsigned run_warp(unsigned warp, unsigned& left);
  // Lets a thread go on until it waits or ends.
  void resume(unsigned thread);
  // A fibre that runs the thread it is resumed for.
  Fibre idle_fibre();
  void run_thread();
  void wait_at(Barrier& barrier);
  std::vector<unsigned> ordered(unsigned count);
  std::byte* slot(unsigned thread);

  FibreOrder order_;
  ProtectedMemory& memory_;
  RandomStream shuffling_{1};
  boost::context::fixedsize_stack stacks_{size_t{256} * 1024};
  std::vector<Fibre> idle_;  // fibres whose thread has ended, ready for another
  std::vector<Thread> threads_;
  std::vector<Barrier> warps_;
  Barrier block_;
  std::vector<Slot> slots_[2];
  struct alignas(16) Chunk {
    std::byte bytes[16];
  };
  std::vector<Chunk> shared_;
  const std::function<void()>* body_ = nullptr;
  unsigned current_ = 0;
  Fibre scheduler_;
  std::exception_ptr error_;
};

}  // namespace ninefold::fibres
