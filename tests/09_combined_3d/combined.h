// Runs of the combined trainer inside a test, as its main makes them, from the words of a command line.
#pragma once

#include "09_combined_3d/options.h"
#include "common/base/text.h"
#include "tests/support/training.h"

namespace ninefold {

// A Llama of 73 thousand parameters that divides over 8 ranks in every dimension, one step of 16 sequences.
inline constexpr std::string_view small_model =
    "--dim 32 --layers 8 --heads 8 --kv-heads 2 --ffn 48 --length 16 --batch 16 --warmup 1 --clip 0.5 --steps 1 "
    "--no-measure-peak";

// Trains `words` on top of small_model, the last one winning.
inline Outcome train_combined(const std::string& words, const std::optional<CollectiveFault>& fault = {}) {
  const std::string line = fmt::format("test {} {}", small_model, words);
  std::vector<std::string> arguments;
  for (const std::string_view word : split(line, ' ')) {
    if (!word.empty()) arguments.emplace_back(word);
  }
  std::vector<const char*> pointers;
  for (const std::string& argument : arguments) pointers.push_back(argument.c_str());

  CombinedOptions options;
  TrainOptions& train = options.train;
  Options command_line("test", "");
  options.declare(command_line);
  train.data = NINEFOLD_TEST_DATA "/genesis.txt";
  command_line.parse(static_cast<int>(pointers.size()), pointers.data());
  options.settle(command_line, job_size());
  const CollectivesFactory collectives = collectives::named(train.collectives);
  World world(train.world(), fault ? faulty_collectives(collectives, *fault) : collectives);
  const Mesh mesh = options.mesh.over(world);
  const Group data = mesh.flatten({"dp_replicate", "dp_shard"});
  options.settle(command_line, mesh, data.size());
  const auto task = make_task("llama", train);
  const auto model = task->make_model();
  cast_scores(*model, train.precision());
  const Parallelism parallelism = parallelize(*model, *task, mesh, options.techniques, train);
  materialize(*model, world.device(), train.precision(), train.seed);
  Trainer trainer("test", train, command_line, mesh, data, *task, *model, parallelism);
  const int exit_code = trainer.run();
  return {exit_code, trainer.record(), {}, {}};
}

// Equal to the serial model within the class that the techniques claim, with books as their formulas say.
inline RunRecord expect_equal_to_serial(const std::string& words) {
  SCOPED_TRACE(words);
  const Outcome outcome = train_combined(words);
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_TRUE(outcome.record.check.passed);
  EXPECT_EQ(outcome.record.check.parameter_max_rel, 0);
  EXPECT_TRUE(outcome.record.books_balanced);
  expect_balanced_books(outcome.record);
  return outcome.record;
}

}  // namespace ninefold
