// What a run says of data that it is not trained on.
#include <algorithm>
#include <numeric>

#include "common/train/trainer.h"

namespace ninefold {

int64_t Trainer::evaluation_samples() const {
  return std::min(options_.eval_batches * options_.batch, task_.samples(Split::evaluation));
}

int64_t Trainer::evaluated_at_once() const {
  if (options_.eval_batch == 0) return options_.micro_batch;
  return (std::min(options_.eval_batch, evaluation_samples()) + data_.size() - 1) / data_.size();
}

void Trainer::evaluate(int64_t steps_done) {
  const OutsideTheBooks outside(world_);
  const int64_t samples = evaluation_samples(), at_once = evaluated_at_once();
  const int64_t first = samples * data_.rank() / data_.size(), end = samples * (data_.rank() + 1) / data_.size();
  // As many forwards on every rank, the last ones perhaps on nothing: a forward may communicate.
  const int64_t most = (samples + data_.size() - 1) / data_.size();
  double loss_sum = 0, correct = 0;
  for (int64_t done = 0; done < most; done += at_once) {
    const int64_t begin = std::min(first + done, end);
    std::vector<int64_t> indices(static_cast<size_t>(std::min(at_once, end - begin)));
    std::iota(indices.begin(), indices.end(), begin);
    const auto& part = parallelism_.sample_part;
    const Batch batch = rows_at(task_.load(world_.device(), Split::evaluation, indices), task_,
                                part ? part->positions : std::vector<int32_t>());
    const Score score = parallelism_.evaluate ? parallelism_.evaluate(batch)
                                              : ninefold::evaluate(model_, task_, world_.device(), batch);
    loss_sum += score.loss_sum;
    correct += score.correct;
  }
  const double rows = static_cast<double>(samples * task_.rows_per_sample());
  const EvaluationRecord found{steps_done, sum_over_data(loss_sum) / rows, sum_over_data(correct) / rows};
  record_.evaluations.push_back(found);
  if (world_.rank() != 0) return;
  fmt::print("after {} steps: evaluation loss {:.5f}, accuracy {:.2f} % of {:.0f} {}\n", found.step, found.loss,
             100 * found.accuracy, rows, task_.unit());
}

}  // namespace ninefold
