#include "common/comm/mpi/volume.h"

#include <bit>
#include <numeric>

namespace ninefold::mpi {
namespace {

// The largest power of two of the ranks.
int halving_ranks(int ranks) { return static_cast<int>(std::bit_floor(static_cast<unsigned>(ranks))); }

// One rank's part in recursive halving (Rabenseifner 2004), in elements. As many ranks as a power of two has take part.
// The others are the odd ones among the first: each shares its sum with the rank before it, and then has no part in it.
struct Halving {
  Halving(int ranks, int rank, int64_t elements) {
    const int extra = ranks - halving_ranks(ranks);
    is_shared = rank < 2 * extra;
    takes_part = !is_shared || rank % 2 == 0;
    if (is_shared) sent = takes_part ? elements - elements / 2 : elements;
    if (!takes_part) return;
    position = position_of(rank, extra);
    for (int distance = 1; distance < halving_ranks(ranks); distance *= 2) {
      const bool keeps_first_half = (position & distance) == 0;
      kept.push_back(keeps_first_half ? elements / 2 : elements - elements / 2);
      sent += elements - kept.back();
      elements = kept.back();
    }
  }
  static int position_of(int rank, int extra) { return rank < 2 * extra ? rank / 2 : rank - extra; }

  bool is_shared, takes_part;
  int position = 0;  // among those that take part
  int64_t sent = 0;
  std::vector<int64_t> kept;  // after each step
};

// To how many ranks a binomial tree's broadcast makes this one send; the root's position is 0.
int binomial_children(int ranks, int position) {
  int children = 0;
  for (int distance = 1; distance < ranks; distance *= 2)
    children += position < distance && position + distance < ranks;
  return children;
}

// A tree to rank 0 and back, or for much data out of place halving and, in reverse, doubling.
int64_t all_reduce_elements(const Call& call, int ranks, int rank) {
  constexpr int64_t much = 65536;  // bytes
  const int64_t elements = call.in.size();
  const bool in_place = call.in.raw() == call.out.raw();
  if (ranks < 4 || call.in.bytes() < much || in_place || elements < halving_ranks(ranks)) {
    return (rank == 0 ? 0 : elements) + binomial_children(ranks, rank) * elements;
  }
  const Halving halving(ranks, rank, elements);
  const int64_t doubling = std::accumulate(halving.kept.begin(), halving.kept.end(), int64_t{0});
  return halving.sent + doubling + (halving.is_shared && halving.takes_part ? elements : 0);
}

// Halving, then the parts up a tree to the root. For next to no data everyone but the root sends its sum once.
int64_t reduce_elements(int64_t elements, int ranks, int rank, int root) {
  if (ranks <= 2 || elements < halving_ranks(ranks)) return rank == root ? 0 : elements;
  const Halving halving(ranks, rank, elements);
  if (!halving.takes_part) return halving.sent;
  const int extra = ranks - halving_ranks(ranks);
  const bool root_takes_part = root >= 2 * extra || root % 2 == 0;
  if (!root_takes_part && rank == 0) return halving.sent + halving.kept.back();  // the root continues in its place
  const int root_position = root_takes_part ? Halving::position_of(root, extra) : 0;
  for (int step = static_cast<int>(halving.kept.size()) - 1; step >= 0; --step) {
    const int peer = halving.position ^ (1 << step);
    if (peer >> step == root_position >> step) return halving.sent + halving.kept[static_cast<size_t>(step)];
  }
  return halving.sent;
}

// From the root to each of up to four ranks; else down a binomial tree, in which rank 0 stands where the root would.
int64_t broadcast_elements(int64_t elements, int ranks, int rank, int root) {
  if (ranks <= 4) return rank == root ? (ranks - 1) * elements : 0;
  return binomial_children(ranks, rank == root ? 0 : rank == 0 ? root : rank) * elements;
}

int64_t all_to_all_elements(const Call& call, int ranks, int rank) {
  if (call.in_counts.empty()) return call.in.size() / ranks * (ranks - 1);
  return call.in.size() - call.in_counts[static_cast<size_t>(rank)];
}

int64_t elements_sent(const Call& call, int ranks, int rank) {
  switch (call.operation) {
    case Operation::all_reduce:
      return all_reduce_elements(call, ranks, rank);
    case Operation::all_gather:
      return (ranks - 1) * call.in.size();
    case Operation::reduce_scatter:  // everyone's whole up a tree to rank 0, which sends each its part
      return rank == 0 ? (ranks - 1) * call.out.size() : call.in.size();
    case Operation::broadcast:
      return broadcast_elements(call.in.size(), ranks, rank, call.peer);
    case Operation::reduce:
      return reduce_elements(call.in.size(), ranks, rank, call.peer);
    case Operation::all_to_all:
      return all_to_all_elements(call, ranks, rank);
    default:
      return 0;
  }
}

}  // namespace

int64_t bytes_sent(const Call& call, int ranks, int rank) {
  return call.tensor().defined() ? elements_sent(call, ranks, rank) * size_of(call.tensor().dtype()) : 0;
}

}  // namespace ninefold::mpi
