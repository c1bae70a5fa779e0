// The MPI library's own non-blocking collectives.
#include "common/comm/collectives.h"

#include <mpi.h>

#include <climits>

#include "common/comm/mpi/check.h"
#include "common/comm/mpi/transport.h"
#include "common/comm/mpi/volume.h"
#include "common/tensor/ops.h"

namespace ninefold {
namespace {

template <ReduceOp op>
float reduced(float a, float b) {
  if constexpr (op == ReduceOp::min) return b < a ? b : a;
  if constexpr (op == ReduceOp::max) return a < b ? b : a;
  if constexpr (op == ReduceOp::product) return a * b;
  return a + b;
}

// What MPI calls to combine elements of bf16 or f16: each pair is combined in f32 and rounded once.
template <typename T, ReduceOp op>
void reduce_narrow(void* in, void* in_out, int* count, MPI_Datatype*) {
  const T* a = static_cast<const T*>(in);
  T* b = static_cast<T*>(in_out);
  for (int i = 0; i < *count; ++i) b[i] = T(reduced<op>(static_cast<float>(a[i]), static_cast<float>(b[i])));
}

// bf16 or f16 as a type and four operations of MPI, which knows neither.
template <typename T>
class NarrowType {
 public:
  NarrowType() {
    mpi::check(MPI_Type_contiguous(sizeof(T), MPI_BYTE, &type_));
    mpi::check(MPI_Type_commit(&type_));
    mpi::check(MPI_Op_create(reduce_narrow<T, ReduceOp::sum>, 1, &sum_));
    mpi::check(MPI_Op_create(reduce_narrow<T, ReduceOp::min>, 1, &min_));
    mpi::check(MPI_Op_create(reduce_narrow<T, ReduceOp::max>, 1, &max_));
    mpi::check(MPI_Op_create(reduce_narrow<T, ReduceOp::product>, 1, &product_));
  }
  ~NarrowType() {
    for (MPI_Op* op : {&sum_, &min_, &max_, &product_}) MPI_Op_free(op);
    MPI_Type_free(&type_);
  }
  NarrowType(const NarrowType&) = delete;
  NarrowType& operator=(const NarrowType&) = delete;

  MPI_Datatype type() const { return type_; }
  MPI_Op op(ReduceOp op) const {
    return op == ReduceOp::min ? min_ : op == ReduceOp::max ? max_ : op == ReduceOp::product ? product_ : sum_;
  }

 private:
  MPI_Datatype type_;
  MPI_Op sum_, min_, max_, product_;
};

MPI_Op native_op(ReduceOp op) {
  return op == ReduceOp::min ? MPI_MIN : op == ReduceOp::max ? MPI_MAX : op == ReduceOp::product ? MPI_PROD : MPI_SUM;
}

// What MPI is told of a type and an operation on it.
struct TypeAndOp {
  MPI_Datatype type;
  MPI_Op op;
};

class Types {
 public:
  TypeAndOp of(Dtype dtype, ReduceOp op) const {
    if (dtype == Dtype::f32) return {MPI_FLOAT, native_op(op)};
    if (dtype == Dtype::i32) return {MPI_INT32_T, native_op(op)};
    if (dtype == Dtype::bf16) return {bf16_.type(), bf16_.op(op)};
    if (dtype == Dtype::f16) return {f16_.type(), f16_.op(op)};
    return {MPI_BYTE, MPI_OP_NULL};  // the 8-bit floats are not reduced
  }

 private:
  NarrowType<bf16> bf16_;
  NarrowType<f16> f16_;
};

int count_of(int64_t elements) {
  expect(elements <= INT_MAX, "{} elements: MPI takes at most {} a call, so call it for pieces", elements, INT_MAX);
  return static_cast<int>(elements);
}

// Counts and where each rank's part begins, as MPI wants them.
struct Parts {
  std::vector<int> counts, offsets;

  explicit Parts(const std::vector<int64_t>& elements) {
    int64_t offset = 0;
    for (const int64_t count : elements) {
      counts.push_back(count_of(count));
      offsets.push_back(count_of(offset));
      offset += count;
    }
  }
};

class MpiWork : public Work {
 public:
  // Starts the call.
  MpiWork(const Call& call, MPI_Comm communicator, const Types& types)
      : call_(call), communicator_(communicator), in_parts_(call.in_counts), out_parts_(call.out_counts) {
    MPI_Comm_rank(communicator, &rank_);
    MPI_Comm_size(communicator, &size_);
    if (call.tensor().defined()) mpi_ = types.of(call.tensor().dtype(), call.op);
    mpi::check(start());
  }

  bool step() override {
    int done = 0;
    mpi::check(MPI_Test(&request_, &done, MPI_STATUS_IGNORE));
    if (done) finish();
    return done != 0;
  }

 private:
  int start() {
    switch (call_.operation) {
      case Operation::all_reduce:
        return all_reduce();
      case Operation::all_gather:
        return all_gather();
      case Operation::reduce_scatter:
        return reduce_scatter();
      case Operation::broadcast:
        return broadcast();
      case Operation::reduce:
        return reduce();
      case Operation::all_to_all:
        return call_.in_counts.empty() ? all_to_all() : uneven_all_to_all();
      case Operation::barrier:
        return MPI_Ibarrier(communicator_, &request_);
      default:
        expect(false, "{} is not a collective", name_of(call_.operation));
    }
    return MPI_SUCCESS;
  }

  int all_reduce() {
    const void* in = call_.in.raw() == call_.out.raw() ? MPI_IN_PLACE : call_.in.raw();
    return MPI_Iallreduce(in, call_.out.raw(), count_of(call_.out.size()), mpi_.type, mpi_.op, communicator_,
                          &request_);
  }

  int all_gather() {
    const int count = count_of(call_.in.size());
    const char* own_part = static_cast<const char*>(call_.out.raw()) + rank_ * call_.in.bytes();
    const void* in = call_.in.raw() == own_part ? MPI_IN_PLACE : call_.in.raw();
    return MPI_Iallgather(in, count, mpi_.type, call_.out.raw(), count, mpi_.type, communicator_, &request_);
  }

  int reduce_scatter() {
    // MPI forbids that input and output overlap.
    const bool overlap = call_.out.shares_storage_with(call_.in);
    result_ = overlap ? Tensor::empty(call_.out.device(), call_.out.shape(), call_.out.dtype()) : call_.out;
    return MPI_Ireduce_scatter_block(call_.in.raw(), result_.raw(), count_of(call_.out.size()), mpi_.type, mpi_.op,
                                     communicator_, &request_);
  }

  int broadcast() {
    return MPI_Ibcast(call_.out.raw(), count_of(call_.out.size()), mpi_.type, call_.peer, communicator_, &request_);
  }

  int reduce() {
    const void* in = rank_ == call_.peer ? MPI_IN_PLACE : call_.in.raw();
    return MPI_Ireduce(in, call_.out.raw(), count_of(call_.in.size()), mpi_.type, mpi_.op, call_.peer, communicator_,
                       &request_);
  }

  int all_to_all() {
    const int count = count_of(call_.in.size() / size_);
    return MPI_Ialltoall(call_.in.raw(), count, mpi_.type, call_.out.raw(), count, mpi_.type, communicator_, &request_);
  }

  int uneven_all_to_all() {
    return MPI_Ialltoallv(call_.in.raw(), in_parts_.counts.data(), in_parts_.offsets.data(), mpi_.type, call_.out.raw(),
                          out_parts_.counts.data(), out_parts_.offsets.data(), mpi_.type, communicator_, &request_);
  }

  void finish() {
    if (result_.defined() && result_.raw() != call_.out.raw()) ops::copy_(call_.out, result_);
    const bool has_result = call_.operation != Operation::reduce || rank_ == call_.peer;
    if (call_.reduces() && call_.op == ReduceOp::avg && has_result) ops::scale_(call_.out, 1.0f / size_);
  }

  Call call_;
  MPI_Comm communicator_;
  Parts in_parts_, out_parts_;
  int rank_, size_;
  TypeAndOp mpi_ = {MPI_BYTE, MPI_OP_NULL};
  Tensor result_;  // of reduce_scatter
  MPI_Request request_ = MPI_REQUEST_NULL;
};

// One message.
class Message : public Work {
 public:
  Message(const Call& call, Transport& transport) : call_(call), transport_(transport) {
    transfer_ = call.operation == Operation::send
                    ? transport.send(call.in.raw(), call.in.bytes(), call.peer, call.tag)
                    : transport.recv(call.out.raw(), call.out.bytes(), call.peer, call.tag);
  }
  bool step() override { return transport_.test(transfer_); }

 private:
  Call call_;
  Transport& transport_;
  Transfer transfer_;
};

class MpiCollectives : public Collectives {
 public:
  MpiCollectives(mpi::MpiTransport& transport, std::shared_ptr<const Types> types)
      : transport_(transport), types_(std::move(types)) {}

  std::shared_ptr<Work> start(const Call& call) override {
    if (!sends_by_itself(call)) return std::make_unique<Message>(call, transport_);
    return std::make_unique<MpiWork>(call, transport_.communicator(), *types_);
  }

  Sent volume(const Call& call) const override {
    if (sends_by_itself(call)) return mpi::volume_of(call, transport_.size(), transport_.rank());
    Sent sent;
    if (call.operation == Operation::send) sent.add(call.peer, {1, call.in.bytes()});
    return sent;
  }

  bool sends_by_itself(const Call& call) const override {
    return call.operation != Operation::send && call.operation != Operation::recv;
  }

 private:
  mpi::MpiTransport& transport_;
  std::shared_ptr<const Types> types_;
};

}  // namespace

CollectivesFactory mpi_collectives() {
  return [types = std::make_shared<const Types>()](Transport& transport) -> std::unique_ptr<Collectives> {
    auto* mpi_transport = dynamic_cast<mpi::MpiTransport*>(&transport);
    require(mpi_transport != nullptr, "the collectives of MPI need its own transport: choose other --collectives");
    return std::make_unique<MpiCollectives>(*mpi_transport, types);
  };
}

}  // namespace ninefold
