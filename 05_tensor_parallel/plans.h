// A plan says, by the names of layers, how a model is divided over the ranks of a group. Pure data, to be printed and
// checked before anything is divided.
#pragma once

#include <string>
#include <vector>

#include "05_tensor_parallel/layout.h"
#include "common/nn/llama.h"

namespace ninefold {

// What happens to one layer. Names and layouts as in PyTorch's torch.distributed.tensor.parallel.
struct Style {
  enum class Kind {
    column_parallel,      // a linear layer, cut by output features
    row_parallel,         // a linear layer, cut by input features; an embedding, cut by vocabulary
    sequence_parallel,    // a norm that computes on rows: its weight's gradient is a sum over the ranks
    prepare_input,        // a layer around others: brings them its input in the layout they want
    prepare_input_output  // a layer that every rank computes alike, on all rows: brings it its input, takes its own
                          // rows
  };
  Kind kind;
  // Of the layer's input as it comes, and of what its neighbour takes.
  Layout input = Layout::replicate, output = Layout::replicate;
  // Of column_parallel: the output features are so many equal parts that must not be cut, the heads of an attention.
  // More ranks than parts hold copies of them. 0: every feature is one.
  int64_t parts = 0;

  bool operator==(const Style&) const = default;
};
std::string_view name_of(Style::Kind kind);

Style column_parallel(Layout input = Layout::replicate, Layout output = Layout::columns, int64_t parts = 0);
Style row_parallel(Layout input = Layout::columns, Layout output = Layout::replicate);
Style sequence_parallel();
Style prepare_input(Layout input);
Style prepare_input_output(Layout stream);

struct PlanEntry {
  std::string pattern;  // "layers.*.attention.wq"
  Style style;
};

struct Plan {
  std::vector<PlanEntry> entries;
  // The loss takes the columns of the scores that each rank has.
  bool loss_parallel = false;
  // Rows are gathered and reduced in pieces, while the matmuls beside it compute (pieces.h).
  bool async = false;
  // Layers whose linear layers multiply in 8 bits, and gather what they multiply so: a pattern, as f8_linears.h reads
  // it. Empty: none do.
  std::string f8_linears{};
  // A pattern that matches nothing is an error; otherwise a warning, and the plan goes on without it.
  bool strict = false;
};

// Llama's: heads, features of the feed-forward and vocabulary divided. With sequence parallelism the residual stream
// is divided by rows: an all_gather before each half block, a reduce_scatter after it; without, an all_reduce after it.
// A mixture of experts computes on all rows; who divides its experts is not said here (chapter 08).
Plan llama_plan(const LlamaConfig& config, bool sequence_parallel, bool loss_parallel);
// Two linear layers: the first by output features, the second by input features.
Plan mlp_plan();

}  // namespace ninefold
