#include "05_tensor_parallel/predict.h"

#include <algorithm>

namespace ninefold {

void LlamaDivision::validate(int ranks, int64_t length) const {
  require(config.heads % ranks == 0, "heads ({}) must be divisible by tp ({})", config.heads, ranks);
  require(config.kv_heads % ranks == 0 || ranks % config.kv_heads == 0,
          "kv-heads ({}) must be divisible by tp ({}), or divide it", config.kv_heads, ranks);
  require(config.ffn % ranks == 0, "ffn ({}) must be divisible by tp ({})", config.ffn, ranks);
  require(!sequence_parallel || length % ranks == 0,
          "length ({}) must be divisible by tp ({}), because sequence parallelism divides the tokens; or add "
          "--no-sequence-parallel",
          length, ranks);
}

void predict_traffic(TrafficLedger& ledger, const Group& group, const LlamaDivision& division, int64_t tokens,
                     Dtype compute, int64_t times) {
  if (group.size() == 1) return;
  const LlamaConfig& config = division.config;
  const int64_t stream = tokens * config.dim, ranks = group.size();
  int64_t again = 0;  // layers that run their forward again
  for (int64_t layer = 0; layer < config.layers; ++layer) again += division.recomputation.applies_to(layer);
  const int64_t summed_again = division.recomputation.saves(SavedOperation::reduce_scatter) ? 0 : again;

  const auto add = [&](Operation operation, int64_t calls, const Volume& volume) {
    ledger.predict(group.name(), operation, times * calls, times * calls * volume.bytes);
  };
  const int64_t sums = 4 * config.layers + 2 + summed_again;
  if (division.sequence_parallel) {
    add(Operation::reduce_scatter, sums, group.reduce_scatter_volume(stream, compute));
    add(Operation::all_gather, 6 * config.layers + 3 + 2 * again, group.all_gather_volume(stream, compute));
  } else {
    add(Operation::all_reduce, sums, group.all_reduce_volume(stream, compute));
  }
  if (division.loss_parallel) {
    add(Operation::all_reduce, 3, group.all_reduce_volume(tokens, Dtype::f32));
  } else {
    const int64_t width = (config.vocab + ranks - 1) / ranks;
    add(Operation::all_gather, 1, group.all_gather_volume(tokens * ranks * width, compute));
  }
}

namespace {

// Bytes a token, on one of n ranks.
struct PerToken {
  PerToken(const LlamaDivision& division, int64_t n, int64_t e)
      : all(e * division.config.dim),
        stream(division.sequence_parallel ? all / n : all),
        gathered(division.sequence_parallel ? all : 0),
        heads(all / n),
        kv_heads(e * std::max(division.config.kv_heads / n, int64_t{1}) * division.config.head_dim()),
        ffn(e * division.config.ffn / n),
        columns(e * ((division.config.vocab + n - 1) / n)),
        statistics(4 * division.config.heads / n),
        deviation(division.sequence_parallel ? 4 / static_cast<double>(n) : 4) {}

  double all;               // an activation on its own
  double stream;            // one of the residual stream: a block of its rows under sequence parallelism
  double gathered;          // beside it, for as long as a layer needs it whole
  double heads, kv_heads;   // q, attention's out; k, v
  double ffn;               // gate, up, hidden
  double columns;           // logits of this rank
  double statistics;        // log-sum-exp
  double deviation;         // of a norm

  // What a layer's backward needs.
  double kept() const { return 4 * stream + 2 * heads + 2 * kv_heads + 3 * ffn + statistics + 2 * deviation; }
};

double checkpoint(const PerToken& bytes, const Recomputation& recomputation) {
  double kept = bytes.stream;
  if (recomputation.saves(SavedOperation::matmul)) kept += bytes.heads + 2 * bytes.kv_heads + 2 * bytes.ffn;
  if (recomputation.saves(SavedOperation::attention)) kept += bytes.heads + bytes.statistics;
  if (recomputation.saves(SavedOperation::reduce_scatter)) kept += bytes.stream;
  return kept;
}

// At the end of a layer's forward, beside what is kept: the sum, w2's input, its partial sum, and that reduced.
double end_of_forward(const PerToken& bytes) {
  return bytes.stream + bytes.gathered + bytes.all + (bytes.gathered > 0 ? bytes.stream : 0);
}

// The same where only a checkpoint is kept: attention's result, the norm's, and hidden are there too.
double end_of_first_forward(const PerToken& bytes, const Recomputation& recomputation) {
  const double attended = recomputation.saves(SavedOperation::reduce_scatter) ? 0 : bytes.stream;
  return checkpoint(bytes, recomputation) + attended + bytes.stream + bytes.ffn + end_of_forward(bytes);
}

// In a layer's backward, beside what is kept.
double in_backward(const PerToken& bytes, bool runs_again) {
  const double again = 2 * bytes.stream + bytes.gathered + 4;  // the end of the second forward: sum, dy, input; losses
  return std::max({runs_again ? again : 0,                     //
                   bytes.stream + 2 * bytes.ffn + 4,           // dy; dgate, dup
                   2 * bytes.all - bytes.ffn + 4,              // w3's and w1's dx, and their input or dy
                   bytes.stream + bytes.gathered + 4});        // dy, gathered
}

// The final norm's input and output, the head, and the loss.
double at_the_end(const PerToken& bytes, const LlamaDivision& division, int64_t n, int64_t e) {
  const double ends = 2 * bytes.stream + bytes.deviation;
  if (!division.loss_parallel) {
    const double gathered_logits = static_cast<double>(n) * bytes.columns + static_cast<double>(e * division.config.vocab);
    return ends + bytes.gathered + bytes.columns + gathered_logits;
  }
  const double statistics = 6 * 4;
  const double dx = bytes.gathered > 0 ? bytes.all : 0;
  const double norm = bytes.stream - bytes.columns + 4;  // its dx, when the logits are gone
  return ends + bytes.columns + std::max({bytes.gathered, statistics, dx + 4, norm});
}

}  // namespace

int64_t activation_bytes(const LlamaDivision& division, int ranks, int64_t tokens, Dtype compute) {
  const PerToken bytes(division, ranks, size_of(compute));
  double held = 0, peak = 0;
  for (int64_t layer = 0; layer < division.config.layers; ++layer) {
    const bool runs_again = division.recomputation.applies_to(layer);
    const double forward = runs_again ? end_of_first_forward(bytes, division.recomputation)
                                      : bytes.kept() + end_of_forward(bytes);
    peak = std::max({peak, held + forward, held + bytes.kept() + in_backward(bytes, runs_again)});
    held += runs_again ? checkpoint(bytes, division.recomputation) : bytes.kept();
  }
  const double most = std::max(peak, held + at_the_end(bytes, division, ranks, size_of(compute)));
  return static_cast<int64_t>(most * static_cast<double>(tokens));
}

double extra_flops(const LlamaDivision& division, int ranks, int64_t tokens) {
  const LlamaConfig& config = division.config;
  const Recomputation& recomputation = division.recomputation;
  const int64_t copies = std::max<int64_t>(ranks / config.kv_heads, 1) - 1;
  const int64_t copied = 2 * copies * config.kv_dim() * config.dim, wo = config.dim * config.dim;
  const int64_t padding = ((config.vocab + ranks - 1) / ranks * ranks - config.vocab) * config.dim;
  int64_t again = 0;  // in a layer that runs again
  if (!recomputation.saves(SavedOperation::matmul)) again += copied;
  // wo is kept where its reduced result is, not with the other products.
  again += wo * (recomputation.saves(SavedOperation::matmul) - recomputation.saves(SavedOperation::reduce_scatter));
  int64_t flops = 6 * padding;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    flops += 6 * copied + (recomputation.applies_to(layer) ? 2 * again : 0);
  }
  return static_cast<double>(flops * tokens);
}

Parallelism beside(Parallelism data, const TensorParallel& parallel, const Group& group, const LlamaDivision& division,
                   const TrainOptions& options) {
  if (group.size() == 1) return data;
  Parallelism both = data;
  both.numerics = Numerics::bounded;
  both.reduce_gradients = [data, &parallel] {
    data.reduce_gradients();
    parallel.reduce_gradients();
  };
  const int64_t tokens = options.micro_batch * options.length;
  both.predict_flops = [=](double flops) {
    return data.predict_flops(flops) + extra_flops(division, group.size(), options.batch * options.length);
  };
  both.predict_memory = [=](MemoryByKind& bytes) {
    data.predict_memory(bytes);
    bytes[static_cast<size_t>(MemoryKind::activations)] =
        options.steps == 0 ? 0 : activation_bytes(division, group.size(), tokens, options.dtype);
  };
  both.predict_traffic = [=, &parallel](TrafficLedger& ledger, int64_t steps) {
    data.predict_traffic(ledger, steps);
    parallel.predict_traffic(ledger, steps);
    predict_traffic(ledger, group, division, tokens, options.dtype, steps * options.micro_batches);
  };
  return both;
}

}  // namespace ninefold
