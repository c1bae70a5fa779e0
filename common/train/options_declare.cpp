// What programs ask their users: the names, defaults and words of --help.
#include "common/train/options.h"

namespace ninefold {

void TrainOptions::declare(Options& options) {
  declare_run(options);
  declare_llama(options);
  declare_optimizer(options);
  declare_report(options);
  declare_checkpoint(options);
}

void TrainOptions::declare_run(Options& options) {
  options.group("Run");
  options.add_choice<DeviceType>("--device", device,
                                 {{"cpu", DeviceType::cpu}, {"cuda", DeviceType::cuda}, {"meta", DeviceType::meta}},
                                 "where tensors live: cuda is a GPU a rank; meta has shapes only and counts bytes");
  const std::vector<std::pair<std::string, Dtype>> types = {
      {"f32", Dtype::f32}, {"bf16", Dtype::bf16}, {"f16", Dtype::f16}};
  options.add_choice<Dtype>("--dtype", dtype, types,
                            "type of parameters and activations; bf16 and f16 keep f32 master values");
  options.add_choice<Dtype>("--grad-dtype", grad_dtype, types,
                            "type of the parameters' gradients; f16 keeps them in f32");
  options.add("--seed", seed, "of initial values, order of the data and dropout");
  options.add("--threads", threads,
              "of each rank, for matmul and convolution; attention and the other operations run on one",
              {.minimum = 1, .maximum = 1024});
  options.add("--memory-limit", memory_limit, "most bytes of a rank, such as 1GB: it refuses to hold more");
  options.group("Batch");
  options.add("--steps", steps, "optimizer steps", {.minimum = 0});
  options.add("--batch", batch, "global batch", {.minimum = 1, .unit = "samples"});
  options.add("--micro-batch", micro_batch, "samples in one forward; 0: all of a rank's batch",
              {.minimum = 0, .unit = "samples"});
  options.add("--micro-batches", micro_batches, "forwards of each rank a step; 0: as many as --micro-batch makes",
              {.minimum = 0});
  options.add("--data", data, "training data");
}

void TrainOptions::declare_cuda_graph(Options& options) {
  options.add(
      "--cuda-graph", cuda_graph,
      "note a micro-batch's kernels once, and let the GPU repeat them by itself; gradients leave after the backward");
}

void TrainOptions::declare_llama(Options& options) {
  options.group("Model");
  options.add("--length", length, "sequence length", {.minimum = 1, .unit = "tokens"});
  options.add("--layers", llama.layers, "transformer blocks", {.minimum = 1});
  options.add("--dim", llama.dim, "model width", {.minimum = 1});
  options.add("--heads", llama.heads, "query heads", {.minimum = 1});
  options.add("--kv-heads", llama.kv_heads, "key and value heads", {.minimum = 1});
  options.add("--ffn", llama.ffn, "feed-forward width", {.minimum = 1});
  options.add("--vocab", llama.vocab, "vocabulary", {.minimum = 1, .unit = "tokens"});
  options.add("--rope-theta", llama.rope_theta, "base of the rotary positions", {.minimum = 1});
  options.add("--tied-embeddings", llama.tied_embeddings, "the output layer uses the embedding's table");
  options.add("--norm-eps", llama.norm_eps, "added to the mean square in norms", {.minimum = 0});
}

void TrainOptions::declare_moe(Options& options) {
  MoeConfig& moe = llama.moe;
  options.group("Mixture of experts");
  options.add("--experts", moe.experts, "feed-forwards in each block, each --ffn wide; 0: one for all tokens",
              {.minimum = 0});
  options.add("--top-k", moe.top_k, "experts that a token visits", {.minimum = 1});
  options.add("--shared-experts", moe.shared_experts, "experts that every token visits besides", {.minimum = 0});
  options.add("--capacity-factor", capacity_factor,
              "tokens of a sequence that an expert takes, in units of an even share; auto: all that choose it",
              {.minimum = 0.01, .may_be_auto = true});
  options.add("--dropless", dropless, "no expert leaves a token out, as without --capacity-factor");
  options.add_choice<DropPolicy>("--token-drop-policy", moe.drop_policy,
                                 {{"position", DropPolicy::position}, {"probs", DropPolicy::probs}},
                                 "whom a full expert leaves out: the last of the sequence, or the lowest gates");
  options.add_choice<RouterKind>(
      "--router", moe.router,
      {{"softmax", RouterKind::softmax}, {"topk_softmax", RouterKind::topk_softmax}, {"sigmoid", RouterKind::sigmoid}},
      "scores: softmax over all experts, over the chosen ones, or a sigmoid of each");
  options.add_choice<Balance>(
      "--balance", moe.balance, {{"none", Balance::none}, {"auxiliary", Balance::auxiliary}, {"bias", Balance::bias}},
      "what keeps experts evenly loaded: nothing, a loss, or a bias that moves against the load");
  options.add_choice<BalanceScope>(
      "--balance-scope", moe.balance_scope, {{"sequence", BalanceScope::sequence}, {"batch", BalanceScope::batch}},
      "of what the balancing loss is a mean: each sequence, or each forward as in transformers");
  options.add("--balance-coefficient", moe.balance_coefficient, "of the balancing loss", {.minimum = 0});
  options.add("--bias-update-rate", moe.bias_update_rate, "by which a bias moves each step", {.minimum = 0});
  options.add("--z-loss-coefficient", moe.z_loss_coefficient, "of the router's mean squared log-sum-exp",
              {.minimum = 0});
}

void TrainOptions::declare_optimizer(Options& options) {
  options.group("Optimizer");
  options.add_choice<OptimizerKind>(
      "--optimizer", optimizer.kind,
      {{"adamw", OptimizerKind::adamw}, {"adadelta", OptimizerKind::adadelta}, {"sgd", OptimizerKind::sgd}},
      "update rule");
  options.add("--lr", schedule.lr, "learning rate after the warm-up", {.minimum = 0});
  options.add("--min-lr", schedule.min_lr, "floor of the cosine; auto: a tenth of --lr",
              {.minimum = 0, .may_be_auto = true});
  options.add("--gamma", gamma, "by which the learning rate is multiplied after each epoch", {.minimum = 0});
  options.add("--warmup", schedule.warmup, "linear warm-up", {.minimum = 0, .unit = "steps"});
  options.add("--constant-steps", schedule.constant_steps, "tail at the floor", {.minimum = 0, .unit = "steps"});
  options.add("--beta1", optimizer.beta1, "decay of AdamW's first moment", {.minimum = 0, .maximum = 1});
  options.add("--beta2", optimizer.beta2, "decay of AdamW's second moment", {.minimum = 0, .maximum = 1});
  options.add("--eps", optimizer.eps, "added to denominators", {.minimum = 0});
  options.add("--momentum", optimizer.momentum, "of SGD", {.minimum = 0, .maximum = 1});
  options.add("--weight-decay", optimizer.weight_decay, "of matrices; norms and biases do not decay", {.minimum = 0});
  options.add("--clip", clip, "largest norm of the gradient; 0: no clipping", {.minimum = 0});
  options.group("Loss scaling (f16)");
  options.add("--init-scale", loss_scaling.init_scale, "the backward starts from the loss times this", {.minimum = 1});
  options.add("--growth-factor", loss_scaling.growth_factor, "of the scale, after --growth-interval steps",
              {.minimum = 1});
  options.add("--backoff-factor", loss_scaling.backoff_factor,
              "of the scale, after an overflow on any rank; that step is skipped", {.minimum = 0.001, .maximum = 1});
  options.add("--growth-interval", loss_scaling.growth_interval, "without an overflow",
              {.minimum = 1, .unit = "steps"});
}

void TrainOptions::declare_report(Options& options) {
  options.group("Check and report");
  options.add(
      "--check", check,
      "compare with the serial model in the first three steps and the last; off by default above 50 M parameters");
  options.add("--measure-peak", measure_peak, "measure the matmul peak before and after");
  options.add("--eval-every", eval_every, "evaluate after so many steps; 0: never", {.minimum = 0, .unit = "steps"});
  options.add("--eval-batches", eval_batches, "global batches of an evaluation", {.minimum = 1});
  options.add("--log-every", log_every, "a line each so many steps", {.minimum = 1, .unit = "steps"});
  options.add("--verbose", verbose, "print every parameter and where it lives");
  options.add("--report", report, "write the results as JSON to this file");
  options.add("--trace", trace, "write a timeline for Perfetto or chrome://tracing to this file");
  options.group("Communication");
  options.add_choice("--collectives", collectives, {"ours", "ordered", "mpi", "nccl"},
                     "chapter 01's fastest, chapter 01's that add in rank order, the MPI library's, or NCCL's, which "
                     "are the default with --device cuda");
  options.add("--timeout", timeout, "longest wait for another rank", {.minimum = 0.1, .unit = "s"});
  options.add("--debug-comm", debug_comm, "compare every collective's call between the ranks first");
  options.add("--synchronous-sends", synchronous_sends, "sends complete only when they are received");
  options.add(
      "--cluster", cluster,
      "also report the time on these machines: a file, or \"dp_replicate=10GB/s,5us compute=50TF/s,memory=1TB/s "
      "reduce=100GB/s rendezvous=64kB\", a link for each mesh dimension; compute=cpu: the processor time here");
}

void TrainOptions::declare_checkpoint(Options& options) {
  options.group("Checkpoints");
  options.add("--checkpoint", checkpoint.folder,
              "write checkpoints to this folder, each a folder step_N that transformers reads, too; SIGTERM writes one "
              "and ends the run");
  options.add("--every", checkpoint.every, "between checkpoints; 0: one after the last step only",
              {.minimum = 0, .unit = "steps"});
  options.add("--keep", checkpoint.keep, "so many of the newest checkpoints; 0: all", {.minimum = 0});
  options.add("--resume", checkpoint.resume, "go on from the newest checkpoint, if there is one, on whatever mesh");
  options.add("--async-checkpoint", checkpoint.async, "train on while a copy in the host's memory is written");
  options.add("--init-from", checkpoint.init_from,
              "begin with the parameters of this folder: of a checkpoint, of several (the newest counts), or as "
              "Hugging Face's transformers writes it");
}

}  // namespace ninefold
