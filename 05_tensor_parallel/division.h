// How a Llama is divided over a group: what a user may decide about tensor parallelism, and the plan that follows.
#pragma once

#include "05_tensor_parallel/plans.h"
#include "common/base/options.h"
#include "common/comm/group.h"
#include "common/nn/recomputation.h"
#include "common/train/options.h"

namespace ninefold {

struct LlamaDivision {
  LlamaConfig config;
  bool sequence_parallel = true, loss_parallel = true, async = false;
  Recomputation recomputation{};
  std::string f8_linears{};  // as Plan's
  LayerSharing sharing{};    // with other ranks: of sequences, and of rows for experts

  // Throws UserError where heads, features or the sequence do not divide over so many ranks. `context`: ranks that
  // share a sequence besides, each with its part of it.
  void validate(int ranks, int64_t length, int64_t context = 1) const;
  Plan plan() const;
};

// What a user decides about products in 8 bits.
struct F8Options {
  std::optional<Dtype> matmul_dtype;
  std::string layers = "layers.*";

  void declare(Options& options);
  // The pattern of Plan::f8_linears. Throws UserError where layers were named for nothing, and where layers compute in
  // f16, whose overflows a scale of each tensor would hide from the scale of the loss.
  std::string pattern(const Options& given, Dtype compute) const;
};

struct TensorParallelOptions {
  bool sequence_parallel = true, loss_parallel = true, async = false;
  F8Options f8;

  // Without --tp, which is declared with the other sizes of the mesh.
  void declare(Options& options);
  // Sentences about options that were given and change nothing on so many ranks. One line each.
  std::string without_effect(int ranks, const Options& given) const;
  // With train.f8_linears, which is f8's pattern.
  LlamaDivision division(const TrainOptions& train) const {
    return {train.llama, sequence_parallel, loss_parallel, async, train.recomputation, train.f8_linears, {}};
  }
};

// A line for groups that communicate slowly in every layer: of more ranks than usually share fast links (8), or on
// several hosts. Empty for others. All ranks of the group call it.
std::string warning_of_slow_links(const Group& group);

}  // namespace ninefold
