#include "common/train/options.h"

#include <limits>

#include "common/base/report.h"
#include "common/base/text.h"
#include "common/train/checkpoint_folder.h"
#include "common/train/transformers.h"

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
  options.add_choice<DeviceType>("--device", device, {{"cpu", DeviceType::cpu}, {"meta", DeviceType::meta}},
                                 "where tensors live; meta has shapes only and counts bytes");
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

void TrainOptions::settle_moe() {
  const bool has_factor = capacity_factor != Options::automatic;
  require(!dropless || !has_factor,
          "--dropless and --capacity-factor ({}) contradict each other: one drops no token, the other may; give one",
          capacity_factor);
  if (has_factor) llama.moe.capacity_factor = capacity_factor;
  llama.moe.validate();
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
  options.add_choice("--collectives", collectives, {"ours", "ordered", "mpi"},
                     "chapter 01's fastest, chapter 01's that add in rank order, or the MPI library's");
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

void TrainOptions::settle_checkpoint(const Options& given, const std::string& model) {
  for (const char* name : {"--every", "--keep", "--resume", "--async-checkpoint"}) {
    require(!checkpoint.folder.empty() || !given.given(name), "{} needs --checkpoint FOLDER", name);
  }
  const bool has_files = !checkpoint.folder.empty() || !checkpoint.init_from.empty();
  require(!has_files || device != DeviceType::meta,
          "device meta has shapes only: there is nothing for --checkpoint or --init-from; leave them out");
  if (!checkpoint.init_from.empty()) checkpoint.init_from = model_folder(checkpoint.init_from);
  if (checkpoint.init_from.empty() || model != "llama") return;
  const std::string path = checkpoint.init_from + "/config.json";
  const LlamaConfig stored = llama_config_in(read_json(path), path);
  const auto take = [&](const char* name, auto& value, const auto& of_folder) {
    require(!given.given(name) || value == of_folder, "{} {} disagrees with {}, which says {}; leave {} out", name,
            value, path, of_folder, name);
    value = of_folder;
  };
  take("--dim", llama.dim, stored.dim);
  take("--layers", llama.layers, stored.layers);
  take("--heads", llama.heads, stored.heads);
  take("--kv-heads", llama.kv_heads, stored.kv_heads);
  take("--ffn", llama.ffn, stored.ffn);
  take("--vocab", llama.vocab, stored.vocab);
  take("--rope-theta", llama.rope_theta, stored.rope_theta);
  take("--norm-eps", llama.norm_eps, stored.norm_eps);
  take("--tied-embeddings", llama.tied_embeddings, stored.tied_embeddings);
  require(llama.moe.experts == 0 || llama.moe.experts == stored.moe.experts,
          "--experts {} disagrees with {}; say --experts {}", llama.moe.experts, path, stored.moe.experts);
  if (stored.moe.experts == 0) return;
  llama.moe.experts = stored.moe.experts;
  llama.moe.top_k = stored.moe.top_k;
  llama.moe.router = stored.moe.router;
  llama.moe.shared_experts = stored.moe.shared_experts;
  if (stored.moe.balance == Balance::bias) llama.moe.balance = Balance::bias;
}

void TrainOptions::use_defaults_of(const std::string& model, const Options& given) {
  if (model == "llama") return;
  for (const std::string& name : given.given_under("Model")) {
    require(model == "mlp", "{} shapes a Llama, but the MNIST CNN has one shape only; leave {} out", name, name);
    require(name == "--layers" || name == "--dim",
            "{} shapes a Llama, but an MLP has --layers and --dim only; leave {} out", name, name);
  }
  const TrainOptions usual = mnist_options();
  const auto set = [&](std::string_view name, auto& value, const auto& usual_value) {
    if (!given.given(name)) value = usual_value;
  };
  set("--data", data, usual.data);
  set("--batch", batch, usual.batch);
  set("--optimizer", optimizer.kind, usual.optimizer.kind);
  set("--eps", optimizer.eps, usual.optimizer.eps);
  set("--weight-decay", optimizer.weight_decay, usual.optimizer.weight_decay);
  set("--lr", schedule.lr, usual.schedule.lr);
  set("--min-lr", schedule.min_lr, schedule.lr);
  set("--gamma", gamma, usual.gamma);
  set("--warmup", schedule.warmup, usual.schedule.warmup);
  set("--clip", clip, usual.clip);
  set("--log-every", log_every, usual.log_every);
}

void TrainOptions::settle_epochs(const Options& given, int64_t usual) {
  const bool has_steps = given.given("--steps");
  if (!given.given("--epochs")) epochs = has_steps ? 0 : usual;
  require(epochs == 0 || !has_steps, "--epochs ({}) and --steps both say how long to train; give one of them", epochs);
  for (const char* name : {"--eval-every", "--eval-batches"}) {
    require(epochs == 0 || !given.given(name),
            "{} needs --steps: an epoch ends with an evaluation on all test data; leave {} out", name, name);
  }
}

void TrainOptions::use_epochs(const Task& task) {
  if (epochs == 0) return;
  require(device != DeviceType::meta, "device meta has shapes only and no data to take epochs of; add --steps 0");
  const int64_t batches = task.samples(Split::train) / batch;
  require(batches > 0, "batch ({}) is larger than the training data ({} {})", batch, task.samples(Split::train),
          task.unit());
  steps = epochs * batches;
  eval_every = batches;
  eval_batches = (task.samples(Split::evaluation) + batch - 1) / batch;
}

void TrainOptions::settle_check(const Options& given) {
  if (!given.given("--check")) check = llama_parameters(llama) <= checked_parameters;
}

void TrainOptions::resolve(int data_ranks) {
  require(batch % data_ranks == 0, "batch ({}) must be divisible by the data ranks ({}); try --batch {}", batch,
          data_ranks, (batch / data_ranks + 1) * data_ranks);
  const int64_t local = local_batch(data_ranks);
  if (micro_batch == 0) micro_batch = micro_batches > 0 ? std::max<int64_t>(local / micro_batches, 1) : local;
  require(local % micro_batch == 0, "batch ({}) must be divisible by data ranks ({}) x micro-batch ({})", batch,
          data_ranks, micro_batch);
  const int64_t count = local / micro_batch;
  require(micro_batches == 0 || micro_batches == count,
          "micro-batches ({}) disagrees with batch ({}) / (data ranks ({}) x micro-batch ({})) = {}; give one of them",
          micro_batches, batch, data_ranks, micro_batch, count);
  micro_batches = count;
  require(
      grad_dtype != Dtype::f16,
      "--grad-dtype f16 would lose what the loss scale saves, since gradients are divided by it at the end; use f32");
  require(grad_dtype == Dtype::f32 || grad_dtype == precision().compute,
          "--grad-dtype {} needs --dtype {}; gradients are f32 or of the type of the activations", name_of(grad_dtype),
          name_of(grad_dtype));
  schedule.steps = steps;
  if (schedule.min_lr == Options::automatic) schedule.min_lr = schedule.lr / 10;
  schedule.warmup = std::min(schedule.warmup, steps);
  schedule.validate();
  if (!report.empty()) require_writable(report, "--report");
  if (!trace.empty()) require_writable(trace, "--trace");
  require(device != DeviceType::meta || steps == 0,
          "device meta has shapes only and cannot take {} steps; add --steps 0", steps);
  if (device == DeviceType::meta) check = measure_peak = false;
}

Precision TrainOptions::precision() const {
  const Dtype compute = param_dtype.value_or(dtype);
  return {.stored = dtype,
          .compute = compute,
          .gradient = grad_dtype,
          .output = output_dtype.value_or(compute),
          .f8_linears = f8_linears};
}

double TrainOptions::lr_at(int64_t step, int64_t epoch) const { return step_lr(schedule.at(step), gamma, epoch); }

WorldOptions TrainOptions::world() const {
  require(cluster.empty() || collectives != "mpi",
          "--cluster has no times for the messages of --collectives mpi; use ours or ordered");
  const DeviceHandle made = make_device(device, threads);
  if (!memory_limit.empty()) made->ledger().set_limit(parse_bytes("--memory-limit", memory_limit));
  return {.device = made,
          .timeout = timeout,
          .debug_comm = debug_comm,
          .synchronous_sends = synchronous_sends,
          .cluster = cluster.empty() ? std::nullopt : std::optional(Cluster::parse(cluster))};
}

std::unique_ptr<Task> make_task(const std::string& model, const TrainOptions& options) {
  if (model == "mnist_cnn") return std::make_unique<MnistTask>(options.data);
  if (model == "mlp") {
    return std::make_unique<MnistTask>(options.data, MlpConfig{.in = Mnist::side * Mnist::side,
                                                               .hidden = options.llama.dim,
                                                               .classes = Mnist::classes,
                                                               .layers = options.llama.layers});
  }
  const bool on_paper = options.device == DeviceType::meta;
  return std::make_unique<LlamaTask>(options.llama, on_paper ? std::string() : options.data, options.length);
}

int mesh_size(int64_t option) {
  require(option <= std::numeric_limits<int>::max(),
          "{} ranks along one dimension of the mesh are more than any job has; their product is that of the job",
          option);
  return option == Options::automatic ? 0 : static_cast<int>(option);
}

int print_help(const std::string& help) {
  if (on_first_rank()) fmt::print("{}", help);
  return 0;
}

TrainOptions mnist_options() {
  TrainOptions options;
  options.data = NINEFOLD_DATA "/mnist";
  options.batch = 64;
  options.optimizer = {.kind = OptimizerKind::adadelta, .eps = 1e-6};
  options.schedule = {.lr = 1, .min_lr = 1, .steps = 0, .warmup = 0, .constant_steps = 0};
  options.gamma = 0.7;
  options.clip = 0;
  options.log_every = 10;
  return options;
}

DeviceHandle make_device(DeviceType type, int threads) {
  return type == DeviceType::meta ? make_meta_device() : make_cpu_device(threads);
}

}  // namespace ninefold
