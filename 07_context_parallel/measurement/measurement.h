// One attention layer, measured: on one rank, and divided over all ranks of a job in some layout.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "07_context_parallel/context_parallel.h"
#include "common/comm/world.h"

namespace ninefold {

struct AttentionProblem {
  int64_t length = 8192, batch = 1, heads = 8, kv_heads = 4, head_dim = 64;
  Dtype dtype = Dtype::f32;
};
std::string to_string(const AttentionProblem& problem);

// Seconds of a forward and a backward on the rank that takes longest, and those of them in which it only waits for
// others.
struct AttentionTimes {
  double seconds = 0, exposed = 0;
};

// Of out, dq, dk, dv.
using AttentionErrors = std::array<double, 4>;

struct AttentionRun {
  std::string name;
  AttentionTimes wall{}, virtual_time{};  // medians; virtual: 0 without a cluster
  // Where there is a ring, what is exposed when its blocks do not travel during the computing.
  bool has_ring = false;
  double wall_without_overlap = 0, virtual_without_overlap = 0;
  // Bytes that rank 0 sends, and whether every rank sends what the formula says.
  int64_t sent_forward = 0, sent_backward = 0;
  bool is_sent_as_predicted = true;
  // Multiply-adds of each rank, from the layout and as executed.
  std::vector<int64_t> predicted{}, counted{};
  // |found - exact| / |exact|, where exact is one rank's in f32; negative where that was not computed.
  AttentionErrors errors{-1, -1, -1, -1};

  // How many times faster than one rank, if a rank's multiply-adds were all its time.
  double speed_up_by_balance() const;
  // The error of one rank in the same type, `own`, bounds it: 1.5 times as much, and 1e-5 for f32.
  bool is_within(const AttentionErrors& own) const;
};

class AttentionMeasurement {
 public:
  // Inputs are random, the same whatever the ranks. All ranks make the same calls.
  AttentionMeasurement(const Group& group, const AttentionProblem& problem, int64_t repetitions);

  // On rank 0, while the others wait; from then on runs are compared with it.
  AttentionRun alone();
  AttentionRun divided(const SequenceLayout& layout, Dtype merge);

 private:
  struct Tensors {
    Tensor q, k, v, dout;
  };
  // What came out of one forward and backward, and its marks on clocks and books.
  struct Once {
    std::array<Tensor, 4> results;  // out, dq, dk, dv
    AttentionTimes wall, virtual_time;
    int64_t sent_forward, sent_backward;
    double flops;
  };
  // The last of several, and the medians of all on the rank that takes longest.
  struct Repeated {
    Once last;
    AttentionTimes wall, virtual_time;
  };
  Once compute(AttentionCore& core, const Tensors& inputs, const std::vector<int32_t>& positions);
  Repeated repeat(AttentionCore& core, const Tensors& inputs, const std::vector<int32_t>& positions);
  void compute_exact();
  bool is_sent_as_predicted(const ContextGroups& groups, const SequenceLayout& layout) const;
  AttentionErrors errors_of(const std::array<Tensor, 4>& results, const std::vector<int32_t>& positions) const;
  // The rows at `positions` of every sequence.
  Tensor rows_of(const Tensor& whole, const std::vector<int32_t>& positions) const;
  double virtual_exposed() const;
  double largest(double value) const;

  Group group_;
  World& world_;
  AttentionProblem problem_;
  int64_t repetitions_;
  Tensors whole_;
  std::array<Tensor, 4> exact_;
};

}  // namespace ninefold
