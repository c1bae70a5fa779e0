#include "01_collectives/plan/simulate.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>

namespace ninefold::collectives {
namespace {

Version all_ranks(int ranks) {
  Version all(ranks);
  std::iota(all.begin(), all.end(), 0);
  return all;
}

// What a rank has of a chunk before the first step.
Version at_the_beginning(Operation operation, int rank, int chunk, int ranks, int root) {
  switch (operation) {
    case Operation::broadcast:
      return rank == root ? Version{root} : Version{};
    case Operation::all_gather:
      return chunk == rank ? Version{rank} : Version{};
    case Operation::all_to_all:
      return chunk / ranks == rank ? Version{rank} : Version{};
    default:
      return {rank};
  }
}

// Whether a rank needs the chunk in the end, and from whom.
Version at_the_end(Operation operation, int rank, int chunk, int ranks, int root) {
  switch (operation) {
    case Operation::broadcast:
      return {root};
    case Operation::all_gather:
      return {chunk};
    case Operation::all_to_all:
      return chunk % ranks == rank ? Version{chunk / ranks} : Version{};
    case Operation::reduce_scatter:
      return chunk == rank ? all_ranks(ranks) : Version{};
    case Operation::reduce:
      return rank == root ? all_ranks(ranks) : Version{};
    default:
      return all_ranks(ranks);
  }
}

class Simulator {
 public:
  Simulator(Operation operation, const std::vector<Plan>& plans, int root)
      : operation_(operation), plans_(plans), root_(root), ranks_(static_cast<int>(plans.size())) {
    std::vector<std::vector<Version>> held(ranks_);
    for (int rank = 0; rank < ranks_; ++rank) {
      for (int chunk = 0; chunk < plans[0].chunks; ++chunk) {
        held[rank].push_back(at_the_beginning(operation, rank, chunk, ranks_, root));
      }
    }
    result_.held.push_back(std::move(held));
  }

  Simulation run() {
    for (size_t step = 0; step < plans_[0].steps.size(); ++step) {
      step_ = step;
      for (const Plan& plan : plans_) {
        expect(plan.steps.size() == plans_[0].steps.size() && plan.chunks == plans_[0].chunks,
               "the ranks' plans differ in the number of their steps or chunks");
      }
      result_.messages.push_back(messages_of_step());
      std::vector<std::vector<Version>> after = result_.held.back();
      for (int rank = 0; rank < ranks_; ++rank) apply(rank, after[rank]);
      result_.held.push_back(std::move(after));
    }
    for (int rank = 0; rank < ranks_; ++rank) check_result(rank);
    return std::move(result_);
  }

 private:
  const Step& step_of(int rank) const { return plans_[rank].steps[step_]; }

  // How many actions of the rank's step are messages to (or from) the peer with these chunks.
  int64_t matching(int rank, int peer, Chunks chunks, bool is_send) const {
    return std::count_if(step_of(rank).begin(), step_of(rank).end(), [&](const Action& action) {
      return action.peer == peer && action.chunks == chunks && (action.kind == Action::Kind::send) == is_send;
    });
  }

  // Every send meets a receive of the same step, and the other way round.
  std::vector<Message> messages_of_step() const {
    std::vector<Message> messages;
    for (int rank = 0; rank < ranks_; ++rank) {
      for (const Action& action : step_of(rank)) {
        const bool is_send = action.kind == Action::Kind::send;
        expect(matching(rank, action.peer, action.chunks, is_send) == 1 &&
                   matching(action.peer, rank, action.chunks, !is_send) == 1,
               "deadlock: in step {} rank {} {} chunk {} ({} in all) {} rank {}, which does not {} just that",
               step_ + 1, rank, is_send ? "sends" : "receives", action.chunks.first, action.chunks.count,
               is_send ? "to" : "from", action.peer, is_send ? "receive" : "send");
        if (!is_send) messages.push_back({action.peer, rank, action.chunks, action.adds()});
      }
    }
    return messages;
  }

  const Version& held(int rank, int chunk) const { return result_.held.back()[rank][chunk]; }

  void apply(int rank, std::vector<Version>& own) const {
    std::vector<int> collected;
    for (const Action& action : step_of(rank)) {
      for (const int chunk : members(action.chunks, plans_[rank].chunks)) {
        if (action.kind == Action::Kind::send) {
          expect(!held(rank, chunk).empty(), "in step {} rank {} sends chunk {}, which it does not have", step_ + 1,
                 rank, chunk);
        } else if (action.kind == Action::Kind::receive) {
          replace(rank, chunk, held(action.peer, chunk), own[chunk]);
        } else {
          add(rank, chunk, held(action.peer, chunk), own[chunk]);
        }
        if (action.kind == Action::Kind::collect) collected.push_back(chunk);
        if (action.kind == Action::Kind::reduce) check_completion(rank, chunk, own[chunk], action.completes);
      }
    }
    for (const int chunk : collected) {
      std::sort(own[chunk].begin(), own[chunk].end());
      check_completion(rank, chunk, own[chunk], true);
    }
  }

  void replace(int rank, int chunk, const Version& received, Version& own) const {
    for (const Action& action : step_of(rank)) {
      const std::vector<int> sent = members(action.chunks, plans_[rank].chunks);
      const bool conflicts =
          action.kind == Action::Kind::send && std::find(sent.begin(), sent.end(), chunk) != sent.end();
      expect(!conflicts, "in step {} rank {} sends chunk {} while it is replaced", step_ + 1, rank, chunk);
    }
    own = received;
  }

  void add(int rank, int chunk, const Version& received, Version& own) const {
    for (const int contributor : received) {
      const bool is_new = std::find(own.begin(), own.end(), contributor) == own.end();
      expect(is_new || operation_ == Operation::barrier,
             "in step {} rank {} adds the contribution of rank {} to chunk {} a second time", step_ + 1, rank,
             contributor, chunk);
      if (is_new) own.push_back(contributor);
    }
  }

  void check_completion(int rank, int chunk, const Version& own, bool is_marked) const {
    if (operation_ == Operation::barrier) return;
    const bool is_complete = static_cast<int>(own.size()) == ranks_;
    expect(is_complete == is_marked, "in step {} rank {}'s chunk {} has {} of {} contributions, but is marked as {}",
           step_ + 1, rank, chunk, own.size(), ranks_, is_marked ? "complete" : "incomplete");
  }

  void check_result(int rank) const {
    for (int chunk = 0; chunk < plans_[rank].chunks; ++chunk) {
      const Version expected = at_the_end(operation_, rank, chunk, ranks_, root_);
      Version found = held(rank, chunk);
      std::sort(found.begin(), found.end());
      expect(expected.empty() || found == expected, "rank {} ends with chunk {} from ranks {} where {} are expected",
             rank, chunk, fmt::join(found, ", "), fmt::join(expected, ", "));
    }
  }

  Operation operation_;
  const std::vector<Plan>& plans_;
  int root_, ranks_;
  size_t step_ = 0;
  Simulation result_;
};

}  // namespace

Simulation simulate(Operation operation, const std::vector<Plan>& plans, int root) {
  return Simulator(operation, plans, root).run();
}

std::vector<int> members(Chunks chunks, int of) {
  std::vector<int> all;
  for (int i = 0; i < chunks.count; ++i) all.push_back((chunks.first + i) % of);
  return all;
}

}  // namespace ninefold::collectives
