#include "01_collectives/benchmark/blocking_mpi.h"

#include <sys/uio.h>
#include <unistd.h>

#include <cstring>

#include "common/comm/control.h"
#include "common/comm/mpi/check.h"
#include "common/comm/mpi/transport.h"
#include "common/tensor/ops.h"

namespace ninefold::collectives {
namespace {

MPI_Comm communicator_of(const Group& group) {
  return dynamic_cast<mpi::MpiTransport&>(group.transport()).communicator();
}

MPI_Datatype type_of(Dtype dtype) {
  return dtype == Dtype::f32 ? MPI_FLOAT : dtype == Dtype::i32 ? MPI_INT32_T : MPI_UINT16_T;
}

MPI_Op op_of(ReduceOp op) {
  return op == ReduceOp::min ? MPI_MIN : op == ReduceOp::max ? MPI_MAX : op == ReduceOp::product ? MPI_PROD : MPI_SUM;
}

// The call with all its arguments.
std::function<void()> prepared(const Group& group, const Call& call) {
  const MPI_Comm communicator = communicator_of(group);
  const MPI_Datatype type = type_of(call.in.dtype());
  const MPI_Op op = op_of(call.op);
  const int size = static_cast<int>(call.in.size()), out_size = static_cast<int>(call.out.size());
  const int part = size / group.size(), root = call.peer;
  void* const out = call.out.raw();
  void* const input = call.in.raw();
  const auto* own_part = static_cast<const std::byte*>(out) + group.rank() * call.in.bytes();
  const void* const in = input == out ? MPI_IN_PLACE : input;
  switch (call.operation) {
    case Operation::all_reduce:
      return [=] { mpi::check(MPI_Allreduce(in, out, size, type, op, communicator)); };
    case Operation::all_gather: {
      const void* const own = input == own_part ? MPI_IN_PLACE : input;
      return [=] { mpi::check(MPI_Allgather(own, size, type, out, size, type, communicator)); };
    }
    case Operation::reduce_scatter:
      if (!call.out.shares_storage_with(call.in)) {
        return [=] { mpi::check(MPI_Reduce_scatter_block(in, out, out_size, type, op, communicator)); };
      }
      // In place, MPI has its result at the beginning of the input.
      return [=, rank = group.rank(), bytes = static_cast<size_t>(call.out.bytes())] {
        mpi::check(MPI_Reduce_scatter_block(MPI_IN_PLACE, input, out_size, type, op, communicator));
        if (rank != 0) std::memcpy(out, input, bytes);
      };
    case Operation::broadcast:
      return [=] { mpi::check(MPI_Bcast(out, size, type, root, communicator)); };
    case Operation::reduce: {
      const void* const own = group.rank() == root ? MPI_IN_PLACE : input;
      return [=] { mpi::check(MPI_Reduce(own, out, size, type, op, root, communicator)); };
    }
    default:
      return [=] { mpi::check(MPI_Alltoall(in, part, type, out, part, type, communicator)); };
  }
}

// The word that stands for a value of one of Open MPI's settings.
std::string word_for(MPI_T_enum words, int value) {
  int count = 0, name_length = 0;
  MPI_T_enum_get_info(words, &count, nullptr, &name_length);
  for (int index = 0; index < count; ++index) {
    char word[64] = "";
    int number = 0, length = sizeof word;
    MPI_T_enum_get_item(words, index, &number, word, &length);
    if (number == value) return word;
  }
  return "unknown";
}

// An integer setting that has words for its values, through MPI's tool interface; "unknown" where there is none.
std::string setting(const char* name) {
  int provided, index, count;
  if (MPI_T_init_thread(MPI_THREAD_SINGLE, &provided) != MPI_SUCCESS) return "unknown";
  std::string text = "unknown";
  MPI_T_cvar_handle handle;
  if (MPI_T_cvar_get_index(name, &index) == MPI_SUCCESS &&
      MPI_T_cvar_handle_alloc(index, nullptr, &handle, &count) == MPI_SUCCESS) {
    int name_length = 0, description_length = 0, verbosity, bind, scope, value = 0;
    MPI_Datatype type;
    MPI_T_enum words = MPI_T_ENUM_NULL;
    MPI_T_cvar_get_info(index, nullptr, &name_length, &verbosity, &type, &words, nullptr, &description_length, &bind,
                        &scope);
    const bool is_integer = type == MPI_INT || type == MPI_UNSIGNED;
    if (is_integer && words != MPI_T_ENUM_NULL && MPI_T_cvar_read(handle, &value) == MPI_SUCCESS) {
      text = word_for(words, value);
    }
    MPI_T_cvar_handle_free(&handle);
  }
  MPI_T_finalize();
  return text;
}

// Whether this process may read a number in the next rank's memory.
bool can_read_neighbour(const Group& group) {
  struct Location {
    pid_t process;
    const int* address;
  };
  const int secret = 1000 + group.rank();
  const int neighbour = (group.rank() + 1) % group.size();
  const Location theirs = control::all_gather(group, Location{getpid(), &secret})[neighbour];
  int found = 0;
  const iovec here{&found, sizeof found}, there{const_cast<int*>(theirs.address), sizeof found};
  const bool copied = process_vm_readv(theirs.process, &here, 1, &there, 1, 0) == sizeof found;
  return control::all_true(group, copied && found == 1000 + neighbour);
}

}  // namespace

std::function<void()> blocking_mpi(const Group& group, const Call& call) {
  if (group.transport().is_timed() || (call.reduces() && size_of(call.in.dtype()) == 2)) return nullptr;
  const std::function<void()> make_call = prepared(group, call);
  const bool has_result = call.operation != Operation::reduce || group.rank() == call.peer;
  if (!call.reduces() || call.op != ReduceOp::avg || !has_result) return make_call;
  return [=, out = call.out, factor = 1.0f / static_cast<float>(group.size())] {
    make_call();
    ops::scale_(out, factor);
  };
}

std::string copy_mechanism(const Group& group) {
  const std::string chosen = setting("btl_vader_single_copy_mechanism");
  const bool readable = can_read_neighbour(group);
  const bool is_cma = chosen == "cma" && readable;
  return fmt::format("{}: Open MPI's btl_vader_single_copy_mechanism is {}, process_vm_readv {} here",
                     is_cma ? "CMA, large messages are copied once" : "not CMA", chosen,
                     readable ? "works" : "is refused");
}

}  // namespace ninefold::collectives
