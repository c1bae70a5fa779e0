// Work that a device was told once and repeats: with whose memory, whose numbers, and that a training which is repeated
// is the same training.
#include "common/tensor/recording.h"

#include <gtest/gtest.h>

#include "common/optim/optimizer.h"
#include "common/tensor/kernel_decorator.h"
#include "common/train/micro_batch_graphs.h"
#include "common/train/values.h"
#include "tests/support/numbers.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/test_device.h"

namespace ninefold {
namespace {

class Recorded : public testing::Test {
 protected:
  Tensor filled(int64_t size, float value) const {
    return Tensor::from(device_, {size}, std::vector<float>(static_cast<size_t>(size), value));
  }
  static std::vector<float> values(const Tensor& x) { return x.to_vector<float>(); }

  DeviceHandle device_ = make_test_device();
  const bool is_recordable_ = device_->type() != DeviceType::cpu;
};

using Values = std::vector<float>;

TEST_F(Recorded, NothingHappensBeforeTheReplay) {
  const Tensor x = filled(100, 1), y = filled(100, 2);
  const auto work = [&] { ops::add_(x, y); };
  if (!is_recordable_) {
    EXPECT_EQ(sentence_of([&] { Recording(device_, work); }), "only GPUs record what they are told; use --device cuda");
    return;
  }
  const Recording recording(device_, work);
  EXPECT_EQ(values(x), Values(100, 1));
  for (const float sum : {3.0f, 5.0f}) {
    recording.replay();
    EXPECT_EQ(values(x), Values(100, sum));
  }
  y.copy_from_host(Values(100, 10).data());
  recording.replay();
  EXPECT_EQ(values(x), Values(100, 15)) << "what the tensor holds now";
}

// Its own tensors are written by every replay: nobody else may have their memory, though they are gone.
TEST_F(Recorded, ItsMemoryIsNobodyElses) {
  if (!is_recordable_) GTEST_SKIP() << "the cpu records nothing";
  const Tensor x = filled(1000, 1), sum = filled(1000, 0);
  const int64_t before = device_->ledger().now(MemoryKind::activations);
  const Recording recording(device_, [&] {
    const Tensor twice = ops::add(x, x);
    ops::add_(sum, ops::add(twice, twice));
  });
  EXPECT_EQ(device_->ledger().now(MemoryKind::activations), before);
  std::vector<Tensor> others;
  for (int i = 0; i < 10; ++i) others.push_back(filled(1000, static_cast<float>(i)));
  recording.replay();
  EXPECT_EQ(values(sum), Values(1000, 4));
  for (int i = 0; i < 10; ++i) EXPECT_EQ(values(others[static_cast<size_t>(i)]), Values(1000, static_cast<float>(i)));
}

TEST_F(Recorded, EveryReplayIsBooked) {
  if (!is_recordable_) GTEST_SKIP() << "the cpu records nothing";
  const Tensor a = Tensor::zeros(device_, {16, 16}, Dtype::f32), out = Tensor::zeros(device_, {16, 16}, Dtype::f32);
  double flops = 0;
  device_->after_kernel = [&](const KernelCost& cost) { flops += cost.flops; };
  const Recording recording(device_, [&] { ops::matmul_into(out, a, a); });
  EXPECT_EQ(flops, 0);
  for (int replay = 1; replay <= 3; ++replay) {
    recording.replay();
    EXPECT_EQ(flops, replay * 2.0 * 16 * 16 * 16);
  }
}

TEST_F(Recorded, TheHostReadsAndWritesNothingMeanwhile) {
  if (!is_recordable_) GTEST_SKIP() << "the cpu records nothing";
  const Tensor x = filled(100, 1);
  EXPECT_THROW(Recording(device_, [&] { ops::sum(x); }), Error);
  EXPECT_THROW(Recording(device_, [&] { x.copy_from_host(Values(100, 2).data()); }), Error);
  EXPECT_FALSE(device_->is_recording());
  EXPECT_EQ(values(ops::add(x, x)), Values(100, 2)) << "afterwards all is as before";
}

// ---- a training ----------------------------------------------------------------------------------------------------

// Counts the operations that the host asks for.
class Counted : public KernelDecorator {
 public:
  Counted(std::unique_ptr<Kernels> inner, int64_t& calls) : KernelDecorator(std::move(inner)), calls_(calls) {}
  void matmul(const Tensor& out, const Tensor& a, const Tensor& b, const ops::MatmulOptions& options) override {
    ++calls_;
    KernelDecorator::matmul(out, a, b, options);
  }

 private:
  int64_t& calls_;
};

struct Course {
  std::vector<std::vector<std::vector<float>>> gradients, values;  // of each step and parameter
  std::vector<double> losses;
  std::vector<int64_t> completed;  // gradients, in each step
  int64_t matmuls_of_last_step = 0;
};

constexpr int64_t steps = 3, micro_batches_of_a_step = 3;

TrainOptions options_of(Dtype dtype) {
  TrainOptions options;
  options.llama = {.dim = 16, .layers = 1, .heads = 2, .kv_heads = 1, .ffn = 24, .vocab = 256};
  options.length = 8;
  options.batch = 3;
  options.steps = steps;
  options.micro_batches = micro_batches_of_a_step;
  options.dtype = dtype;
  options.measure_peak = false;
  options.resolve(1);
  return options;
}

Course train(const DeviceHandle& device, Dtype dtype, bool with_graphs, bool each_micro_batch) {
  const TrainOptions options = options_of(dtype);
  const auto task = make_task("llama", options);
  const auto model = task->make_model();
  materialize(*model, device, options.precision(), options.seed);
  const auto parameters = parameters_of(*model);
  const auto optimizer = make_optimizer(options.optimizer, parameters, options.seed);
  Course course;
  device->decorate_kernels([&](std::unique_ptr<Kernels> inner) {
    return std::make_unique<Counted>(std::move(inner), course.matmuls_of_last_step);
  });
  for (Parameter* parameter : parameters) {
    parameter->on_gradient_complete = [&] { ++course.completed.back(); };
  }
  std::optional<MicroBatchGraphs> graphs;
  if (with_graphs) graphs.emplace(*model, parameters, *task, device);
  for (int64_t step = 0; step < steps; ++step) {
    GlobalBatch batch{step, {}};
    for (int64_t i = 0; i < options.batch; ++i) batch.indices.push_back(step * 100 + i * 7);
    course.completed.push_back(0);
    course.matmuls_of_last_step = 0;
    course.losses.push_back(accumulate_gradients(*model, parameters, *task, device,
                                                 micro_batches(batch, *task, options, 0, 1), each_micro_batch,
                                                 graphs ? &*graphs : nullptr));
    course.gradients.emplace_back();
    course.values.emplace_back();
    for (const Parameter* parameter : parameters) course.gradients.back().push_back(to_floats(parameter->gradient));
    optimizer->step(1e-2, 1);
    for (const Parameter* parameter : parameters) course.values.back().push_back(to_floats(parameter->value));
  }
  return course;
}

void expect_same_course(Dtype dtype, bool each_micro_batch) {
  const DeviceHandle one = make_test_device(), other = make_test_device();
  if (one->type() == DeviceType::cpu) GTEST_SKIP() << "the cpu records nothing";
  const Course told = train(one, dtype, false, each_micro_batch);
  const Course repeated = train(other, dtype, true, each_micro_batch);
  EXPECT_EQ(told.losses, repeated.losses);
  EXPECT_EQ(told.gradients, repeated.gradients);
  EXPECT_EQ(told.values, repeated.values);
  EXPECT_EQ(told.completed, repeated.completed);
  EXPECT_NE(told.gradients[1], told.gradients[2]) << "steps must differ for this to show anything";
  EXPECT_GT(told.matmuls_of_last_step, 0);
  EXPECT_EQ(repeated.matmuls_of_last_step, 0) << "the host still tells the device";
}

TEST(RepeatedTraining, IsTheSameTraining) {
  expect_same_course(Dtype::f32, /*each_micro_batch=*/false);
  expect_same_course(Dtype::bf16, /*each_micro_batch=*/false);
}

TEST(RepeatedTraining, IsTheSameWhereEveryMicroBatchIsByItself) {
  expect_same_course(Dtype::f32, /*each_micro_batch=*/true);
}

}  // namespace
}  // namespace ninefold
