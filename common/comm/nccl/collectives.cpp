// NCCL's collectives, each group's in a stream of its own: the GPU computes meanwhile, and the host waits for neither.
#include "common/comm/collectives.h"

#include <cstdio>

#include "common/comm/nccl/messages.h"
#include "common/comm/nccl/volume.h"
#include "common/comm/staged.h"
#include "common/comm/world.h"

namespace ninefold {
namespace {

ncclRedOp_t op_of(ReduceOp op) {
  switch (op) {
    case ReduceOp::sum:
      return ncclSum;
    case ReduceOp::avg:
      return ncclAvg;
    case ReduceOp::min:
      return ncclMin;
    case ReduceOp::max:
      return ncclMax;
    case ReduceOp::product:
      return ncclProd;
  }
  return ncclSum;
}

bool is_message(const Call& call) { return call.operation == Operation::send || call.operation == Operation::recv; }

// What a group's collectives have in common.
struct Course {
  nccl::Communicator communicator;
  int ranks;
  int64_t started = 0, ended = 0;  // collectives, which end in the order in which they started
};

class NcclWork : public Work {
 public:
  // Tells the GPU to make the call when it has computed what it has been told to compute by now.
  NcclWork(const Call& call, Course& course)
      : course_(course),
        compute_(stream_of(*call.tensor().device())),
        stream_(course.communicator.stream()),
        number_(course.started++) {
    ready_.record(compute_);
    ready_.delay(stream_);
    start(call);
    done_.record(stream_);
  }

  bool step() override {
    if (number_ > course_.ended) return false;  // asking costs more than this
    if (!done_.has_passed()) {
      course_.communicator.require_health();
      return false;
    }
    ++course_.ended;
    return true;
  }
  bool is_awaited_by_device() override {
    done_.delay(compute_);
    return true;
  }

 private:
  void start(const Call& call) const {
    const Tensor &in = call.in, &out = call.out;
    const auto in_size = static_cast<size_t>(in.size()), out_size = static_cast<size_t>(out.size());
    const ncclComm_t communicator = course_.communicator;
    const ncclDataType_t type = nccl::type_of(in.dtype());
    const ncclRedOp_t op = op_of(call.op);
    switch (call.operation) {
      case Operation::all_reduce:
        return nccl::check(ncclAllReduce(in.raw(), out.raw(), in_size, type, op, communicator, stream_));
      case Operation::all_gather:
        return nccl::check(ncclAllGather(in.raw(), out.raw(), in_size, type, communicator, stream_));
      case Operation::reduce_scatter:
        return nccl::check(ncclReduceScatter(in.raw(), out.raw(), out_size, type, op, communicator, stream_));
      case Operation::broadcast:
        return nccl::check(ncclBroadcast(in.raw(), out.raw(), out_size, type, call.peer, communicator, stream_));
      case Operation::reduce:
        return nccl::check(ncclReduce(in.raw(), out.raw(), in_size, type, op, call.peer, communicator, stream_));
      case Operation::all_to_all:
        return all_to_all(call);
      default:
        expect(false, "{} is not a collective", name_of(call.operation));
    }
  }

  void all_to_all(const Call& call) const {
    const int64_t equal_part = call.in.size() / course_.ranks;
    const int64_t width = size_of(call.in.dtype());
    auto* in = static_cast<std::byte*>(call.in.raw());
    auto* out = static_cast<std::byte*>(call.out.raw());
    nccl::check(ncclGroupStart());
    for (int peer = 0; peer < course_.ranks; ++peer) {
      const auto i = static_cast<size_t>(peer);
      const int64_t in_bytes = width * (call.in_counts.empty() ? equal_part : call.in_counts[i]);
      const int64_t out_bytes = width * (call.out_counts.empty() ? equal_part : call.out_counts[i]);
      const ncclComm_t communicator = course_.communicator;
      if (in_bytes > 0) {
        nccl::check(ncclSend(in, static_cast<size_t>(in_bytes), ncclUint8, peer, communicator, stream_));
      }
      if (out_bytes > 0) {
        nccl::check(ncclRecv(out, static_cast<size_t>(out_bytes), ncclUint8, peer, communicator, stream_));
      }
      in += in_bytes;
      out += out_bytes;
    }
    nccl::check(ncclGroupEnd());
  }

  Course& course_;
  cudaStream_t compute_, stream_;
  int64_t number_;
  nccl::Event ready_, done_;
};

class NcclCollectives : public Collectives {
 public:
  NcclCollectives(Transport& transport, std::unique_ptr<Collectives> host)
      : rank_(transport.rank()),
        host_(std::move(host)),
        course_{.communicator = {nccl::shared_id(transport), transport.size(), transport.rank()},
                .ranks = transport.size()},
        messages_(transport) {}

  std::shared_ptr<Work> start(const Call& call) override {
    if (!is_on_gpu(call)) return host_->start(call);
    if (is_message(call)) return messages_.start(call);
    return std::make_shared<NcclWork>(call, course_);
  }

  Sent volume(const Call& call) const override {
    return is_host(call) ? host_->volume(call) : nccl::volume_of(call, course_.ranks, rank_);
  }
  bool sends_by_itself(const Call& call) const override { return !is_host(call) || host_->sends_by_itself(call); }
  bool takes_device_memory() const override { return true; }

 private:
  static bool is_on_gpu(const Call& call) {
    return call.tensor().defined() && call.tensor().device()->type() == DeviceType::cuda;
  }
  // Predictions are made with tensors of meta.
  static bool is_host(const Call& call) {
    return !call.tensor().defined() || call.tensor().device()->type() == DeviceType::cpu;
  }

  int rank_;
  std::unique_ptr<Collectives> host_;
  Course course_;
  nccl::Messages messages_;
};

void tell_of_sharing() {
  if (!on_first_rank()) return;
  fmt::print(
      "note: several ranks use one GPU, which NCCL {} does not allow (2.30 does); their tensors travel through the "
      "host's memory\n",
      nccl::version());
  std::fflush(stdout);
}

}  // namespace

CollectivesFactory nccl_collectives(CollectivesFactory host) {
  return [host = staged(std::move(host)),
          has_told = std::make_shared<bool>()](Transport& transport) -> std::unique_ptr<Collectives> {
    const bool shares = nccl::share_a_gpu(transport);
    if (!shares || nccl::may_share_a_gpu()) return std::make_unique<NcclCollectives>(transport, host(transport));
    if (!std::exchange(*has_told, true)) tell_of_sharing();
    return host(transport);
  };
}

}  // namespace ninefold
