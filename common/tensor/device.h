// A device is where tensors live and operations run. Every tensor holds a handle to its device, so there are no
// globals.
#pragma once

#include <functional>
#include <memory>
#include <string_view>

#include "common/tensor/memory.h"

namespace ninefold {

class Kernels;  // common/tensor/kernels.h: what a back end implements
class Trace;    // common/base/trace.h

enum class DeviceType { cpu, meta, cuda };
std::string_view name_of(DeviceType type);

// What one operation did; formulas, not measurements.
struct KernelCost {
  const char* name;
  double flops;
  double bytes;  // read and written once
};

class Device {
 public:
  // `host_allocator`: for memory of kind `host`, where it is another than the device's own. `recorded_allocator`: for
  // that of recordings, where the device makes any.
  Device(DeviceType type, std::unique_ptr<Allocator> allocator, std::unique_ptr<Kernels> kernels,
         std::unique_ptr<HostAccess> host_access = std::make_unique<HostAccess>(),
         std::unique_ptr<Allocator> host_allocator = nullptr, std::unique_ptr<Allocator> recorded_allocator = nullptr);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  DeviceType type() const { return type_; }
  Ledger& ledger() { return ledger_; }
  const Ledger& ledger() const { return ledger_; }
  // A GPU's tensors of kind `host` lie in the host's memory, where its kernels reach them, slowly. Those that are made
  // while it records lie where no others ever do: their addresses are written again whenever the recording is replayed.
  Allocator& allocator_of(MemoryKind kind) {
    if (is_recording_) return *recorded_allocator_;
    return kind == MemoryKind::host && host_allocator_ ? *host_allocator_ : *allocator_;
  }
  // Bytes of its own memory taken from the system.
  int64_t reserved() const {
    return allocator_->reserved() + (recorded_allocator_ ? recorded_allocator_->reserved() : 0);
  }
  // Whether it only notes what it is told. The host can then neither read nor write its memory.
  bool is_recording() const { return is_recording_; }
  Kernels& kernels() { return *kernels_; }
  HostAccess& host_access() { return *host_access_; }

  // Puts a decorator around the kernels: `wrap` receives the present ones and returns those to use from now on.
  void decorate_kernels(const std::function<std::unique_ptr<Kernels>(std::unique_ptr<Kernels>)>& wrap);

  // Called after every operation. Communication subscribes to it to make progress while the caller computes.
  std::function<void(const KernelCost&)> after_kernel;

  // Where spans go, or nullptr. Not owned.
  Trace* trace = nullptr;

  // The kind under which new tensors are booked; set through MemoryScope.
  MemoryKind kind() const { return kind_; }

 private:
  friend class MemoryScope;
  friend class Recording;
  DeviceType type_;
  Ledger ledger_;
  std::unique_ptr<Allocator> allocator_, host_allocator_, recorded_allocator_;
  std::unique_ptr<Kernels> kernels_;
  std::unique_ptr<HostAccess> host_access_;
  MemoryKind kind_ = MemoryKind::activations;
  bool is_recording_ = false;
};

using DeviceHandle = std::shared_ptr<Device>;

// `threads`: compute threads of this rank.
DeviceHandle make_cpu_device(int threads = 1);
// Shapes only: the ledger counts, nothing is allocated, operations do nothing.
DeviceHandle make_meta_device();
// One GPU, by its number in this process, in turn where there are fewer (library ninefold_cuda). Throws UserError where
// there is none, no driver for it, or where the programs were built without CUDA.
DeviceHandle make_cuda_device(int index);

// While it lives, new tensors of the device are booked under `kind`. Scopes nest.
class MemoryScope {
 public:
  MemoryScope(Device& device, MemoryKind kind) : device_(device), before_(device.kind_) { device.kind_ = kind; }
  ~MemoryScope() { device_.kind_ = before_; }
  MemoryScope(const MemoryScope&) = delete;
  MemoryScope& operator=(const MemoryScope&) = delete;

 private:
  Device& device_;
  MemoryKind before_;
};

}  // namespace ninefold
