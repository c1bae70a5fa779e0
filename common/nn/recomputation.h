// Which layers run their forward again in the backward instead of keeping what it computed (activation checkpointing,
// Chen et al. 2016, arXiv 1604.06174), and which results they keep all the same (selective, Korthikanti et al. 2022,
// arXiv 2205.05198).
#pragma once

#include <cstdint>
#include <set>
#include <string_view>
#include <utility>

namespace ninefold {

// Operations that can be worth keeping: dear to compute, or to communicate, for the bytes of their results. `max` is
// that of a pool's windows, and the largest element that a scale is made of.
enum class SavedOperation { attention, convolution, dropout, matmul, max, reduce_scatter };
inline constexpr std::pair<SavedOperation, std::string_view> saved_operations[] = {
    {SavedOperation::attention, "attention"},
    {SavedOperation::convolution, "convolution"},
    {SavedOperation::dropout, "dropout"},
    {SavedOperation::matmul, "matmul"},
    {SavedOperation::max, "max"},
    {SavedOperation::reduce_scatter, "reduce_scatter"}};

struct Recomputation {
  int64_t every = 0;              // 1: all layers, 3: the third, the sixth and so on; 0: none
  std::set<SavedOperation> save;  // whose results these layers keep beside their input

  // `layer` counts from 0.
  bool applies_to(int64_t layer) const { return every > 0 && (layer + 1) % every == 0; }
  bool saves(SavedOperation operation) const { return save.count(operation) > 0; }
};

}  // namespace ninefold
