#include "common/train/options.h"

#include <algorithm>
#include <limits>

#include "common/base/report.h"
#include "common/base/text.h"
#include "common/train/checkpoint_folder.h"
#include "common/train/transformers.h"

namespace ninefold {
namespace {

// What the file says of a model; error where an option says otherwise.
void take_model_of(const std::string& path, const Options& given, LlamaConfig& llama) {
  const LlamaConfig stored = llama_config_in(read_json(path), path);
  std::vector<std::string> chosen = given.given_under("Model");
  for (const std::string& name : given.given_under("Mixture of experts")) chosen.push_back(name);
  const auto is_given = [&](const char* name) { return std::count(chosen.begin(), chosen.end(), name) > 0; };
  const auto take = [&](const char* name, auto& value, const auto& of_folder) {
    require(!is_given(name) || value == of_folder, "{} {} disagrees with {}, which says {}; leave {} out", name, value,
            path, of_folder, name);
    value = of_folder;
  };
  take("--dim", llama.dim, stored.dim);
  take("--layers", llama.layers, stored.layers);
  take("--heads", llama.heads, stored.heads);
  take("--kv-heads", llama.kv_heads, stored.kv_heads);
  take("--ffn", llama.ffn, stored.ffn);
  take("--vocab", llama.vocab, stored.vocab);
  take("--rope-theta", llama.rope_theta, stored.rope_theta);
  llama.rope_scaling = stored.rope_scaling;
  take("--norm-eps", llama.norm_eps, stored.norm_eps);
  take("--tied-embeddings", llama.tied_embeddings, stored.tied_embeddings);
  require(llama.moe.experts == 0 || stored.moe.experts > 0,
          "{} is of a model without experts, but --experts is {}; choose another folder or --experts 0", path,
          llama.moe.experts);
  if (stored.moe.experts == 0) return;
  take("--experts", llama.moe.experts, stored.moe.experts);
  take("--top-k", llama.moe.top_k, stored.moe.top_k);
  take("--shared-experts", llama.moe.shared_experts, stored.moe.shared_experts);
  require(!is_given("--router") || llama.moe.router == stored.moe.router,
          "--router disagrees with {}; leave --router out", path);
  llama.moe.router = stored.moe.router;
  if (stored.moe.balance == Balance::bias) llama.moe.balance = Balance::bias;
}

}  // namespace

void TrainOptions::settle_moe() {
  const bool has_factor = capacity_factor != Options::automatic;
  require(!dropless || !has_factor,
          "--dropless and --capacity-factor ({}) contradict each other: one drops no token, the other may; give one",
          capacity_factor);
  if (has_factor) llama.moe.capacity_factor = capacity_factor;
  llama.moe.validate();
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
  take_model_of(checkpoint.init_from + "/config.json", given, llama);
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

void TrainOptions::settle_defaults(const Options& given) {
  if (!given.given("--check")) check = llama_parameters(llama) <= checked_parameters;
  if (!given.given("--collectives") && device == DeviceType::cuda) collectives = "nccl";
}

void TrainOptions::validate_cuda_graph() const {
  if (!cuda_graph) return;
  require(llama.moe.experts == 0,
          "--cuda-graph repeats what was decided once, but --experts ({}) are chosen in every "
          "step; leave one of them out",
          llama.moe.experts);
  require(precision().compute != Dtype::f16,
          "--cuda-graph repeats one loss scale, but that of f16 changes; use --dtype bf16, or leave --cuda-graph out");
  require(f8_linears.empty(),
          "--cuda-graph repeats one scale, but --matmul-dtype f8 finds one for each tensor; leave one of them out");
  require(device == DeviceType::cuda, "--cuda-graph is for GPUs; add --device cuda, or leave it out");
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
  require(cluster.empty() || collectives == "ours" || collectives == "ordered",
          "--cluster has no times for the messages of --collectives {}; use ours or ordered", collectives);
  require(collectives != "nccl" || device == DeviceType::cuda,
          "--collectives nccl carries tensors of GPUs; add --device cuda, or choose ours, ordered or mpi");
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
  if (type == DeviceType::cuda) return make_cuda_device(local_rank());
  return type == DeviceType::meta ? make_meta_device() : make_cpu_device(threads);
}

}  // namespace ninefold
