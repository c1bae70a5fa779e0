// When the ranks of a pipeline compute: the spans of a timeline, the time that each action takes, and the bubble. In
// virtual time where there is one, else in wall time.
#pragma once

#include <vector>

#include "common/base/stopwatch.h"
#include "common/base/trace.h"
#include "common/comm/world.h"

namespace ninefold {

// One action of a rank: the forward 'F' of a micro-batch on a stage, its whole backward 'B', or the halves of that, 'I'
// for the gradient of the input and 'W' for those of the weights. Seconds since any moment.
struct Computation {
  int stage;
  char kind;
  int micro_batch;
  double begin, end;
  double seconds() const { return end - begin; }
};

class Computations {
 public:
  explicit Computations(World& world) : world_(world) {}

  void begin_step() { steps_.emplace_back(); }
  // Calls compute() and notes when; its span in a trace is called "2F5" (stage, kind, micro-batch).
  template <typename Compute>
  auto time(int stage, char kind, int micro_batch, const Compute& compute) {
    const Note note(*this, stage, kind, micro_batch);
    return compute();
  }

  // Of the steps after the warm-up, by rank of the group. All its ranks call these.
  using Steps = std::vector<std::vector<Computation>>;
  std::vector<Steps> gather(const Group& group) const;
  // In a step, cost is the longest time of a rank from the start of its first computation to the end of its last, and
  // the bubble is the part of it in which ranks do not compute, on average. The median of the steps.
  double bubble(const Group& group) const;

 private:
  class Note {
   public:
    Note(Computations& computations, int stage, char kind, int micro_batch)
        : computations_(computations),
          computation_{stage, kind, micro_batch, computations.now(), 0},
          span_(computations.world_.device()->trace, "pipeline", "{}{}{}", stage, kind, micro_batch) {}
    ~Note() {
      computation_.end = computations_.now();
      computations_.steps_.back().push_back(computation_);
    }
    Note(const Note&) = delete;
    Note& operator=(const Note&) = delete;

   private:
    Computations& computations_;
    Computation computation_;
    Span span_;
  };
  double now() const;

  World& world_;
  Stopwatch wall_;
  Steps steps_;
};

}  // namespace ninefold
