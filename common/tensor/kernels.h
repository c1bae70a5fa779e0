// What a back end implements: one function an operation, on outputs that ops.cpp has allocated and shapes it has
// checked. The meaning of each is told once, in ops.h. Decorators (faults in tests, unfused forms in benchmarks) wrap
// it.
#pragma once

#include "common/tensor/ops.h"

namespace ninefold {

class Kernels {
 public:
  virtual ~Kernels() = default;

  virtual void matmul(const Tensor& out, const Tensor& a, const Tensor& b, const ops::MatmulOptions& options) = 0;

  // Of 8-bit floats, the product times `scale`. False: the back end has none of these, and has done nothing.
  virtual bool matmul_f8(const Tensor& /*out*/, const Tensor& /*a*/, const Tensor& /*b*/, float /*scale*/,
                         const ops::MatmulOptions& /*options*/) {
    return false;
  }

  virtual void grouped_matmul(const Tensor& out, const Tensor& a, const Tensor& b, const std::vector<int64_t>& counts,
                              const ops::MatmulOptions& options) = 0;

  virtual void fill(const Tensor& x, float value) = 0;
  virtual void copy(const Tensor& destination, const Tensor& source) = 0;
  virtual void copy_columns(const Tensor& destination, int64_t to_column, const Tensor& source, int64_t from_column,
                            int64_t columns) = 0;
  virtual void quantize(const Tensor& q, const Tensor& x, float scale) = 0;
  virtual void dequantize(const Tensor& x, const Tensor& q, float scale) = 0;
  virtual void add(const Tensor& out, const Tensor& x, const Tensor& y) = 0;  // out may be x
  virtual void scale(const Tensor& x, float factor) = 0;
  virtual void add_bias(const Tensor& x, const Tensor& bias) = 0;
  virtual void add_row_sums(const Tensor& sum, const Tensor& x) = 0;
  virtual void exp_difference(const Tensor& out, const Tensor& x, const Tensor& y) = 0;
  virtual void log_sum(const Tensor& out, const Tensor& shift, const Tensor& sum) = 0;
  virtual void relu(const Tensor& y, const Tensor& x) = 0;
  virtual void relu_backward(const Tensor& dx, const Tensor& dy, const Tensor& y) = 0;
  virtual void swiglu(const Tensor& y, const Tensor& gate, const Tensor& up) = 0;
  virtual void swiglu_backward(const ops::SwigluGradients& out, const Tensor& dy, const Tensor& gate,
                               const Tensor& up) = 0;
  virtual void dropout(const Tensor& y, const Tensor& x, float probability, const ops::DropoutKey& key) = 0;

  virtual void rms_norm(const ops::RmsNorm& out, const Tensor& x, const Tensor& residual, const Tensor& weight,
                        float eps) = 0;
  virtual void rms_norm_backward(const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& residual,
                                 const Tensor& weight, const Tensor& inverse_deviation, const Tensor& dsum,
                                 const Tensor& dweight) = 0;
  virtual void rope(const Tensor& x, const Tensor& positions, const std::vector<double>& frequencies,
                    ops::RopeDirection direction) = 0;

  virtual void attention_block(const ops::Attention& out, const Tensor& q, const Tensor& q_positions, const Tensor& k,
                               const Tensor& v, const Tensor& k_positions, const ops::AttentionShape& shape) = 0;
  virtual void attention_block_backward(const ops::AttentionGradients& out, const Tensor& dout, const Tensor& q,
                                        const Tensor& q_positions, const Tensor& k, const Tensor& v,
                                        const Tensor& k_positions, const ops::Attention& forward,
                                        const ops::AttentionShape& shape) = 0;
  virtual void merge_attention(const ops::Attention& sum, const ops::Attention& block,
                               const ops::AttentionShape& shape) = 0;

  virtual void embedding(const Tensor& out, const Tensor& tokens, const Tensor& table,
                         const std::optional<ops::VocabularyPart>& part) = 0;
  virtual void embedding_backward(const Tensor& dtable, const Tensor& tokens, const Tensor& dy,
                                  const std::optional<ops::VocabularyPart>& part) = 0;
  virtual void add_weighted_rows(const Tensor& sum, const Tensor& rows, const Tensor& index, const Tensor& weights) = 0;
  virtual void weighted_rows_backward(const ops::WeightedRowsGradients& out, const Tensor& dy, const Tensor& rows,
                                      const Tensor& index, const Tensor& weights) = 0;
  virtual void cross_entropy(const ops::CrossEntropy& out, const Tensor& logits, const Tensor& targets) = 0;
  virtual void cross_entropy_backward(const Tensor& logits, const Tensor& targets, const Tensor& log_sum_exp,
                                      float scale, const std::optional<ops::VocabularyPart>& part) = 0;
  virtual void partial_cross_entropy(const ops::PartialCrossEntropy& out, const Tensor& logits, const Tensor& targets,
                                     const ops::VocabularyPart& part) = 0;
  virtual void log_softmax(const Tensor& y, const Tensor& x) = 0;
  virtual void nll(const Tensor& losses, const Tensor& log_probabilities, const Tensor& targets) = 0;
  virtual void log_softmax_nll_backward(const Tensor& dx, const Tensor& log_probabilities, const Tensor& targets,
                                        float scale) = 0;
  virtual int64_t count_correct(const Tensor& scores, const Tensor& targets) = 0;

  virtual void convolution(const Tensor& y, const Tensor& x, const Tensor& weight, const Tensor& bias) = 0;
  // dx is undefined where the caller does not need it.
  virtual void convolution_backward(const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& weight,
                                    const Tensor& dweight, const Tensor& dbias) = 0;
  virtual void max_pool(const ops::MaxPool& out, const Tensor& x) = 0;
  virtual void max_pool_backward(const Tensor& dx, const Tensor& dy, const Tensor& index) = 0;

  virtual double sum(const Tensor& x) = 0;
  virtual float absolute_max(const Tensor& x) = 0;
  virtual ops::ExactSum sum_of_squares(const Tensor& x) = 0;
  virtual void fill_random(const Tensor& x, const ops::Distribution& distribution, uint64_t key,
                           int64_t first_element) = 0;

  virtual void adamw(const ops::UpdateTensors& update, const Tensor& exp_avg, const Tensor& exp_avg_sq,
                     const ops::Adamw& settings) = 0;
  virtual void adadelta(const ops::UpdateTensors& update, const Tensor& square_avg, const Tensor& acc_delta,
                        const ops::Adadelta& settings) = 0;
  virtual void sgd(const ops::UpdateTensors& update, const Tensor& momentum_buffer, const ops::Sgd& settings) = 0;

  // How the back end does its arithmetic, for the report: "oneDNN 2.6.3, AVX-512, bf16 native".
  virtual std::string description() const = 0;
};

}  // namespace ninefold
