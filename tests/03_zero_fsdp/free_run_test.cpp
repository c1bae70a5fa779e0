// Two runs that never see each other, a sharded and a serial one. Where the collectives add in rank order, the MNIST
// CNN with its dropout ends with the same bits in losses and in every rank's part of the parameters.
#include "03_zero_fsdp/divide.h"
#include "tests/support/serial_run.h"

namespace ninefold {
namespace {

// This rank's elements of a whole tensor.
std::vector<float> own_part(const Tensor& whole, const Placement& placement, const Shape& shape) {
  const auto all = whole.to_vector<float>();
  std::vector<float> own(static_cast<size_t>(elements(placement.local_shape(shape))));
  for (const Piece& piece : placement.pieces(shape)) {
    std::copy_n(all.begin() + piece.global_offset, piece.length, own.begin() + piece.local_offset);
  }
  return own;
}

TEST(MnistUnderSharding, EndsWithTheWeightsOfTheSerialRun) {
  Job job = small_mnist_cnn("ordered");
  job.mesh = {{"dp_replicate", 1}, {"dp_shard", 0}};
  job.options.batch = 24;
  job.options.steps = 10;
  job.options.check = false;
  job.task = task_of(job);
  const SerialRun serial = serial_run(job, job_size());
  for (const int64_t stage : {1, 2, 3}) {
    SCOPED_TRACE(fmt::format("stage {}", stage));
    std::vector<std::pair<Placement, Shape>> placed;
    const Outcome outcome = train(job, [&](Model& model, const Mesh& mesh, const TrainOptions& options) {
      Parallelism parallelism = divide(model, mesh, {.stage = stage, .wrap = "size:20000"}, options);
      for (const Parameter* parameter : parameters_of(model))
        placed.emplace_back(parameter->placement, parameter->shape);
      return parallelism;
    });
    for (size_t step = 0; step < serial.losses.size(); ++step) {
      EXPECT_EQ(outcome.record.steps[step].loss, serial.losses[step]) << "step " << step;
    }
    ASSERT_EQ(outcome.values.size(), serial.values.size());
    for (size_t i = 0; i < serial.values.size(); ++i) {
      EXPECT_EQ(outcome.values[i].to_vector<float>(), own_part(serial.values[i], placed[i].first, placed[i].second));
    }
  }
}

}  // namespace
}  // namespace ninefold
