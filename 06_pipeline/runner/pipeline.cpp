#include "06_pipeline/runner/pipeline.h"

#include <fmt/ranges.h>

#include "03_zero_fsdp/divide.h"
#include "06_pipeline/runner/measured.h"
#include "06_pipeline/runner/predict.h"
#include "06_pipeline/schedule/peak.h"
#include "06_pipeline/schedule/simulate.h"
#include "common/base/report.h"
#include "common/comm/virtual_time.h"

namespace ninefold::pipeline {

ActivationsOf activations_of(const ninefold::Task& task, const TrainOptions& options) {
  return [&task, &options](const Children& children) {
    return task.stage_activations(children, options.micro_batch, options.precision(), options.recomputation);
  };
}

Pipeline::Pipeline(Model& model, CheckedSchedule schedule, const std::vector<Stage>& stages,
                   const std::vector<ChildOnPaper>& children, const Group& pipeline, const ninefold::Task& task)
    : schedule_(std::move(schedule)),
      model_(model, stages, ranks_of_stages(schedule_), children, pipeline, task),
      rank_(pipeline.rank()),
      runner_(std::make_unique<Runner>(model_, schedule_, nullptr)) {}

Parallelism Pipeline::shard(const DataShards& groups, const ShardingPolicy& policy) {
  for (int stage = 0; stage < schedule_.stages(); ++stage) {
    require(policy.stage < 3 || is_unsharded(schedule_, stage),
            "stage {} is sharded over the data ranks, but the schedule has no {}UNSHARD before it computes", stage,
            stage);
    require(policy.stage == 3 || !is_unsharded(schedule_, stage),
            "the schedule has {}UNSHARD, but under --stage {} parameters stay whole; use --stage 3", stage,
            policy.stage);
  }
  require(!model_.ties_stages(),
          "--tied-embeddings are in two stages, of which each would shard them; leave out --dp-shard or the option");
  const ShardingPolicy usual;
  require(policy.wrap == usual.wrap && policy.prefetch == usual.prefetch,
          "--wrap and --prefetch are not for a pipeline, whose stages are the units and whose schedule says when they "
          "are gathered; leave them out");
  require(!policy.reduce_each_micro_batch,
          "--reduce-each-micro-batch is not for a pipeline, which reduces the gradients of a stage once a step; leave "
          "it out");
  require(!policy.types.quantizes(), "--gather-dtype f8 is not for a pipeline; leave it out");
  units_ = std::make_unique<StageUnits>(model_, groups, policy);
  runner_ = std::make_unique<Runner>(model_, schedule_, units_.get());
  const MemoryKind optimizer = policy.offloads_optimizer() ? MemoryKind::host : MemoryKind::optimizer;
  return {.grouping = units_->grouping(),
          .reduce_gradients = [this] { units_->finish_step(); },
          .after_update = [this] { units_->after_update(); },
          .after_load = [this] { units_->after_update(); },
          .predict_memory = [this](MemoryByKind& bytes) { units_->predict_memory(bytes, schedule_, rank_); },
          .predict_traffic = [this](TrafficLedger& ledger,
                                    int64_t steps) { units_->predict_traffic(ledger, schedule_, rank_, steps); },
          .optimizer_memory = optimizer,
          .numerics = units_->numerics()};
}

Times Pipeline::times() const {
  const Group& ranks = model_.pipeline();
  Times times{stage_times(runner_->computations().gather(ranks), schedule_.stages()), 0};
  const VirtualTime* const time = ranks.world().virtual_time();
  if (!time || ranks.size() == 1) return times;
  const Link& link = time->cluster().links.at(ranks.name());
  times.communication = 1e3 * (link.latency + static_cast<double>(model_.message_bytes(0)) / link.bandwidth);
  return times;
}

BubbleRecord Pipeline::bubble() const {
  return {simulate(schedule_, times()).bubble(), runner_->computations().bubble(model_.pipeline())};
}

int64_t Pipeline::activation_bytes(int rank, const ActivationsOf& activations) const {
  std::vector<StageActivations> stages;
  for (int stage = 0; stage < schedule_.stages(); ++stage) stages.push_back(activations(children_of(stage)));
  return activation_peak(schedule_, rank, [&](int stage, int) -> const StageActivations& { return stages.at(stage); });
}

int64_t Pipeline::evaluation_bytes(const ActivationsOf& activations, const TrainOptions& options) const {
  int64_t most = 0;
  for (const int stage : schedule_.stages_of(rank_)) {
    if (options.evaluates()) most = std::max(most, activations(children_of(stage)).evaluation);
  }
  return most;
}

int64_t Pipeline::routed_activation_bytes(const RoutedActivations& activations, const RoutingRecord& routing,
                                          int64_t samples) const {
  if (routing.rows.empty()) return 0;
  const int64_t first = routing.rows.begin()->first;
  std::map<std::pair<int, int>, StageActivations> stages;
  for (const Task& task : schedule_.tasks(rank_)) {
    const Action& action = task.action;
    if (action.is_of_whole_stage() || stages.count({action.stage, action.micro_batch}) > 0) continue;
    stages[{action.stage, action.micro_batch}] =
        activations(children_of(action.stage), first + action.micro_batch * samples, routing);
  }
  return activation_peak(schedule_, rank_, [&](int stage, int micro_batch) -> const StageActivations& {
    return stages.at({stage, micro_batch});
  });
}

// Where bf16 gradients are summed over data ranks, they are rounded before the copies of the two directions are added.
Numerics Pipeline::numerics(const Parallelism& inner, const TrainOptions& options) const {
  const bool is_one_data_rank = options.batch == options.micro_batch * options.micro_batches;
  const bool rounds_once = directions_of(schedule_) == 1 || options.grad_dtype == Dtype::f32 || is_one_data_rank;
  return adds_in_order(schedule_) && rounds_once && !model_.ties_stages() ? inner.numerics : Numerics::bounded;
}

Parallelism Pipeline::parallelism(Parallelism inner, const ActivationsOf& activations, const TrainOptions& options,
                                  const RoutedActivations& routed) {
  Parallelism all = inner;
  if (routed) {
    all.predict_activations = [this, routed, activations, &options](const RoutingRecord& routing) {
      return std::max(routed_activation_bytes(routed, routing, options.micro_batch),
                      evaluation_bytes(activations, options));
    };
  }
  all.numerics = numerics(inner, options);
  all.grouping.directions = directions_of(schedule_);
  all.compute_gradients = [this](const std::vector<MicroBatch>& parts) { return runner_->run(parts); };
  all.evaluate = [this](const Batch& batch) { return runner_->evaluate(batch); };
  all.reduce_gradients = [this, reduce = inner.reduce_gradients] {
    reduce();
    model_.sum_copies();
  };
  all.predict_memory = [this, predict = inner.predict_memory, activations, &options](MemoryByKind& bytes) {
    predict(bytes);
    const int64_t training = options.steps > 0 ? activation_bytes(rank_, activations) : 0;
    bytes[static_cast<size_t>(MemoryKind::activations)] = std::max(training, evaluation_bytes(activations, options));
  };
  all.predict_traffic = [this, predict = inner.predict_traffic](TrafficLedger& ledger, int64_t steps) {
    predict(ledger, steps);
    predict_messages(ledger, schedule_, rank_, model_, steps);
    model_.predict_copies(ledger, steps);
  };
  all.bubble = [this]() -> std::optional<BubbleRecord> { return bubble(); };
  return all;
}

std::map<int, int64_t> Pipeline::work() const {
  std::map<int, int64_t> micro_batches;
  for (const Task& task : schedule_.tasks(rank_)) {
    if (task.action.kind == Kind::forward) ++micro_batches[task.action.stage];
  }
  return micro_batches;
}

std::string Pipeline::description(const ActivationsOf& activations) const {
  Table table({"rank", "stages", "peak live micro-batches", "activations"});
  for (int rank = 0; rank < schedule_.ranks(); ++rank) {
    const int64_t bytes = activation_bytes(rank, activations);
    table.add_row({fmt::format("{}", rank), fmt::format("{}", fmt::join(schedule_.stages_of(rank), " ")),
                   fmt::format("{}", peak_of(schedule_, rank).live),
                   bytes > 0 ? human_bytes(static_cast<double>(bytes)) : "-"});
  }
  return table.text();
}

Parallelism divide(Pipeline& pipeline, Model& model, const Mesh& mesh, const ShardingPolicy& policy,
                   const TrainOptions& options) {
  if (policy.stage == 0) return ninefold::divide(model, mesh, policy, options);
  return pipeline.shard({DataGroups(mesh, {"dp_shard", "cp", "ep"}, model), mesh["dp_replicate"]}, policy);
}

}  // namespace ninefold::pipeline
