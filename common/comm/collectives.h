// Collectives is the interface behind a Group: it turns a Call into Work that is stepped until it is complete. A call
// is plain data, so the same description is executed, checked between ranks, booked, and printed when it fails.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/comm/transport.h"
#include "common/tensor/tensor.h"

namespace ninefold {

// `control` stands for the few host values that programs exchange (common/comm/control.h).
enum class Operation {
  all_reduce,
  all_gather,
  reduce_scatter,
  broadcast,
  reduce,
  all_to_all,
  send,
  recv,
  barrier,
  control
};
inline constexpr int operation_count = static_cast<int>(Operation::control) + 1;
std::string_view name_of(Operation operation);

// avg is the sum times 1 / size, for floating-point types.
enum class ReduceOp { sum, avg, min, max, product };
std::string_view name_of(ReduceOp op);

// What one rank asks of its group. Which tensors mean what is told once, in group.h.
struct Call {
  Operation operation = Operation::barrier;
  Tensor in{};   // what this rank contributes
  Tensor out{};  // where its result goes; the same tensor as `in` for operations in place
  ReduceOp op = ReduceOp::sum;
  int peer = 0;  // root, destination or source
  int tag = 0;   // of send and recv
  // Elements for and from each rank, for all_to_all only.
  std::vector<int64_t> in_counts{}, out_counts{};

  bool reduces() const {
    return operation == Operation::all_reduce || operation == Operation::reduce_scatter ||
           operation == Operation::reduce;
  }
  // The tensor that gives the call its type: `in`, or `out` where nothing is contributed.
  const Tensor& tensor() const { return in.defined() ? in : out; }
};
// "all_reduce(sum) of 1000 f32", "broadcast of 3 bf16 from rank 1 of the group": the same on all ranks that make the
// same collective call.
std::string to_string(const Call& call);

// A call under way. It alone uses the elements of the call's tensors, which stay alive until it is complete or the
// device waits for it.
class Work {
 public:
  virtual ~Work() = default;
  // Does what can be done without waiting; true once the result is in place. Not called again after that.
  virtual bool step() = 0;
  // True once the device itself waits for the result: whatever it is told from now on sees it, and the host need not
  // wait nor keep the tensors, whose memory is the device's to use again after that. Where only the host can wait,
  // always false. The work still has to be stepped until it is complete.
  virtual bool is_awaited_by_device() { return false; }
};

// One object per group and rank, made by a CollectivesFactory and used with that group's transport. All ranks of a
// group start the same calls in the same order (send and recv aside); several may be under way at once.
class Collectives {
 public:
  virtual ~Collectives() = default;

  // Starts `call`, whose tensors have storage and fit each other; the group has at least two ranks. The same object may
  // be returned again once nobody else holds it.
  virtual std::shared_ptr<Work> start(const Call& call) = 0;

  // What this rank sends for `call`, by the formula of the algorithm that `start` would choose.
  virtual Sent volume(const Call& call) const = 0;

  // True where a library does the sending, so that volume() is booked in place of what passed through the transport.
  virtual bool sends_by_itself(const Call& call) const = 0;

  // True where every reduction adds the ranks' elements in the order 0, 1, 2, …: f32 sums have the bits of a serial
  // sum. (In bf16 they are rounded once, at the end.)
  virtual bool sums_in_rank_order() const { return false; }

  // Whether `start` takes tensors of a GPU.
  virtual bool takes_device_memory() const { return false; }
};

// Makes a group's collectives; the transport outlives them.
using CollectivesFactory = std::function<std::unique_ptr<Collectives>(Transport& transport)>;

// Open MPI's own collectives, which need the MPI transport.
CollectivesFactory mpi_collectives();

// NCCL's, for tensors of a GPU; `host` carries everything else, and these tensors too in groups of which several ranks
// use one GPU, if that NCCL does not let them. Throws UserError in programs that were built without NCCL.
CollectivesFactory nccl_collectives(CollectivesFactory host);

}  // namespace ninefold
