#include "common/comm/collectives.h"

#include <fmt/format.h>

namespace ninefold {

std::string_view name_of(Operation operation) {
  switch (operation) {
    case Operation::all_reduce:
      return "all_reduce";
    case Operation::all_gather:
      return "all_gather";
    case Operation::reduce_scatter:
      return "reduce_scatter";
    case Operation::broadcast:
      return "broadcast";
    case Operation::reduce:
      return "reduce";
    case Operation::all_to_all:
      return "all_to_all";
    case Operation::send:
      return "send";
    case Operation::recv:
      return "recv";
    case Operation::barrier:
      return "barrier";
    case Operation::control:
      return "control";
  }
  return "unknown";
}

std::string_view name_of(ReduceOp op) {
  switch (op) {
    case ReduceOp::sum:
      return "sum";
    case ReduceOp::avg:
      return "avg";
    case ReduceOp::min:
      return "min";
    case ReduceOp::max:
      return "max";
    case ReduceOp::product:
      return "product";
  }
  return "unknown";
}

namespace {

std::string peer_text(const Call& call) {
  switch (call.operation) {
    case Operation::send:
      return fmt::format(" to rank {} of the group with tag {}", call.peer, call.tag);
    case Operation::recv:
      return fmt::format(" from rank {} of the group with tag {}", call.peer, call.tag);
    case Operation::broadcast:
      return fmt::format(" from rank {} of the group", call.peer);
    case Operation::reduce:
      return fmt::format(" to rank {} of the group", call.peer);
    default:
      return "";
  }
}

}  // namespace

std::string to_string(const Call& call) {
  std::string text(name_of(call.operation));
  if (call.reduces()) text += fmt::format("({})", name_of(call.op));
  if (!call.in_counts.empty()) {
    text += fmt::format(" of {} in uneven parts", name_of(call.tensor().dtype()));
  } else if (call.tensor().defined()) {
    text += fmt::format(" of {} {}", call.tensor().size(), name_of(call.tensor().dtype()));
  }
  return text + peer_text(call);
}

}  // namespace ninefold
