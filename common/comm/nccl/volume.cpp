#include "common/comm/nccl/volume.h"

#include "common/comm/traffic.h"

namespace ninefold::nccl {
namespace {

void add_all_to_all(Sent& sent, const Call& call, int ranks, int rank) {
  const int64_t width = size_of(call.in.dtype());
  for (int peer = 0; peer < ranks; ++peer) {
    const int64_t elements =
        call.in_counts.empty() ? call.in.size() / ranks : call.in_counts[static_cast<size_t>(peer)];
    if (peer != rank && elements > 0) sent.add(peer, {1, elements * width});
  }
}

}  // namespace

Sent volume_of(const Call& call, int ranks, int rank) {
  Sent sent;
  if (!call.tensor().defined() || call.tensor().size() == 0) return sent;
  const Dtype dtype = call.tensor().dtype();
  const int next = (rank + 1) % ranks;
  switch (call.operation) {
    case Operation::all_reduce:
      sent.add(next, {2 * (ranks - 1), formula::all_reduce_bytes(ranks, call.in.size(), dtype)});
      break;
    case Operation::all_gather:
      sent.add(next, {ranks - 1, formula::all_gather_bytes(ranks, call.out.size(), dtype)});
      break;
    case Operation::reduce_scatter:
      sent.add(next, {ranks - 1, formula::reduce_scatter_bytes(ranks, call.in.size(), dtype)});
      break;
    case Operation::broadcast:  // the last one has nobody to hand it on to
      if (next != call.peer) sent.add(next, {1, call.out.bytes()});
      break;
    case Operation::reduce:  // the ring ends at the root
      if (rank != call.peer) sent.add(next, {1, call.in.bytes()});
      break;
    case Operation::all_to_all:
      add_all_to_all(sent, call, ranks, rank);
      break;
    case Operation::send:
      sent.add(call.peer, {1, call.in.bytes()});
      break;
    default:
      break;
  }
  return sent;
}

}  // namespace ninefold::nccl
