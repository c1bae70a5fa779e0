#include "07_context_parallel/layout.h"

#include <algorithm>
#include <numeric>

#include "common/base/check.h"

namespace ninefold {
namespace {

std::vector<int32_t> counting(int64_t count, int64_t first, int64_t stride = 1) {
  std::vector<int32_t> positions(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) positions[static_cast<size_t>(i)] = static_cast<int32_t>(first + i * stride);
  return positions;
}

bool is_zigzag(ContextLayout layout) {
  return layout == ContextLayout::zigzag || layout == ContextLayout::gathered || layout == ContextLayout::hybrid;
}

int usual_neighbours(ContextLayout layout, int ranks) {
  if (layout == ContextLayout::ulysses) return ranks;
  return layout == ContextLayout::hybrid ? std::min(ranks, 2) : 1;
}

}  // namespace

std::string_view name_of(ContextLayout layout) {
  for (const auto& [one, name] : layouts) {
    if (one == layout) return name;
  }
  return "unknown";
}

SequenceLayout::SequenceLayout(ContextLayout of, int count, int neighbours)
    : layout(of), ranks(count), ulysses(neighbours > 0 ? neighbours : usual_neighbours(of, count)) {
  require(ranks % ulysses == 0, "--ulysses ({}) must divide --cp ({})", ulysses, ranks);
  require(layout == ContextLayout::hybrid || ulysses == usual_neighbours(layout, ranks),
          "--ulysses ({}) is for --layout hybrid; with {} leave it out", ulysses, name_of(layout));
}

int64_t SequenceLayout::divisor() const { return std::lcm<int64_t>(ranks, is_zigzag(layout) ? 2 * blocks() : 1); }

void SequenceLayout::validate(int64_t length, int64_t all_heads, int64_t all_kv_heads, int64_t tp) const {
  const int64_t nearest = (length + divisor() - 1) / divisor() * divisor();
  require(length % divisor() == 0,
          "length ({}) must be divisible by {} for the layout {} over cp ({}); try --length {}", length,
          is_zigzag(layout) && divisor() == 2 * ranks ? fmt::format("2 x cp = {}", divisor())
                                                      : fmt::format("{}", divisor()),
          name_of(layout), ranks, nearest);
  const int64_t kv_heads = std::max<int64_t>(all_kv_heads / tp, 1), most = std::gcd<int64_t>(kv_heads, ulysses);
  const std::string of_tp = tp > 1 ? fmt::format(" on each of tp ({}) ranks", tp) : "";
  require(kv_heads % ulysses == 0,
          "the layout {} gives each of {} ranks its own kv-heads, but there are {}{}: at most {} ranks can share them; "
          "for more use {} --cp {}",
          name_of(layout), ulysses, kv_heads, of_tp, kv_heads,
          most > 1 ? fmt::format("--layout hybrid --ulysses {}", most) : "--layout zigzag", ranks);
  require(all_heads / tp % ulysses == 0, "heads ({}{}) must be divisible by the {} ranks that exchange them",
          all_heads / tp, of_tp, ulysses);
}

std::vector<int32_t> SequenceLayout::block_positions(int block, int64_t length) const {
  const int64_t size = length / blocks();
  if (layout == ContextLayout::striped) return counting(size, block, blocks());
  if (!is_zigzag(layout)) return counting(size, block * size);
  std::vector<int32_t> head = counting(size / 2, block * size / 2);
  const std::vector<int32_t> tail = counting(size / 2, length - (block + 1) * size / 2);
  head.insert(head.end(), tail.begin(), tail.end());
  return head;
}

std::vector<int32_t> SequenceLayout::positions(int rank, int64_t length) const {
  const std::vector<int32_t> block = block_positions(rank / ulysses, length);
  const int64_t size = length / ranks;
  const auto begin = block.begin() + rank % ulysses * size;
  return {begin, begin + size};
}

std::vector<int32_t> SequenceLayout::undo(int64_t length) const {
  std::vector<int32_t> place(static_cast<size_t>(length));
  int32_t row = 0;
  for (int rank = 0; rank < ranks; ++rank) {
    for (const int32_t position : positions(rank, length)) place[static_cast<size_t>(position)] = row++;
  }
  return place;
}

int64_t SequenceLayout::multiply_adds(int rank, int64_t length, int64_t heads, int64_t head_dim) const {
  int64_t pairs = 0;
  for (const RingStep& step : ring_plan(*this, rank / ulysses, length)) pairs += step.pairs;
  return 6 * pairs * (heads / ulysses) * head_dim;
}

int64_t visible_pairs(const std::vector<int32_t>& queries, const std::vector<int32_t>& keys) {
  int64_t pairs = 0;
  size_t seen = 0;
  for (const int32_t query : queries) {
    while (seen < keys.size() && keys[seen] <= query) ++seen;
    pairs += static_cast<int64_t>(seen);
  }
  return pairs;
}

std::vector<RingStep> ring_plan(const SequenceLayout& layout, int block, int64_t length) {
  const std::vector<int32_t> queries = layout.block_positions(block, length);
  std::vector<RingStep> plan;
  for (int step = 0; step < layout.blocks(); ++step) {
    const int from = (block - step + layout.blocks()) % layout.blocks();
    plan.push_back({from, visible_pairs(queries, layout.block_positions(from, length)), step + 1 == layout.blocks()});
  }
  return plan;
}

}  // namespace ninefold
