#include "05_tensor_parallel/plans.h"

#include <array>

namespace ninefold {

std::string_view name_of(Style::Kind kind) {
  constexpr std::array<std::string_view, 5> names = {"column_parallel", "row_parallel", "sequence_parallel",
                                                     "prepare_input", "prepare_input_output"};
  return names[static_cast<size_t>(kind)];
}

Style column_parallel(Layout input, Layout output, int64_t parts) {
  return {.kind = Style::Kind::column_parallel, .input = input, .output = output, .parts = parts};
}

Style row_parallel(Layout input, Layout output) {
  return {.kind = Style::Kind::row_parallel, .input = input, .output = output};
}

Style sequence_parallel() {
  return {.kind = Style::Kind::sequence_parallel, .input = Layout::rows, .output = Layout::rows};
}

Style prepare_input(Layout input) {
  return {.kind = Style::Kind::prepare_input, .input = input, .output = Layout::replicate};
}

Style prepare_input_output(Layout stream) {
  return {.kind = Style::Kind::prepare_input_output, .input = stream, .output = stream};
}

Plan llama_plan(const LlamaConfig& config, bool by_rows, bool loss_parallel) {
  const Layout stream = by_rows ? Layout::rows : Layout::replicate;
  const Layout all = Layout::replicate, own = Layout::columns;
  Plan plan{.entries = {{"tok_embeddings", row_parallel(all, stream)},
                        {"layers.*.attention", prepare_input(stream)},
                        {"layers.*.attention.wq", column_parallel(all, own, config.heads)},
                        {"layers.*.attention.wk", column_parallel(all, own, config.kv_heads)},
                        {"layers.*.attention.wv", column_parallel(all, own, config.kv_heads)},
                        {"layers.*.attention.wo", row_parallel(own, stream)},
                        {"output", column_parallel(stream, loss_parallel ? own : all)}},
            .loss_parallel = loss_parallel,
            .strict = true};
  const auto feed_forward = config.moe.experts > 0
                                ? std::vector<PlanEntry>{{"layers.*.feed_forward", prepare_input_output(stream)}}
                                : std::vector<PlanEntry>{{"layers.*.feed_forward", prepare_input(stream)},
                                                         {"layers.*.feed_forward.w1", column_parallel()},
                                                         {"layers.*.feed_forward.w3", column_parallel()},
                                                         {"layers.*.feed_forward.w2", row_parallel(own, stream)}};
  plan.entries.insert(plan.entries.end() - 1, feed_forward.begin(), feed_forward.end());
  if (!by_rows) return plan;
  for (const char* norm : {"layers.*.attention_norm", "layers.*.ffn_norm", "norm"}) {
    plan.entries.push_back({norm, sequence_parallel()});
  }
  return plan;
}

Plan mlp_plan() {
  return {.entries = {{"fc1", column_parallel()}, {"fc2", row_parallel()}}, .loss_parallel = false, .strict = true};
}

}  // namespace ninefold
