// A plan is a collective algorithm as data: what one rank does in each step. It sends chunks of the data to other
// ranks, and what it receives replaces its own version of a chunk or is added to it. Plans know neither element types
// nor sizes, so they can be printed, checked without processes (simulate.h), counted, and run (executor/plan_work.h).
#pragma once

#include <functional>
#include <vector>

#include "common/comm/collectives.h"

namespace ninefold::collectives {

// Neighbouring chunks, counted around: after a plan's last chunk comes chunk 0.
struct Chunks {
  int first = 0;
  int count = 1;

  friend bool operator==(const Chunks&, const Chunks&) = default;
};

struct Action {
  enum class Kind {
    send,     // the own version goes to the peer
    receive,  // the peer's version replaces the own one
    reduce,   // the peer's version is added to the own one ("added" stands for whichever ReduceOp)
    collect   // the peer's version is kept apart; at the end of the step, all that were collected and the own one are
              // added in rank order: 0, 1, 2, …
  };

  Kind kind = Kind::send;
  int peer = 0;
  Chunks chunks{};
  bool completes = false;  // the addition is the chunk's last: it now holds the contributions of all ranks

  bool adds() const { return kind == Kind::reduce || kind == Kind::collect; }
};

// How the algorithms write their actions.
inline Action send(Chunks chunks, int to) { return {Action::Kind::send, to, chunks}; }
inline Action receive(Chunks chunks, int from) { return {Action::Kind::receive, from, chunks}; }
inline Action reduce(Chunks chunks, int from, bool completes) {
  return {Action::Kind::reduce, from, chunks, completes};
}
inline Action collect(Chunks chunks, int from) { return {Action::Kind::collect, from, chunks, true}; }

// All transfers of a step are under way at once; additions follow when all of them are complete. So a step may send a
// chunk and add to it, but never send a chunk and replace it.
using Step = std::vector<Action>;

// Step i of a rank exchanges messages with step i of other ranks only. A rank that has nothing to do has an empty step.
struct Plan {
  int chunks = 1;  // how many the data are cut into
  std::vector<Step> steps{};

  Plan& operator+=(const Plan& next) {
    steps.insert(steps.end(), next.steps.begin(), next.steps.end());
    return *this;
  }
};

// The plan with other names for its peers and chunks: how a group of ranks runs an algorithm on a part of the data.
Plan renamed(Plan plan, const std::function<int(int peer)>& peer_of, const std::function<Chunks(Chunks)>& chunks_of);

// `value` counted around: 0 <= wrapped(value, size) < size, for negative values too.
constexpr int wrapped(int value, int size) { return ((value % size) + size) % size; }

// The largest power of two that is not above `value`.
constexpr int power_of_two_below(int value) {
  int power = 1;
  while (2 * power <= value) power *= 2;
  return power;
}

// In an all_to_all, every pair of ranks has a chunk of its own.
constexpr int chunk_between(int from, int to, int ranks) { return from * ranks + to; }

}  // namespace ninefold::collectives
