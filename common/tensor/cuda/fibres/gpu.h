// What kernels are written with, here for the host: the threads of a block are fibres, which run in turns from barrier
// to barrier. The folder device/ has a file of the same name with CUDA's own; CMake's include path chooses.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

#include "common/tensor/cuda/fibres/fibres.h"

// The namespace of everything that is compiled for both, so that one program may hold both.
#define NINEFOLD_GPU fibres

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__ __restrict
#define NINEFOLD_UNROLL  // nothing: a wish to nvcc

namespace ninefold::fibres {

using Stream = Fibres*;

// Runs a kernel with `shared_bytes` of shared memory a block; its arguments are copied, as on a device.
template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, Stream stream,
            Arguments... arguments) {
  if (grid.x * grid.y * grid.z == 0) return;
  stream->tell([=] { stream->run(grid, block, shared_bytes, [&] { kernel(static_cast<Parameters>(arguments)...); }); });
}

// Copies within the device. The ranges may be the same, but not overlap otherwise.
inline void move_bytes(Stream stream, void* to, const void* from, int64_t bytes) {
  stream->tell([=] { stream->move_bytes(to, from, bytes); });
}

// What a thread exchanges with the others of its warp. Every lane of a warp must take part.
template <typename T>
T exchange(T value, unsigned from_lane) {
  static_assert(sizeof(T) <= Fibres::slot_bytes);
  Fibres& fibres = Fibres::running();
  std::memcpy(fibres.own_slot(), &value, sizeof(T));
  const std::byte* const slot = fibres.slot_of(from_lane);
  fibres.wait_for_warp();
  std::memcpy(&value, slot, sizeof(T));
  return value;
}

inline unsigned lane() { return Fibres::running().lane(); }

template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return exchange(value, lane() ^ static_cast<unsigned>(mask));
}
template <typename T>
T __shfl_sync(unsigned, T value, int from) {
  return exchange(value, static_cast<unsigned>(from) % Fibres::warp_threads);
}

inline void __syncwarp() { Fibres::running().wait_for_warp(); }
inline void __syncthreads() { Fibres::running().wait_for_block(); }
// Whether `predicate` holds in any thread of the block.
inline int __syncthreads_or(int predicate) { return Fibres::running().any_of_block(predicate != 0); }

// One thread runs at a time: nothing comes in between.
template <typename T>
T atomicAdd(T* address, T value) {
  const T before = *address;
  *address = before + value;
  return before;
}
template <typename T>
T atomicMax(T* address, T value) {
  const T before = *address;
  if (value > before) *address = value;
  return before;
}

// The block's shared memory. When a block begins, it is full of NaN.
inline unsigned char* shared_memory() { return Fibres::running().shared_memory(); }

}  // namespace ninefold::fibres
