#include "common/comm/mpi/volume.h"

#include <bit>
#include <utility>

namespace ninefold::mpi {
namespace {

// The largest power of two of the ranks.
int halving_ranks(int ranks) { return static_cast<int>(std::bit_floor(static_cast<unsigned>(ranks))); }

// What one rank sends, message by message.
class Sender {
 public:
  Sender(int ranks, int rank, int64_t element_bytes) : ranks_(ranks), rank_(rank), element_bytes_(element_bytes) {}

  int ranks() const { return ranks_; }
  int rank() const { return rank_; }
  void send(int peer, int64_t elements, int64_t messages = 1) {
    sent_.add(peer, {messages, elements * element_bytes_});
  }
  void send_to_others(int64_t elements) {
    for (int peer = 0; peer < ranks_; ++peer) {
      if (peer != rank_) send(peer, elements);
    }
  }

  // In a binomial tree rank 0 stands where the root would, and the root where rank 0 would.
  int exchanged(int rank, int root) const { return rank == root ? 0 : rank == 0 ? root : rank; }
  void send_up_the_tree(int64_t elements, int root) {
    const int position = exchanged(rank_, root);
    if (position != 0) send(exchanged(position & (position - 1), root), elements);
  }
  void send_down_the_tree(int64_t elements, int root) {
    const int position = exchanged(rank_, root);
    for (int distance = 1; distance < ranks_; distance *= 2) {
      const bool has_child = position < distance && position + distance < ranks_;
      if (has_child) send(exchanged(position + distance, root), elements);
    }
  }

  Sent sent() && { return std::move(sent_); }

 private:
  int ranks_, rank_;
  int64_t element_bytes_;
  Sent sent_;
};

// One rank's part in recursive halving (Rabenseifner 2004). As many ranks as a power of two has take part. The others
// are the odd ones among the first: each shares its sum with the rank before it, and then has no part in it.
class Halving {
 public:
  Halving(int ranks, int rank)
      : extra_(ranks - halving_ranks(ranks)),
        power_(halving_ranks(ranks)),
        is_shared_(rank < 2 * extra_),
        takes_part_(!is_shared_ || rank % 2 == 0),
        position_(rank < 2 * extra_ ? rank / 2 : rank - extra_) {}

  bool is_shared() const { return is_shared_; }
  bool takes_part() const { return takes_part_; }

  // Each step halves what is left of `elements`.
  void run(Sender& sender, int64_t elements) {
    if (is_shared_ && !takes_part_) sender.send(sender.rank() - 1, elements / 2);
    if (is_shared_) sender.send(sender.rank() + (takes_part_ ? 1 : -1), elements - elements / 2);
    if (!takes_part_) return;
    for (int distance = 1; distance < power_; distance *= 2) {
      const bool keeps_first_half = (position_ & distance) == 0;
      kept_.push_back(keeps_first_half ? elements / 2 : elements - elements / 2);
      sender.send(rank_of(position_ ^ distance), elements - kept_.back());
      elements = kept_.back();
    }
  }
  // The same steps backwards, each with what was left after it.
  void run_backwards(Sender& sender) const {
    for (int step = steps() - 1; step >= 0; --step) sender.send(rank_of(position_ ^ 1 << step), kept_[step]);
  }
  // The parts go up a tree. A root without a part of its own takes over the place of rank 0.
  void gather(Sender& sender, int root) const {
    if (!takes_part_) return;
    const bool root_takes_part = root >= 2 * extra_ || root % 2 == 0;
    if (!root_takes_part && position_ == 0) return sender.send(root, kept_.back());
    const int root_position = !root_takes_part ? 0 : root < 2 * extra_ ? root / 2 : root - extra_;
    for (int step = steps() - 1; step >= 0; --step) {
      const int peer = position_ ^ 1 << step;
      if (peer >> step != root_position >> step) continue;
      return sender.send(!root_takes_part && peer == 0 ? root : rank_of(peer), kept_[step]);
    }
  }

 private:
  int steps() const { return static_cast<int>(kept_.size()); }
  int rank_of(int position) const { return position < extra_ ? 2 * position : position + extra_; }

  int extra_, power_;
  bool is_shared_, takes_part_;
  int position_;               // among those that take part
  std::vector<int64_t> kept_;  // elements, after each step
};

constexpr int64_t much = 65536;  // bytes

// A tree to rank 0 and back, or for much data out of place halving and, in reverse, doubling.
void send_all_reduce(Sender& sender, const Call& call) {
  const int64_t elements = call.in.size();
  const bool in_place = call.in.raw() == call.out.raw();
  if (sender.ranks() < 4 || call.in.bytes() < much || in_place || elements < halving_ranks(sender.ranks())) {
    sender.send_up_the_tree(elements, 0);
    return sender.send_down_the_tree(elements, 0);
  }
  Halving halving(sender.ranks(), sender.rank());
  halving.run(sender, elements);
  halving.run_backwards(sender);
  if (halving.is_shared() && halving.takes_part()) sender.send(sender.rank() + 1, elements);
}

// Halving, then the parts up a tree to the root; for next to no data just the tree. Two ranks send much data in pieces.
void send_reduce(Sender& sender, const Call& call) {
  constexpr int64_t piece = 8192;  // bytes
  const int64_t elements = call.in.size(), bytes = call.in.bytes();
  const int root = call.peer;
  if (sender.ranks() == 2 && bytes >= much) {
    if (sender.rank() != root) sender.send(root, elements, (bytes + piece - 1) / piece);
    return;
  }
  if (sender.ranks() == 2 || elements < halving_ranks(sender.ranks())) return sender.send_up_the_tree(elements, root);
  Halving halving(sender.ranks(), sender.rank());
  halving.run(sender, elements);
  halving.gather(sender, root);
}

// From the root to each of up to four ranks; else down a tree.
void send_broadcast(Sender& sender, int64_t elements, int root) {
  if (sender.ranks() > 4) return sender.send_down_the_tree(elements, root);
  if (sender.rank() == root) sender.send_to_others(elements);
}

// Everyone's whole up a tree to rank 0, which sends each its part.
void send_reduce_scatter(Sender& sender, const Call& call) {
  sender.send_up_the_tree(call.in.size(), 0);
  if (sender.rank() == 0) sender.send_to_others(call.out.size());
}

void send_all_to_all(Sender& sender, const Call& call) {
  if (call.in_counts.empty()) return sender.send_to_others(call.in.size() / sender.ranks());
  for (int peer = 0; peer < sender.ranks(); ++peer) {
    const int64_t elements = call.in_counts[static_cast<size_t>(peer)];
    if (peer != sender.rank() && elements > 0) sender.send(peer, elements);
  }
}

}  // namespace

Sent volume_of(const Call& call, int ranks, int rank) {
  const bool is_made_of_parts = call.operation == Operation::all_gather || call.operation == Operation::all_to_all;
  // Only parts are sent though they are empty.
  if (!call.tensor().defined() || (call.in.size() == 0 && !is_made_of_parts)) return {};
  Sender sender(ranks, rank, size_of(call.tensor().dtype()));
  if (call.operation == Operation::all_reduce) send_all_reduce(sender, call);
  if (call.operation == Operation::all_gather) sender.send_to_others(call.in.size());
  if (call.operation == Operation::reduce_scatter) send_reduce_scatter(sender, call);
  if (call.operation == Operation::broadcast) send_broadcast(sender, call.in.size(), call.peer);
  if (call.operation == Operation::reduce) send_reduce(sender, call);
  if (call.operation == Operation::all_to_all) send_all_to_all(sender, call);
  return std::move(sender).sent();
}

}  // namespace ninefold::mpi
