#include "05_tensor_parallel/predict.h"

#include <algorithm>

namespace ninefold {

void LlamaDivision::validate(int ranks, int64_t length) const {
  require(config.heads % ranks == 0, "heads ({}) must be divisible by tp ({})", config.heads, ranks);
  require(config.kv_heads % ranks == 0 || ranks % config.kv_heads == 0,
          "kv-heads ({}) must be divisible by tp ({}), or divide it", config.kv_heads, ranks);
  require(config.ffn % ranks == 0, "ffn ({}) must be divisible by tp ({})", config.ffn, ranks);
  require(!async || sequence_parallel,
          "--async-tp overlaps what sequence parallelism sends; leave it or --no-sequence-parallel out");
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
  const int64_t gathered_again = division.recomputation.saves(SavedOperation::matmul) ? 0 : 2 * again;
  const int64_t summed_again = division.recomputation.saves(SavedOperation::reduce_scatter) ? 0 : again;

  const auto add = [&](Operation operation, int64_t calls, const Volume& volume) {
    if (calls > 0) ledger.predict(group.name(), operation, times * calls, volume);
  };
  const int64_t sums = 4 * config.layers + 2 + summed_again;
  const int64_t gathers = 6 * config.layers + 3 + gathered_again;
  if (!division.sequence_parallel) {
    add(Operation::all_reduce, sums, group.all_reduce_volume(stream, compute));
  } else {
    // In pieces: all but the embedding's two, and the gathers of inputs again, which overlap whole.
    const int64_t whole_gathers = division.async ? 2 * config.layers + 2 : gathers;
    const int64_t whole_sums = division.async ? 1 : sums;
    const Volume piece{1, stream / ranks * size_of(compute)};
    add(Operation::reduce_scatter, whole_sums, group.reduce_scatter_volume(stream, compute));
    add(Operation::all_gather, whole_gathers, group.all_gather_volume(stream, compute));
    add(Operation::send, (sums - whole_sums + gathers - whole_gathers) * (ranks - 1), piece);
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

  double all;              // an activation on its own
  double stream;           // one of the residual stream: a block of its rows under sequence parallelism
  double gathered;         // beside it, for as long as a layer needs it whole
  double heads, kv_heads;  // q, attention's out; k, v
  double ffn;              // gate, up, hidden
  double columns;          // logits of this rank
  double statistics;       // log-sum-exp
  double deviation;        // of a norm

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

// While a row-parallel product becomes its sum over the ranks: the partial sum and, where that is divided, a block of
// rows; in pieces, three of them.
double summed(const PerToken& bytes, const LlamaDivision& division) {
  if (division.async) return 3 * bytes.stream;
  return bytes.all + (division.sequence_parallel ? bytes.stream : 0);
}

// The largest moment of a layer's forward: all that is kept and the sum, beside the feed-forward's input while there is
// no hidden yet, or w2's result.
double in_forward(const PerToken& bytes, const LlamaDivision& division) {
  return bytes.kept() + bytes.stream + std::max(bytes.gathered - bytes.ffn, summed(bytes, division));
}

// The same where the layer runs again later: beside the checkpoint there is only what the forward still needs.
double in_first_forward(const PerToken& bytes, const LlamaDivision& division) {
  const Recomputation& recomputation = division.recomputation;
  const bool has_products = recomputation.saves(SavedOperation::matmul);
  const double attended = recomputation.saves(SavedOperation::reduce_scatter) ? 0 : bytes.stream;
  const double before = checkpoint(bytes, recomputation) + attended + 2 * bytes.stream;  // the norm's result, the sum
  const double gate_and_up = has_products ? 0 : 2 * bytes.ffn;
  return before +
         std::max({gate_and_up + bytes.gathered, gate_and_up + bytes.ffn, bytes.ffn + summed(bytes, division)});
}

// In a layer's backward, beside what is kept.
double in_backward(const PerToken& bytes, const LlamaDivision& division, bool runs_again) {
  const double losses = 4;
  const double again = 2 * bytes.stream + std::max(bytes.gathered - bytes.ffn, 0.0);  // dy, sum; w1's input
  // w2: dy, gathered; in pieces dhidden, too, before hidden goes. w3, w1: dx, and their input or dy; in pieces the
  // block of rows that is being gathered, too.
  const double w2 = bytes.stream + bytes.gathered + (division.async ? bytes.ffn : 0);
  const double dx = 2 * bytes.all - bytes.ffn + (division.async ? bytes.stream : 0);
  const double swiglu = bytes.stream + 2 * bytes.ffn;  // dy; dgate, dup
  return losses + std::max({runs_again ? again : 0, w2, swiglu, dx});
}

// The final norm's input and output, the head, and the loss.
double at_the_end(const PerToken& bytes, const LlamaDivision& division, int64_t n, int64_t e) {
  const double ends = 2 * bytes.stream + bytes.deviation;
  if (!division.loss_parallel) {
    const double gathered_logits =
        static_cast<double>(n) * bytes.columns + static_cast<double>(e * division.config.vocab);
    return ends + bytes.columns + std::max(bytes.gathered, gathered_logits);
  }
  const double statistics = 6 * 4, losses = 4;
  const double dx = division.async ? bytes.gathered + 3 * bytes.stream : bytes.gathered > 0 ? bytes.all : 0;
  const double norm = bytes.stream - bytes.columns + losses;  // its dx, when the logits are gone
  return ends + bytes.columns + std::max({bytes.gathered, statistics, dx + losses, norm});
}

}  // namespace

int64_t activation_bytes(const LlamaDivision& division, int ranks, int64_t tokens, Dtype compute) {
  const PerToken bytes(division, ranks, size_of(compute));
  double held = 0, peak = 0;
  for (int64_t layer = 0; layer < division.config.layers; ++layer) {
    const bool runs_again = division.recomputation.applies_to(layer);
    const double forward = runs_again ? in_first_forward(bytes, division) : in_forward(bytes, division);
    peak = std::max({peak, held + forward, held + bytes.kept() + in_backward(bytes, division, runs_again)});
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
        options.steps == 0 ? 0 : activation_bytes(division, group.size(), tokens, options.precision().compute);
  };
  both.predict_traffic = [=, &parallel](TrafficLedger& ledger, int64_t steps) {
    data.predict_traffic(ledger, steps);
    parallel.predict_traffic(ledger, steps);
    predict_traffic(ledger, group, division, tokens, options.precision().compute, steps * options.micro_batches);
  };
  return both;
}

}  // namespace ninefold
