// A schedule that has been found right, and what follows from its table: where the stages are, which messages go
// between the ranks, and an order in which all actions can happen.
//
// The contract between a schedule and whoever runs it:
//
//   1. A rank does its tasks one after the other.
//   2. Before a task is computed, its own receive and that of the next task have been started: a receive is started one
//      task ahead, so that the message can arrive during a computation, and no earlier, so that a rank never keeps room
//      for more than two messages.
//   3. A task waits for its own message only. Its result is sent as soon as it is there. The sent tensor is let go of
//      once it has been received, and nobody waits for that.
//   4. So a task's send and the next receive are under way together: where two neighbours exchange a forward's
//      activations for a backward's gradient, neither waits for the other. Stages of one rank hand over directly.
//
// As only received data is waited for, a run hangs exactly where the needs of the actions form a cycle, however slow
// the ranks and however synchronous the sends. That is what is checked here. (A rank that waits for each send before it
// goes on hangs in 1F1B: it sends a forward to a neighbour that sends it a backward.)
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "06_pipeline/schedule/schedule.h"

namespace ninefold::pipeline {

struct Message {
  int from = 0;              // rank
  int to = 0;                // rank
  int tag = 0;               // counts the messages from this rank to that one, in the order in which they are sent
  bool is_gradient = false;  // of the sender's input; else the sender's output

  friend bool operator==(const Message&, const Message&) = default;
};

// A cell of the table, and what its rank exchanges for it.
struct Task {
  Action action;
  int column = 0;
  std::optional<Message> receives{};  // before; none where the data is the rank's own
  std::optional<Message> sends{};     // after
};

class CheckedSchedule {
 public:
  // Throws UserError unless, with row and column: every micro-batch has on every stage one forward and one backward (B,
  // or I and W), all on one rank; no action waits for itself through others; and a stage that is ever unsharded is so
  // wherever it computes, and is reduced, if at all, once, after its last gradient. `name` stands for the table.
  explicit CheckedSchedule(const Schedule& schedule, std::string_view name = "the schedule");

  int ranks() const { return static_cast<int>(tasks_.size()); }
  int stages() const { return stages_; }
  int micro_batches() const { return micro_batches_; }

  // What the rank does, in order.
  const std::vector<Task>& tasks(int rank) const { return tasks_.at(rank); }

  // Where the action of a micro-batch stands; nothing where the table has it not.
  std::optional<Place> find(const Action& action) const;
  // I or B of the stage and micro-batch, whichever the table has.
  Action input_gradient(int stage, int micro_batch) const;
  // The rank on which a stage computes a micro-batch. (Where a stage has two copies, that depends on the micro-batch.)
  int rank_of(int stage, int micro_batch) const { return places_.at({stage, Kind::forward, micro_batch}).rank; }
  // The stages of a rank, in the order of the model.
  std::vector<int> stages_of(int rank) const;
  // The ranks that hold a copy of the stage; its gradients are the sum over them.
  std::vector<int> ranks_of(int stage) const;

  // What must be over before the action of a micro-batch can start, beside what stands before it in its row.
  std::vector<Action> needs(const Action& action) const;

  // All tasks in an order in which each comes after those before it in its row and after what it needs.
  struct Turn {
    int rank;
    size_t task;  // index into tasks(rank)
  };
  const std::vector<Turn>& order() const { return order_; }

 private:
  void add(const Action& action, Place place, std::string_view name);
  void connect(Task& task, int rank, std::map<std::pair<int, int>, int>& sent);
  const Task& task_of(const Action& action) const;

  int stages_ = 0, micro_batches_ = 0;
  std::vector<std::vector<Task>> tasks_;
  std::map<Action, Place> places_;  // of the actions of micro-batches
  std::vector<Turn> order_;
};

// "1f1b: 4 ranks, 4 stages, 8 micro-batches".
std::string title_of(const CheckedSchedule& schedule, std::string_view name);

// Throws UserError unless the table is for so many ranks and micro-batches (where they are given): with row and column
// where it has too many.
void require_size(const Schedule& schedule, std::optional<int> ranks, std::optional<int> micro_batches,
                  std::string_view name);

}  // namespace ninefold::pipeline
