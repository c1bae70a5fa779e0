// A training run over a pipeline inside a test, by any schedule, beside data parallelism where the mesh has some.
#pragma once

#include "06_pipeline/generators/generators.h"
#include "06_pipeline/generators/sharded.h"
#include "06_pipeline/runner/pipeline.h"
#include "06_pipeline/runner/predict.h"
#include "tests/support/training.h"

namespace ninefold::pipeline {

// How to make the table for so many ranks and micro-batches.
using MakeTable = std::function<Schedule(int ranks, int micro_batches)>;

inline MakeTable generated(std::string_view name, int virtual_stages = 2) {
  return [generator = &find_generator(name), virtual_stages](int ranks, int micro_batches) {
    return generator->make({ranks, micro_batches, virtual_stages});
  };
}

// Whether the schedule's rule allows that many.
inline bool allows(std::string_view name, int ranks, int micro_batches) {
  if (name == "interleaved") return micro_batches % ranks == 0;
  if (name == "dualpipe") return micro_batches % 2 == 0;
  return true;
}

// `job` has its task. The stages are sharded over dp_shard where the mesh has one, else replicated over dp_replicate.
inline Parallelize pipelined(const Job& job, const MakeTable& make_table, const std::string& layers_per_stage = "") {
  return [task = job.task, make_table, layers_per_stage](Model& model, const Mesh& mesh, const TrainOptions& options) {
    struct Kept {
      std::unique_ptr<Pipeline> pipeline;
      Parallelism data;
    };
    const auto kept = std::make_shared<Kept>();
    const Schedule table = make_table(mesh.size("pp"), static_cast<int>(options.micro_batches));
    const bool must_shard = mesh.has("dp_shard") && !has_sharded_stages(CheckedSchedule(table));
    const CheckedSchedule schedule(must_shard ? with_sharded_stages(table) : table);
    const auto children = on_paper(*task, options.micro_batch, options.precision());
    const auto stages = cut(layers_of(children), schedule.stages(), layers_per_stage);
    kept->pipeline = std::make_unique<Pipeline>(model, schedule, stages, children, mesh["pp"], *task);
    ShardingPolicy policy{.stage = mesh.has("dp_shard") ? 3 : 0};
    TrainOptions settled = options;
    policy.settle_types(settled);
    const Group replicas = mesh.flatten({"dp_replicate"});
    kept->data = policy.stage == 0 ? divide(*kept->pipeline, model, mesh, policy, options)
                                   : kept->pipeline->shard({mesh["dp_shard"], replicas}, policy);
    Parallelism parallelism = kept->pipeline->parallelism(kept->data, activations_of(*task, options), options);
    parallelism.technique = kept;
    return parallelism;
  };
}

// A Llama with grouped-query heads whose step takes a moment, one sequence a micro-batch.
inline Job pipeline_llama(int64_t layers, int micro_batches) {
  Job job = small_llama("ordered");
  job.mesh = {{"pp", 0}};
  job.options.llama = {.dim = 16, .layers = layers, .heads = 4, .kv_heads = 2, .ffn = 24, .vocab = 256};
  job.options.length = 16;
  job.options.batch = job.options.micro_batches = micro_batches;
  job.options.steps = job_size() == 8 ? 1 : 2;
  job.options.optimizer = {.kind = OptimizerKind::sgd, .momentum = 0.9};
  job.task = task_of(job);
  return job;
}

// The MLP, four images a micro-batch.
inline Job pipeline_mlp(int64_t layers, int micro_batches) {
  Job job = small_mnist_cnn("ordered");
  job.model = "mlp";
  job.mesh = {{"pp", 0}};
  job.options.llama.layers = layers;
  job.options.llama.dim = 16;
  job.options.micro_batches = micro_batches;
  job.options.batch = 4 * micro_batches;
  job.options.steps = 2;
  job.task = task_of(job);
  return job;
}

inline void expect_bit_identical(const Outcome& outcome) {
  const RunRecord& record = outcome.record;
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_EQ(record.numerics, Numerics::bit_identical);
  EXPECT_TRUE(record.check.passed);
  EXPECT_EQ(record.check.steps, static_cast<int64_t>(record.steps.size()));
  EXPECT_EQ(record.check.loss_max_abs, 0);
  EXPECT_EQ(record.check.gradient_max_rel, 0);
  EXPECT_EQ(record.check.parameter_max_rel, 0);
  EXPECT_TRUE(record.books_balanced);
}

}  // namespace ninefold::pipeline
