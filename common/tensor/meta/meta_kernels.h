// Operations on shapes alone: outputs keep their unspecified (absent) contents and nothing is read.
#pragma once

#include <string>

#include "common/tensor/kernels.h"

namespace ninefold {

class MetaKernels final : public Kernels {
 public:
  void matmul(const Tensor&, const Tensor&, const Tensor&, const ops::MatmulOptions&) override {}
  void grouped_matmul(const Tensor&, const Tensor&, const Tensor&, const std::vector<int64_t>&,
                      const ops::MatmulOptions&) override {}
  void fill(const Tensor&, float) override {}
  void copy(const Tensor&, const Tensor&) override {}
  void copy_columns(const Tensor&, int64_t, const Tensor&, int64_t, int64_t) override {}
  void quantize(const Tensor&, const Tensor&, float) override {}
  void dequantize(const Tensor&, const Tensor&, float) override {}
  void add(const Tensor&, const Tensor&, const Tensor&) override {}
  void scale(const Tensor&, float) override {}
  void add_bias(const Tensor&, const Tensor&) override {}
  void add_row_sums(const Tensor&, const Tensor&) override {}
  void exp_difference(const Tensor&, const Tensor&, const Tensor&) override {}
  void log_sum(const Tensor&, const Tensor&, const Tensor&) override {}
  void relu(const Tensor&, const Tensor&) override {}
  void relu_backward(const Tensor&, const Tensor&, const Tensor&) override {}
  void swiglu(const Tensor&, const Tensor&, const Tensor&) override {}
  void swiglu_backward(const ops::SwigluGradients&, const Tensor&, const Tensor&, const Tensor&) override {}
  void dropout(const Tensor&, const Tensor&, float, const ops::DropoutKey&) override {}
  void rms_norm(const ops::RmsNorm&, const Tensor&, const Tensor&, const Tensor&, float) override {}
  void rms_norm_backward(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                         const Tensor&, const Tensor&) override {}
  void rope(const Tensor&, const Tensor&, const std::vector<double>&, ops::RopeDirection) override {}
  void attention_block(const ops::Attention&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                       const ops::AttentionShape&) override {}
  void attention_block_backward(const ops::AttentionGradients&, const Tensor&, const Tensor&, const Tensor&,
                                const Tensor&, const Tensor&, const Tensor&, const ops::Attention&,
                                const ops::AttentionShape&) override {}
  void merge_attention(const ops::Attention&, const ops::Attention&, const ops::AttentionShape&) override {}
  void embedding(const Tensor&, const Tensor&, const Tensor&, const std::optional<ops::VocabularyPart>&) override {}
  void embedding_backward(const Tensor&, const Tensor&, const Tensor&,
                          const std::optional<ops::VocabularyPart>&) override {}
  void add_weighted_rows(const Tensor&, const Tensor&, const Tensor&, const Tensor&) override {}
  void weighted_rows_backward(const ops::WeightedRowsGradients&, const Tensor&, const Tensor&, const Tensor&,
                              const Tensor&) override {}
  void cross_entropy(const ops::CrossEntropy&, const Tensor&, const Tensor&) override {}
  void cross_entropy_backward(const Tensor&, const Tensor&, const Tensor&, float,
                              const std::optional<ops::VocabularyPart>&) override {}
  void partial_cross_entropy(const ops::PartialCrossEntropy&, const Tensor&, const Tensor&,
                             const ops::VocabularyPart&) override {}
  void log_softmax(const Tensor&, const Tensor&) override {}
  void nll(const Tensor&, const Tensor&, const Tensor&) override {}
  void log_softmax_nll_backward(const Tensor&, const Tensor&, const Tensor&, float) override {}
  int64_t count_correct(const Tensor&, const Tensor&) override { return 0; }
  void convolution(const Tensor&, const Tensor&, const Tensor&, const Tensor&) override {}
  void convolution_backward(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                            const Tensor&) override {}
  void max_pool(const ops::MaxPool&, const Tensor&) override {}
  void max_pool_backward(const Tensor&, const Tensor&, const Tensor&) override {}
  double sum(const Tensor&) override { return 0; }
  float absolute_max(const Tensor&) override { return 0; }
  ops::ExactSum sum_of_squares(const Tensor&) override { return {}; }
  void fill_random(const Tensor&, const ops::Distribution&, uint64_t, int64_t) override {}
  void adamw(const ops::UpdateTensors&, const Tensor&, const Tensor&, const ops::Adamw&) override {}
  void adadelta(const ops::UpdateTensors&, const Tensor&, const Tensor&, const ops::Adadelta&) override {}
  void sgd(const ops::UpdateTensors&, const Tensor&, const ops::Sgd&) override {}
  std::string description() const override { return "shapes only"; }
};

}  // namespace ninefold
