#include "common/comm/staged.h"

#include <utility>

#include "common/tensor/cpu/cpu_kernels.h"

namespace ninefold {
namespace {

// The host's memory from which the GPU copies the fastest, booked under communication.
class HostSide final : public Allocator {
 public:
  explicit HostSide(DeviceHandle gpu) : gpu_(std::move(gpu)) {}

  void* allocate(int64_t bytes) override {
    gpu_->ledger().allocated(MemoryKind::communication, bytes);
    return pinned().allocate(bytes);
  }
  void deallocate(void* address, int64_t bytes) override {
    gpu_->ledger().freed(MemoryKind::communication, bytes);
    pinned().deallocate(address, bytes);
  }
  int64_t reserved() const override { return 0; }

 private:
  Allocator& pinned() { return gpu_->allocator_of(MemoryKind::host); }
  DeviceHandle gpu_;
};

// Where calls are made that `gpu` stages.
DeviceHandle make_host_device(const DeviceHandle& gpu) {
  return std::make_shared<Device>(DeviceType::cpu, std::make_unique<HostSide>(gpu),
                                  std::make_unique<CpuKernels>(/*threads=*/1));
}

// Where `part` begins within `whole`, in elements; negative where it does not lie there.
int64_t offset_within(const Tensor& whole, const Tensor& part) {
  if (!whole.shares_storage_with(part)) return -1;
  const int64_t bytes = static_cast<const std::byte*>(part.raw()) - static_cast<const std::byte*>(whole.raw());
  return bytes + part.bytes() <= whole.bytes() ? bytes / size_of(part.dtype()) : -1;
}

// The same call with tensors of the host, which lie to each other as those of the device do: an algorithm in place
// stays one, and sends what its formula says.
Call on_host(const Call& call, const DeviceHandle& host) {
  Call copy = call;
  const auto twin = [&](const Tensor& tensor) { return Tensor::empty(host, tensor.shape(), tensor.dtype()); };
  const int64_t in_begin = offset_within(call.out, call.in), out_begin = offset_within(call.in, call.out);
  if (call.out.defined() && (in_begin >= 0 || out_begin < 0)) copy.out = twin(call.out);
  if (call.in.defined()) copy.in = in_begin >= 0 ? copy.out.slice(in_begin, call.in.shape()) : twin(call.in);
  if (in_begin < 0 && out_begin >= 0) copy.out = copy.in.slice(out_begin, call.out.shape());
  return copy;
}

bool contributes(const Call& call, int rank) {
  return call.in.defined() && (call.operation != Operation::broadcast || rank == call.peer);
}

bool receives(const Call& call, int rank) {
  if (call.operation == Operation::broadcast) return rank != call.peer;
  return call.out.defined() && (call.operation != Operation::reduce || rank == call.peer);
}

class StagedWork : public Work {
 public:
  StagedWork(const Call& call, const Call& on_host, bool receives, std::shared_ptr<Work> inner)
      : call_(call), on_host_(on_host), receives_(receives), inner_(std::move(inner)) {}

  bool step() override {
    if (!inner_->step()) return false;
    if (receives_) call_.out.copy_from_host(on_host_.out.raw());
    return true;
  }

 private:
  Call call_, on_host_;
  bool receives_;
  std::shared_ptr<Work> inner_;
};

class StagedCollectives : public Collectives {
 public:
  // `host` is made with the first call, and shared by all groups.
  StagedCollectives(std::unique_ptr<Collectives> inner, int rank, std::shared_ptr<DeviceHandle> host)
      : inner_(std::move(inner)), rank_(rank), host_(std::move(host)) {}

  std::shared_ptr<Work> start(const Call& call) override {
    const bool is_on_gpu = call.tensor().defined() && call.tensor().device()->type() == DeviceType::cuda;
    if (!is_on_gpu) return inner_->start(call);
    if (!*host_) *host_ = make_host_device(call.tensor().device());
    const Call copy = on_host(call, *host_);
    if (contributes(call, rank_)) call.in.copy_to_host(copy.in.raw());
    return std::make_shared<StagedWork>(call, copy, receives(call, rank_), inner_->start(copy));
  }

  Sent volume(const Call& call) const override { return inner_->volume(call); }
  bool sends_by_itself(const Call& call) const override { return inner_->sends_by_itself(call); }
  bool sums_in_rank_order() const override { return inner_->sums_in_rank_order(); }

 private:
  std::unique_ptr<Collectives> inner_;
  int rank_;
  std::shared_ptr<DeviceHandle> host_;
};

}  // namespace

CollectivesFactory staged(CollectivesFactory inner) {
  return [inner = std::move(inner),
          host = std::make_shared<DeviceHandle>()](Transport& transport) -> std::unique_ptr<Collectives> {
    std::unique_ptr<Collectives> collectives = inner(transport);
    if (collectives->takes_device_memory()) return collectives;
    return std::make_unique<StagedCollectives>(std::move(collectives), transport.rank(), host);
  };
}

}  // namespace ninefold
