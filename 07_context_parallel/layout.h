// Which rank holds which positions of a sequence. All of it is pure data, the same on every rank: what a rank holds,
// what the causal mask leaves it to compute, and how the rows of all ranks come back into order.
//
// With 4 ranks and 16 positions:
//   contiguous   0000 1111 2222 3333          rank 3 sees everything, rank 0 almost nothing
//   striped      0123 0123 0123 0123          (Brandon et al. 2023, arXiv 2311.09431)
//   zigzag       00 11 22 33 33 22 11 00      a chunk from the head and one from the tail (Zhu 2024,
//   ring-flash-attention)
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace ninefold {

// How attention comes to all keys, and how positions lie for it:
//   contiguous, striped, zigzag   keys travel around a ring
//   gathered                      keys are gathered, positions lie zigzag
//   ulysses                       tokens are exchanged for heads, positions lie contiguous
//   hybrid                        heads among neighbours, a zigzag ring between groups of neighbours
enum class ContextLayout { contiguous, striped, zigzag, gathered, ulysses, hybrid };
inline constexpr std::pair<ContextLayout, std::string_view> layouts[] = {
    {ContextLayout::contiguous, "contiguous"}, {ContextLayout::striped, "striped"}, {ContextLayout::zigzag, "zigzag"},
    {ContextLayout::gathered, "gathered"},     {ContextLayout::ulysses, "ulysses"}, {ContextLayout::hybrid, "hybrid"}};
std::string_view name_of(ContextLayout layout);

// Positions are those of a sequence of `length` tokens, which divisor() divides. Ranks count within the group that
// shares the sequence; `ulysses` neighbours of them make a block, and the blocks a ring.
struct SequenceLayout {
  // Without a third argument: the neighbours are all ranks under ulysses, two under hybrid, and one otherwise. Throws
  // UserError where they do not divide the ranks, or the layout has none.
  SequenceLayout(ContextLayout layout, int ranks, int ulysses = 0);

  ContextLayout layout;
  int ranks;
  int ulysses;

  int blocks() const { return ranks / ulysses; }
  // What a length must be divisible by.
  int64_t divisor() const;
  // Throws UserError where the length does not divide, or the heads do not divide over the neighbours. `tp`: ranks over
  // which the heads are divided already, a kv-head on several of them where there are fewer.
  void validate(int64_t length, int64_t heads, int64_t kv_heads, int64_t tp = 1) const;

  // The positions of a block of the ring, and of a rank, which is its part of a block; ascending.
  std::vector<int32_t> block_positions(int block, int64_t length) const;
  std::vector<int32_t> positions(int rank, int64_t length) const;
  // Undoes the layout: where position i of the sequence lies in the rows of all ranks, one rank after the other.
  std::vector<int32_t> undo(int64_t length) const;

  // The multiply-adds of a forward and a backward of attention on `rank`, of one sequence: 6 products of width
  // head_dim, computing the scores again not counted, for every (query, key) pair that the mask leaves and every head
  // that the rank has.
  int64_t multiply_adds(int rank, int64_t length, int64_t heads, int64_t head_dim) const;
};

// How many (query, key) pairs the causal mask leaves; both ascending.
int64_t visible_pairs(const std::vector<int32_t>& queries, const std::vector<int32_t>& keys);

// What a rank of the ring does at a step: the keys of `block` are there, and so many pairs are left of them; with none
// there is nothing to compute.
struct RingStep {
  int block;
  int64_t pairs;
  bool is_last;  // nobody needs these keys after this
};
// At step s the rank holds the keys of the block s places before its own.
std::vector<RingStep> ring_plan(const SequenceLayout& layout, int block, int64_t length);

}  // namespace ninefold
