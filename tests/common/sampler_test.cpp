#include "common/data/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "common/base/random.h"
#include "tests/support/temporary_folder.h"

namespace ninefold {
namespace {

using Indices = std::vector<int64_t>;

// The batches of one epoch, one after the other, put together from the blocks of all ranks.
Indices epoch_of(const SamplerOptions& options, int64_t ranks, int64_t epoch) {
  std::vector<DistributedSampler> samplers;
  for (int64_t rank = 0; rank < ranks; ++rank) {
    samplers.emplace_back(options, ranks, rank).restore({.epoch = epoch, .index = 0});
  }
  Indices all;
  for (int64_t batch = 0; batch < samplers[0].batches_per_epoch(); ++batch) {
    for (DistributedSampler& sampler : samplers) {
      const Indices block = sampler.next();
      EXPECT_EQ(static_cast<int64_t>(block.size()), options.batch / ranks);
      all.insert(all.end(), block.begin(), block.end());
    }
  }
  return all;
}

Indices sorted(Indices indices) {
  std::sort(indices.begin(), indices.end());
  return indices;
}

Indices counting(int64_t count) {
  Indices indices(count);
  std::iota(indices.begin(), indices.end(), 0);
  return indices;
}

TEST(Sampler, EverySampleOnceAnEpochForAnyNumberOfRanks) {
  const SamplerOptions options{.samples = 96, .batch = 12, .seed = 5};
  const Indices serial = epoch_of(options, 1, 0);
  EXPECT_EQ(sorted(serial), counting(96));
  EXPECT_NE(serial, counting(96));
  for (const int64_t ranks : {2, 3, 4, 6, 12}) EXPECT_EQ(epoch_of(options, ranks, 0), serial) << ranks << " ranks";
}

TEST(Sampler, DiffersByEpochAndSeedAndOnlyThere) {
  const SamplerOptions options{.samples = 96, .batch = 12, .seed = 5};
  EXPECT_EQ(epoch_of(options, 2, 1), epoch_of(options, 2, 1));
  EXPECT_NE(epoch_of(options, 2, 1), epoch_of(options, 2, 0));
  SamplerOptions other = options;
  other.seed = 6;
  EXPECT_NE(epoch_of(other, 2, 0), epoch_of(options, 2, 0));
}

TEST(Sampler, WithoutShufflingInOrder) {
  EXPECT_EQ(epoch_of({.samples = 10, .batch = 5, .shuffle = false}, 1, 3), counting(10));
}

TEST(Sampler, TheLastIncompleteBatchIsDroppedOrFilled) {
  SamplerOptions options{.samples = 10, .batch = 4, .shuffle = false};
  EXPECT_EQ(epoch_of(options, 2, 0), counting(8));
  options.drop_last = false;
  EXPECT_EQ(epoch_of(options, 2, 0), (Indices{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1}));
  // More than once around, where the set is smaller than a batch.
  EXPECT_EQ(epoch_of({.samples = 3, .batch = 8, .shuffle = false, .drop_last = false}, 2, 0),
            (Indices{0, 1, 2, 0, 1, 2, 0, 1}));
}

TEST(Sampler, ContinuesWhereItWasRestored) {
  const SamplerOptions options{.samples = 50, .batch = 10, .seed = 1};
  DistributedSampler straight(options, 2, 1);
  for (int i = 0; i < 7; ++i) straight.next();
  EXPECT_EQ(straight.position(), (DataPosition{1, 2}));
  EXPECT_EQ(straight.position(), straight.position_of(7));
  DistributedSampler resumed(options, 2, 1);
  resumed.restore(straight.position());
  for (int i = 0; i < 10; ++i) EXPECT_EQ(resumed.next(), straight.next());
}

TEST(Sampler, TheGlobalBatchIsAFunctionOfThePosition) {
  const SamplerOptions options{.samples = 50, .batch = 10, .seed = 1};
  DistributedSampler forward(options, 1, 0), jumping(options, 5, 2);
  for (int step = 0; step < 12; ++step) {
    const Indices batch = forward.next();
    jumping.global_batch({.epoch = 9, .index = 0});
    EXPECT_EQ(jumping.global_batch(jumping.position_of(step)), batch);
  }
}

TEST(Sampler, RefusesWhatDoesNotFit) {
  EXPECT_EQ(sentence_of([] { DistributedSampler({.samples = 10, .batch = 5}, 2, 0); }),
            "batch (5) must be divisible by the data ranks (2)");
  EXPECT_EQ(sentence_of([] { DistributedSampler({.samples = 10, .batch = 12}, 2, 0); }),
            "batch (12) is larger than the data set (10 samples); give a smaller batch or more data");
  EXPECT_EQ(sentence_of([] { DistributedSampler({.samples = 10, .batch = 0}, 1, 0); }), "batch (0) must be at least 1");
  EXPECT_NE(sentence_of([] {
              DistributedSampler({.samples = 10, .batch = 5}, 1, 0).restore({.epoch = 0, .index = 2});
            }).find("an epoch has 2 batches"),
            std::string::npos);
}

TEST(Random, IsTheSameInEveryRelease) {
  EXPECT_EQ(hash_key(0, ""), 0x5b21f68ffa77f14cu);
  EXPECT_EQ(hash_key(42, "layers.0.attention.wq.weight"), 0x176f984953d5fca5u);
  RandomStream stream(1, 2);
  EXPECT_EQ(stream.next(), 0x8cedc5d3e73404cfu);
  EXPECT_EQ(stream.next(), 0xa0afddd3f071736u);
  EXPECT_EQ(stream.next(), 0xdb04b052b7b4c173u);
}

TEST(Random, KeysAndStreamsDiffer) {
  EXPECT_NE(hash_key(1, "a"), hash_key(2, "a"));
  EXPECT_NE(hash_key(1, "a"), hash_key(1, "b"));
  EXPECT_NE(RandomStream(1, 0).next(), RandomStream(1, 1).next());
  EXPECT_NE(RandomStream(1, 0).next(), RandomStream(2, 0).next());
}

TEST(Random, BelowIsEvenlySpread) {
  RandomStream stream(3);
  constexpr int bound = 6, draws = 60'000;
  std::vector<int> counts(bound);
  for (int i = 0; i < draws; ++i) ++counts.at(stream.below(bound));
  for (const int count : counts) EXPECT_NEAR(count, draws / bound, 500);  // 5.5 standard deviations
  EXPECT_EQ(stream.below(1), 0u);
  double sum = 0;
  for (int i = 0; i < draws; ++i) sum += stream.uniform();
  EXPECT_NEAR(sum / draws, 0.5, 0.006);
}

TEST(Random, ShufflesReachEveryOrderEvenly) {
  std::vector<int> counts(27);
  for (uint64_t i = 0; i < 6000; ++i) {
    std::vector<int> items = {0, 1, 2};
    RandomStream(7, i).shuffle(items);
    ++counts.at(items[0] * 9 + items[1] * 3 + items[2]);
  }
  EXPECT_EQ(std::count(counts.begin(), counts.end(), 0), 21);
  for (const int count : counts) EXPECT_TRUE(count == 0 || std::abs(count - 1000) < 160) << count;
}

}  // namespace
}  // namespace ninefold
