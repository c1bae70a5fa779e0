// Runs a plan: the one executor of all algorithms.
//
// Large chunks are cut into segments. Every segment goes through the plan on its own, a few of them at a time, each in
// its lane: while the next segment arrives, the last one is added, and it is still in the cache when it is.
#pragma once

#include <array>
#include <vector>

#include "01_collectives/executor/layout.h"
#include "01_collectives/plan/placement.h"

namespace ninefold::collectives {

// Segments of one collective that are under way at once. Each has a tag of its own.
inline constexpr int max_lanes = 4;

// The usual segment of algorithms that gain nothing from smaller ones: MPI counts the bytes of a message in an int.
inline constexpr int64_t largest_message = int64_t{1} << 30;
// Chunks are not cut.
inline constexpr int64_t whole_chunks = int64_t{1} << 60;

// Scratch memory for one small call at a time: taking it from the device would last longer than sending the message.
struct SmallScratch {
  static constexpr int64_t size = 4096;
  alignas(64) std::array<std::byte, size> bytes;
  bool is_taken = false;
};

class PlanWork : public Work {
 public:
  // For `call` and those of the same operation, sizes, type and peer, one at a time. Chunks are cut into segments of
  // `segment_bytes`. `plan`, `transport` and `small_scratch` outlive it.
  PlanWork(const Call& call, const PlacedPlan& plan, Transport& transport, SmallScratch& small_scratch,
           int64_t segment_bytes);
  ~PlanWork() override { give_scratch_back(); }
  PlanWork(const PlanWork&) = delete;
  PlanWork& operator=(const PlanWork&) = delete;

  // Starts a call: the first messages are on their way. A collective uses the tags [tag, tag + max_lanes), send and
  // recv use `tag` alone.
  void begin(const Call& call, int tag);
  bool step() override;

 private:
  struct Lane {
    int64_t segment = 0;
    int step = 0;
    int tag = 0;
    bool is_copied = false;  // the chunk that the plan keeps
    std::byte* scratch = nullptr;
    Transfer* transfers = nullptr;  // one for each action of the step
  };

  std::byte* take_scratch(const Call& call);
  void give_scratch_back();
  bool advance(Lane& lane);
  bool transfers_are_done(const Lane& lane);
  void begin_step(Lane& lane);
  void finish_step(const Lane& lane);
  void copy_kept(Lane& lane) const;
  void start(const PlacedAction& action, const Lane& lane, Transfer& transfer);
  void add(const PlacedAction& action, const Lane& lane) const;
  void add_in_rank_order(const std::vector<PlacedAction>& step, const Lane& lane) const;
  void pack(const PlacedAction& action, const Lane& lane, bool unpack) const;

  int64_t segment_size(int chunk, int64_t segment) const;
  int64_t segment_size(Chunks chunks, int64_t segment) const;
  std::byte* address(Place place, int chunk, const Lane& lane) const;
  ReduceOp op_of(const Action& action) const;

  // Of all calls.
  Operation operation_;
  Dtype dtype_;
  const PlacedPlan& plan_;
  Transport& transport_;
  SmallScratch& small_scratch_;
  Layout layout_;
  int64_t segment_;     // elements of a chunk in a segment
  int64_t segments_;    // of the largest chunk
  int64_t lane_count_;  // segment i goes through lane i % lane_count_; the same number on all ranks
  int used_lanes_;      // those with work to do, the first ones
  int64_t slot_bytes_;
  std::vector<Transfer> transfers_;  // of all lanes

  // Of the present call.
  ReduceOp op_ = ReduceOp::sum;
  std::byte *in_address_ = nullptr, *out_address_ = nullptr;
  Tensor scratch_;
  bool has_small_scratch_ = false;
  std::array<Lane, max_lanes> lanes_;
};

// What running the plan sends.
Sent volume_of(const Call& call, const PlacedPlan& plan, int rank, int ranks, int64_t segment_bytes);

}  // namespace ninefold::collectives
