// Cross-entropy of logits that no rank has all of (loss parallelism): each rank has the columns of its part of the
// vocabulary, and three numbers a row are reduced instead of gathering the logits.
#pragma once

#include "05_tensor_parallel/embedding.h"

namespace ninefold {

// forward: all_reduce of the largest, of a sum, and of the target's logit, f32 [rows] each   backward: nothing
class LossParallelCrossEntropy : public Loss {
 public:
  LossParallelCrossEntropy(const Group& group, int64_t vocabulary)
      : group_(group), vocabulary_(vocabulary), part_(vocabulary_part(group, vocabulary)) {}

  void forward(const Tensor& logits, Saved& saved) override;
  Tensor backward(Saved& saved) override;
  int64_t count_correct(const Tensor& logits, const Tensor& targets) const override {
    return ops::count_correct(all_gather_columns(group_, logits, vocabulary_), targets);
  }

 private:
  Group group_;
  int64_t vocabulary_;
  ops::VocabularyPart part_;
};

}  // namespace ninefold
