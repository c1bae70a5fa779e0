// oneDNN as the CPU back end uses it: primitives are made once for each shape (0.3 ms) and kept with their arguments,
// so that a call only hands over addresses (below 1 µs). Scratch memory comes from the device's allocator.
#pragma once

#include <array>
#include <map>
#include <optional>
#include <vector>

#include "common/tensor/cpu/loops.h"
#include "common/tensor/cpu/onednn_version.h"
#include "common/tensor/tensor.h"

namespace ninefold {

dnnl::memory::data_type onednn_type(Dtype dtype);

// One argument of a primitive. Where the primitive prefers another layout `inside`, the call reorders to or from it.
struct PrimitiveArgument {
  int role;  // DNNL_ARG_…
  dnnl::memory::desc outside, inside;
  bool is_output = false;
};

// A primitive that is ready to run: only the addresses are missing.
class ReadyPrimitive {
 public:
  ReadyPrimitive(const dnnl::engine& engine, const dnnl::primitive& primitive, const dnnl::memory::desc& scratchpad,
                 const std::vector<PrimitiveArgument>& arguments);
  // `addresses` in the order of the constructor's arguments.
  void run(dnnl::stream& stream, const DeviceHandle& device, std::initializer_list<const void*> addresses);

 private:
  struct Slot {
    dnnl::memory outside, inside;
    std::optional<dnnl::reorder> reorder;
    bool is_output;
    int64_t offset = 0;  // of `inside`, where it is reordered, within the call's workspace
  };

  dnnl::primitive primitive_;
  dnnl::memory scratchpad_;
  std::vector<Slot> slots_;
  std::vector<dnnl_exec_arg_t> arguments_;
  int64_t workspace_bytes_;
};

struct OneDnn {
  explicit OneDnn(int threads);

  enum class Operation : int64_t { matmul, convolution, convolution_backward_data, convolution_backward_weights };
  // What distinguishes a primitive from all others: the operation, sizes, strides, types.
  using Key = std::array<int64_t, 12>;
  // The primitive kept under `key`; `make()` returns it the first time.
  template <typename Make>
  ReadyPrimitive& kept(const Key& key, const Make& make) {
    auto found = primitives.find(key);
    if (found == primitives.end()) found = primitives.emplace(key, make()).first;
    return found->second;
  }

  // Whether products of bf16 run on the processor's own instructions; else they are computed in f32.
  bool bf16_native;
  // Whether it multiplies elements of the type; others are computed in f32.
  bool multiplies(Dtype dtype) const;
  dnnl::engine engine;
  dnnl::stream stream;
  std::map<Key, ReadyPrimitive> primitives;
  std::map<Key, dnnl::matmul> ragged;  // products of which one size is told with each call
};

// Attributes of a primitive whose scratch memory is the caller's. Made anew each time: a dnnl::primitive_attr is a
// handle, and what is set on a copy is set on the original.
dnnl::primitive_attr user_scratchpad();

}  // namespace ninefold
