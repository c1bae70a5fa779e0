#include "05_tensor_parallel/loss.h"

namespace ninefold {

// log(sum over all parts p of exp(own_p)) = largest + log(sum of exp(own_p - largest)).
void LossParallelCrossEntropy::forward(const Tensor& logits, Saved& saved) {
  const auto [own, target_logit] = ops::partial_cross_entropy(logits, saved.step().targets, part_);
  const Tensor largest = ops::cast(own, Dtype::f32);
  group_.all_reduce(largest, ReduceOp::max);
  const Tensor sum = ops::exp_difference(own, largest);
  group_.all_reduce(sum);
  group_.all_reduce(target_logit);

  const Tensor log_sum_exp = ops::log_sum(largest, sum);
  saved.push(logits);
  saved.push(log_sum_exp);
  ops::scale_(target_logit, -1);
  saved.step().losses = ops::add(log_sum_exp, target_logit);
}

Tensor LossParallelCrossEntropy::backward(Saved& saved) {
  const Tensor log_sum_exp = saved.pop(), logits = saved.pop();
  const Step& step = saved.step();
  ops::cross_entropy_backward_(logits, step.targets, log_sum_exp, 1.0f / static_cast<float>(step.global_targets),
                               part_);
  return logits;
}

}  // namespace ninefold
