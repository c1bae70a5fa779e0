// Which samples are in which global batch, and which of those belong to which data rank: the distributed sampler.
#pragma once

#include <cstdint>
#include <vector>

namespace ninefold {

struct SamplerOptions {
  int64_t samples = 0;    // in the data set
  int64_t batch = 1;      // samples of a global batch
  bool shuffle = true;    // a new order each epoch; otherwise 0, 1, 2, …
  bool drop_last = true;  // leave out what does not fill a batch; otherwise fill it from the epoch's beginning
  uint64_t seed = 0;
};

// Where a run stands in its data.
struct DataPosition {
  int64_t epoch = 0;
  int64_t index = 0;  // global batches of this epoch already taken
  friend bool operator==(const DataPosition&, const DataPosition&) = default;
};

// The global batch is a pure function of the options and the position. It never depends on the number of ranks: data
// rank r of R takes the r-th contiguous block of batch / R samples.
class DistributedSampler {
 public:
  // Throws UserError if the batch is not divisible by the ranks, or is larger than the data set while `drop_last`.
  DistributedSampler(const SamplerOptions& options, int64_t ranks, int64_t rank);

  int64_t batches_per_epoch() const;
  // The position of the global batch with this number, counted from 0 through all epochs.
  DataPosition position_of(int64_t step) const;

  // The whole global batch at a position, in order.
  std::vector<int64_t> global_batch(const DataPosition& position);
  // This rank's block of the batch at the present position; then moves on.
  std::vector<int64_t> next();

  // The position of the batch that `next` will give. To be kept in checkpoints.
  const DataPosition& position() const { return position_; }
  void restore(const DataPosition& position);

 private:
  const std::vector<int64_t>& order_of(int64_t epoch);

  SamplerOptions options_;
  int64_t ranks_, rank_;
  DataPosition position_;
  std::vector<int64_t> order_;  // of `ordered_epoch_`
  int64_t ordered_epoch_ = -1;
};

}  // namespace ninefold
