// A training run inside a test, as a program's main would make it, with wrong collectives or operations where asked.
#pragma once

#include <gtest/gtest.h>

#include <functional>

#include "01_collectives/collectives.h"
#include "common/train/trainer.h"
#include "tests/support/faulty_collectives.h"
#include "tests/support/faulty_kernels.h"
#include "tests/support/numbers.h"

namespace ninefold {

struct Job {
  std::string model = "llama";
  TrainOptions options;
  std::vector<MeshDimension> mesh = {{"dp_replicate", 0}};
  std::shared_ptr<const Task> task;  // for several runs on the same data; absent: made for each run
  std::optional<CollectiveFault> collective_fault;
  std::optional<KernelFault> kernel_fault;
  std::function<void(const KernelCost&)> after_kernel{};  // called after every operation
};

// Copies of one tensor a parameter: of what this rank owns.
using Elements = std::vector<Tensor>;

inline Elements elements_of(const std::vector<Parameter*>& parameters, Tensor Parameter::Owned::*tensor) {
  Elements elements;
  for (const Parameter* parameter : parameters) elements.push_back(copy_of(parameter->owned.*tensor));
  return elements;
}

inline bool same_bits(const Elements& x, const Elements& y) {
  return std::equal(x.begin(), x.end(), y.begin(), y.end(),
                    [](const Tensor& a, const Tensor& b) { return same_bits(a, b); });
}

struct Outcome {
  int exit_code;
  RunRecord record;
  Elements gradients, values;  // the last step's gradients, and what they made of the parameters
};

// A Llama of 30 thousand parameters, 12 sequences a step: they divide by 1, 2, 3 and 4 ranks. The text is short, the
// first chapters of Genesis: it is read for each run.
inline Job small_llama(const std::string& collectives = "ours") {
  Job job;
  job.options.collectives = collectives;
  job.options.data = NINEFOLD_TEST_DATA "/genesis.txt";
  job.options.llama = {.dim = 32, .layers = 2, .heads = 4, .kv_heads = 2, .ffn = 48, .vocab = 256};
  job.options.length = 16;
  job.options.batch = 12;
  job.options.steps = 4;
  job.options.schedule.warmup = 1;
  job.options.clip = 0.5;
  job.options.measure_peak = false;
  return job;
}

// The MNIST CNN with its own optimizer, 12 images a step.
inline Job small_mnist_cnn(const std::string& collectives = "ours") {
  Job job;
  job.model = "mnist_cnn";
  job.options = mnist_options();
  job.options.collectives = collectives;
  job.options.batch = 12;
  job.options.steps = 4;
  job.options.measure_peak = false;
  return job;
}

// The images are unpacked once for all runs of a test.
inline std::shared_ptr<const Task> task_of(const Job& job) {
  if (job.task) return job.task;
  if (job.model != "mnist_cnn" || job.options.data != mnist_options().data) return make_task(job.model, job.options);
  static const std::shared_ptr<const Task> mnist = make_task("mnist_cnn", mnist_options());
  return mnist;
}

// How a program splits the work on a model that has no storage yet.
using Parallelize = std::function<Parallelism(Model& model, const Mesh& mesh, const TrainOptions& options)>;

// The whole run, with the data divided over dp_replicate, dp_shard and ep.
inline Outcome train(Job job, const Parallelize& parallelize) {
  TrainOptions& options = job.options;
  const Options command_line("test", "");
  const CollectivesFactory collectives = collectives::named(options.collectives);
  const WorldOptions world_options = options.world();
  world_options.device->after_kernel = job.after_kernel;
  World world(world_options,
              job.collective_fault ? faulty_collectives(collectives, *job.collective_fault) : collectives);
  if (job.kernel_fault) {
    world.device()->decorate_kernels([fault = *job.kernel_fault](std::unique_ptr<Kernels> inner) {
      return std::make_unique<FaultyKernels>(std::move(inner), fault);
    });
  }
  const Mesh mesh(world, job.mesh);
  const Group data = mesh.flatten({"dp_replicate", "dp_shard", "ep"});
  const auto task = task_of(job);
  options.resolve(data.size());
  const auto model = task->make_model();
  cast_scores(*model, options.precision());
  const Parallelism parallelism = parallelize(*model, mesh, options);
  materialize(*model, world.device(), options.precision(), options.seed);
  Trainer trainer("test", options, command_line, mesh, data, *task, *model, parallelism);
  const int exit_code = trainer.run();
  const auto parameters = parameters_of(*model);
  return {exit_code, trainer.record(), elements_of(parameters, &Parameter::Owned::gradient),
          elements_of(parameters, &Parameter::Owned::value)};
}

// The faults of an all_reduce that a check must find.
inline constexpr CollectiveFault all_reduce_faults[] = {CollectiveFault::scale_by_two, CollectiveFault::divide_twice,
                                                        CollectiveFault::drop_one_rank, CollectiveFault::stale_buffer,
                                                        CollectiveFault::wrong_group};

// The check of `job` fails under each of these faults. Two steps show them all.
inline void expect_the_check_to_find(const std::vector<KernelFault>& faults, Job job, const Parallelize& parallelize) {
  job.options.steps = 2;
  for (const KernelFault fault : faults) {
    job.kernel_fault = fault;
    const Outcome outcome = train(job, parallelize);
    EXPECT_EQ(outcome.exit_code, 1) << "fault " << static_cast<int>(fault);
    EXPECT_FALSE(outcome.record.check.passed) << "fault " << static_cast<int>(fault);
  }
}

// One rank communicates with nobody: there the test has nothing to show, and the other rank counts run it.
inline void expect_the_check_to_find_wrong_all_reduces(Job job, const Parallelize& parallelize) {
  if (job_size() == 1) return;
  job.options.steps = 2;
  for (const CollectiveFault fault : all_reduce_faults) {
    job.collective_fault = fault;
    const Outcome outcome = train(job, parallelize);
    EXPECT_EQ(outcome.exit_code, 1) << "fault " << static_cast<int>(fault);
    EXPECT_FALSE(outcome.record.check.passed) << "fault " << static_cast<int>(fault);
  }
}

// Parameters, gradients, optimizer, gathered units, what lies in the host, and traffic to the byte; activations, too,
// where they have a formula.
inline void expect_balanced_books(const RunRecord& record, bool has_activations = true) {
  for (const MemoryRecord& entry : record.memory) {
    switch (entry.kind) {
      case MemoryKind::parameters:
      case MemoryKind::gradients:
      case MemoryKind::optimizer:
      case MemoryKind::gathered:
      case MemoryKind::host:
        EXPECT_EQ(entry.predicted, entry.measured_peak) << name_of(entry.kind);
        break;
      default:
        break;
    }
    if (entry.kind == MemoryKind::activations && has_activations) {
      EXPECT_TRUE(entry.predicted > 0 || entry.measured_peak == 0);
      EXPECT_TRUE(entry.agrees()) << entry.predicted << " predicted, " << entry.measured_peak << " measured";
    }
  }
  for (const auto& [dimension, operations] : record.traffic) {
    for (const auto& [operation, entry] : operations) {
      EXPECT_EQ(entry.calls, entry.predicted_calls) << dimension << " " << name_of(operation);
      EXPECT_EQ(entry.messages, entry.predicted_messages) << dimension << " " << name_of(operation);
      EXPECT_EQ(entry.bytes, entry.predicted_bytes) << dimension << " " << name_of(operation);
    }
  }
}

}  // namespace ninefold
