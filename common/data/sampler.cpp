#include "common/data/sampler.h"

#include <numeric>

#include "common/base/check.h"
#include "common/base/random.h"

namespace ninefold {

DistributedSampler::DistributedSampler(const SamplerOptions& options, int64_t ranks, int64_t rank)
    : options_(options), ranks_(ranks), rank_(rank) {
  expect(ranks > 0 && rank >= 0 && rank < ranks, "data rank {} of {}", rank, ranks);
  require(options.batch > 0, "batch ({}) must be at least 1", options.batch);
  require(options.batch % ranks == 0, "batch ({}) must be divisible by the data ranks ({})", options.batch, ranks);
  require(options.samples > 0, "the data set has no samples");
  require(!options.drop_last || options.batch <= options.samples,
          "batch ({}) is larger than the data set ({} samples); give a smaller batch or more data", options.batch,
          options.samples);
}

int64_t DistributedSampler::batches_per_epoch() const {
  const int64_t whole = options_.samples / options_.batch;
  return whole + (options_.drop_last || options_.samples % options_.batch == 0 ? 0 : 1);
}

DataPosition DistributedSampler::position_of(int64_t step) const {
  return {.epoch = step / batches_per_epoch(), .index = step % batches_per_epoch()};
}

std::vector<int64_t> DistributedSampler::global_batch(const DataPosition& position) {
  expect(position.epoch >= 0 && position.index >= 0 && position.index < batches_per_epoch(),
         "batch {} of epoch {}, which has {}", position.index, position.epoch, batches_per_epoch());
  const std::vector<int64_t>& order = order_of(position.epoch);
  std::vector<int64_t> batch(options_.batch);
  for (int64_t i = 0; i < options_.batch; ++i) {
    batch[i] = order[(position.index * options_.batch + i) % options_.samples];  // wraps unless drop_last
  }
  return batch;
}

std::vector<int64_t> DistributedSampler::next() {
  const std::vector<int64_t> batch = global_batch(position_);
  const int64_t share = options_.batch / ranks_;
  if (++position_.index == batches_per_epoch()) position_ = {.epoch = position_.epoch + 1, .index = 0};
  return {batch.begin() + rank_ * share, batch.begin() + (rank_ + 1) * share};
}

void DistributedSampler::restore(const DataPosition& position) {
  require(position.epoch >= 0 && position.index >= 0 && position.index < batches_per_epoch(),
          "the data position (epoch {}, batch {}) does not fit: an epoch has {} batches; continue with the same data "
          "and batch",
          position.epoch, position.index, batches_per_epoch());
  position_ = position;
}

const std::vector<int64_t>& DistributedSampler::order_of(int64_t epoch) {
  if (epoch == ordered_epoch_) return order_;
  order_.resize(options_.samples);
  std::iota(order_.begin(), order_.end(), 0);
  if (options_.shuffle) RandomStream(hash_key(options_.seed, "sampler"), epoch).shuffle(order_);
  ordered_epoch_ = epoch;
  return order_;
}

}  // namespace ninefold
