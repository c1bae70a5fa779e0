// Losses and what is counted beside them.
#include "common/tensor/operation.h"
#include "common/tensor/ops.h"

namespace ninefold::ops {
namespace {

// scores [n, classes] of a float type, targets i32 [n].
void check_classes(const Operation& op, const Tensor& scores, const Tensor& targets) {
  op.is_float(scores);
  op.has_rank(scores, 2);
  op.has_dtype(targets, Dtype::i32);
  op.has_shape(targets, {scores.dim(0)});
}

}  // namespace

CrossEntropy cross_entropy(const Tensor& logits, const Tensor& targets) {
  const Operation op("cross_entropy", {&logits, &targets});
  check_classes(op, logits, targets);
  const Shape rows = {logits.dim(0)};
  const CrossEntropy result{Tensor::empty(logits.device(), rows, Dtype::f32),
                            Tensor::empty(logits.device(), rows, Dtype::f32)};
  op.kernels().cross_entropy(result, logits, targets);
  op.done(4.0 * static_cast<double>(logits.size()), {&logits, &targets, &result.losses, &result.log_sum_exp});
  return result;
}

PartialCrossEntropy partial_cross_entropy(const Tensor& logits, const Tensor& targets, const VocabularyPart& part) {
  const Operation op("partial_cross_entropy", {&logits, &targets});
  check_classes(op, logits, targets);
  expect(part.count <= logits.dim(1), "partial_cross_entropy: {} columns have no {}", logits.dim(1), part.count);
  const Shape rows = {logits.dim(0)};
  const PartialCrossEntropy result{Tensor::empty(logits.device(), rows, Dtype::f32),
                                   Tensor::empty(logits.device(), rows, Dtype::f32)};
  op.kernels().partial_cross_entropy(result, logits, targets, part);
  op.done(4.0 * static_cast<double>(logits.size()), {&logits, &targets, &result.log_sum_exp, &result.target_logit});
  return result;
}

void cross_entropy_backward_(const Tensor& logits, const Tensor& targets, const Tensor& log_sum_exp, float scale,
                             std::optional<VocabularyPart> part) {
  const Operation op("cross_entropy_backward", {&logits, &targets, &log_sum_exp});
  check_classes(op, logits, targets);
  op.has_dtype(log_sum_exp, Dtype::f32);
  op.has_shape(log_sum_exp, {logits.dim(0)});
  op.kernels().cross_entropy_backward(logits, targets, log_sum_exp, scale, part);
  op.done(3.0 * static_cast<double>(logits.size()), {&logits, &logits, &targets, &log_sum_exp});
}

Tensor log_softmax(const Tensor& x) {
  const Operation op("log_softmax", {&x});
  op.is_float(x);
  op.has_rank(x, 2);
  Tensor y = empty_like(x);
  op.kernels().log_softmax(y, x);
  op.done(4.0 * static_cast<double>(x.size()), {&y, &x});
  return y;
}

Tensor nll(const Tensor& log_probabilities, const Tensor& targets) {
  const Operation op("nll", {&log_probabilities, &targets});
  check_classes(op, log_probabilities, targets);
  Tensor losses = Tensor::empty(targets.device(), targets.shape(), Dtype::f32);
  op.kernels().nll(losses, log_probabilities, targets);
  op.done(0, {&losses, &targets, &losses});
  return losses;
}

Tensor log_softmax_nll_backward(const Tensor& log_probabilities, const Tensor& targets, float scale) {
  const Operation op("log_softmax_nll_backward", {&log_probabilities, &targets});
  check_classes(op, log_probabilities, targets);
  Tensor dx = empty_like(log_probabilities);
  op.kernels().log_softmax_nll_backward(dx, log_probabilities, targets, scale);
  op.done(3.0 * static_cast<double>(dx.size()), {&dx, &log_probabilities, &targets});
  return dx;
}

int64_t count_correct(const Tensor& scores, const Tensor& targets) {
  const Operation op("count_correct", {&scores, &targets});
  check_classes(op, scores, targets);
  const int64_t correct = op.kernels().count_correct(scores, targets);
  op.done(static_cast<double>(scores.size()), {&scores, &targets});
  return correct;
}

}  // namespace ninefold::ops
