// An embedding and a loss whose vocabulary is divided over the ranks of a group: rank r holds the r-th block of its
// ids, the last ones padded where the ranks do not divide it.
#pragma once

#include "05_tensor_parallel/conjugates.h"
#include "common/nn/embedding.h"
#include "common/nn/layer.h"

namespace ninefold {

// The ids that a rank of the group holds.
inline ops::VocabularyPart vocabulary_part(const Group& group, int64_t vocabulary) {
  const OwnColumns own = own_columns(group, vocabulary);
  return {.first = own.first, .count = own.count};
}

// Every rank looks up the tokens it has, zeros for the others; the sum over the ranks is the row.
// Output Replicate: forward: all_reduce       backward: identity
//        Shard(0):  forward: reduce_scatter   backward: all_gather
class VocabularyParallelEmbedding : public Layer {
 public:
  VocabularyParallelEmbedding(std::unique_ptr<Embedding> embedding, const Group& group, const LayerEnd& output)
      : embedding_(std::move(embedding)), part_(vocabulary_part(group, embedding_->weight.shape[0])), output_(output) {}

  Tensor forward(const Tensor& tokens, Saved& saved) override {
    saved.push(tokens);
    return output_.forward(ops::embedding(tokens, embedding_->weight.value, part_));
  }
  Tensor backward(const Tensor& dy, Saved& saved) override {
    saved.add_weight_gradients([this, tokens = saved.pop(), whole = output_.backward(dy)] {
      embedding_->weight.add_gradient(
          [&](const Tensor& dtable) { ops::embedding_backward(dtable, tokens, whole, part_); });
    });
    return {};
  }
  void visit(Visitor& visitor) override { embedding_->visit(visitor); }

 private:
  std::unique_ptr<Embedding> embedding_;
  ops::VocabularyPart part_;
  LayerEnd output_;
};

}  // namespace ninefold
