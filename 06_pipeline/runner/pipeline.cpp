#include "06_pipeline/runner/pipeline.h"

#include <fmt/ranges.h>

#include "06_pipeline/runner/measured.h"
#include "06_pipeline/runner/predict.h"
#include "06_pipeline/schedule/peak.h"
#include "06_pipeline/schedule/simulate.h"
#include "common/base/report.h"
#include "common/comm/virtual_time.h"

namespace ninefold::pipeline {

Pipeline::Pipeline(Model& model, CheckedSchedule schedule, const std::vector<Stage>& stages,
                   const std::vector<ChildOnPaper>& children, const Group& pipeline, const ninefold::Task& task)
    : schedule_(std::move(schedule)),
      model_(model, stages, ranks_of_stages(schedule_), children, pipeline, task),
      rank_(pipeline.rank()),
      runner_(std::make_unique<Runner>(model_, schedule_, nullptr)) {}

void Pipeline::shard(const ShardGroups& groups, const ShardingPolicy::Types& types) {
  for (int stage = 0; stage < schedule_.stages(); ++stage) {
    require(is_unsharded(schedule_, stage),
            "stage {} is sharded over the data ranks, but the schedule has no {}UNSHARD before it computes", stage,
            stage);
  }
  require(!model_.ties_stages(),
          "--tied-embeddings are in two stages, of which each would shard them; leave out --dp-shard or the option");
  units_ = std::make_unique<StageUnits>(model_, groups, types);
  runner_ = std::make_unique<Runner>(model_, schedule_, units_.get());
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

int64_t Pipeline::activation_bytes(int rank, const ninefold::Task& task, const TrainOptions& options) const {
  std::vector<StageActivations> stages;
  for (int stage = 0; stage < schedule_.stages(); ++stage) {
    stages.push_back(
        task.stage_activations(model_.stage(stage).children, options.micro_batch, options.precision().compute));
  }
  return activation_peak(schedule_, rank, stages);
}

void Pipeline::predict_memory(MemoryByKind& bytes, const ninefold::Task& task, const TrainOptions& options) const {
  const bool trains = options.steps > 0;
  bytes[static_cast<size_t>(MemoryKind::activations)] = trains ? activation_bytes(rank_, task, options) : 0;
  if (units_) units_->predict_memory(bytes, schedule_, rank_);
}

// Where bf16 gradients are summed over data ranks, they are rounded before the copies of the two directions are added.
Numerics Pipeline::numerics(const Parallelism& data, const TrainOptions& options) const {
  const bool is_one_data_rank = options.batch == options.micro_batch * options.micro_batches;
  const bool rounds_once = directions_of(schedule_) == 1 || options.grad_dtype == Dtype::f32 || is_one_data_rank;
  return adds_in_order(schedule_) && rounds_once && !model_.ties_stages() ? data.numerics : Numerics::bounded;
}

Parallelism Pipeline::parallelism(Parallelism data, const ninefold::Task& task, const TrainOptions& options) {
  if (units_) {
    data = {.grouping = units_->grouping(),
            .reduce_gradients = [this] { units_->finish_step(); },
            .predict_traffic = [this](TrafficLedger& ledger,
                                      int64_t steps) { units_->predict_traffic(ledger, schedule_, rank_, steps); },
            .numerics = units_->numerics()};
  }
  Parallelism all = data;
  all.numerics = numerics(data, options);
  all.grouping.directions = directions_of(schedule_);
  all.compute_gradients = [this](const std::vector<MicroBatch>& parts) { return runner_->run(parts); };
  all.evaluate = [this](const Batch& batch) { return runner_->evaluate(batch); };
  all.reduce_gradients = [this, reduce = data.reduce_gradients] {
    reduce();
    model_.sum_copies();
  };
  all.predict_memory = [this, &task, &options](MemoryByKind& bytes) { predict_memory(bytes, task, options); };
  all.predict_traffic = [this, predict = data.predict_traffic](TrafficLedger& ledger, int64_t steps) {
    predict(ledger, steps);
    predict_messages(ledger, schedule_, rank_, model_, steps);
    model_.predict_copies(ledger, steps);
  };
  all.bubble = [this]() -> std::optional<BubbleRecord> { return bubble(); };
  return all;
}

std::string Pipeline::description(const ninefold::Task& task, const TrainOptions& options) const {
  Table table({"rank", "stages", "peak live micro-batches", "activations"});
  for (int rank = 0; rank < schedule_.ranks(); ++rank) {
    const int64_t bytes = activation_bytes(rank, task, options);
    table.add_row({fmt::format("{}", rank), fmt::format("{}", fmt::join(schedule_.stages_of(rank), " ")),
                   fmt::format("{}", peak_of(schedule_, rank).live),
                   bytes > 0 ? human_bytes(static_cast<double>(bytes)) : "-"});
  }
  return table.text();
}

}  // namespace ninefold::pipeline
