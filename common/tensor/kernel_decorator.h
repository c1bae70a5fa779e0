// A decorator that passes every operation on. Those that change something (faults in tests, unfused forms in
// benchmarks) derive from it and override what they change.
#pragma once

#include <memory>
#include <utility>

#include "common/tensor/kernels.h"

namespace ninefold {

class KernelDecorator : public Kernels {
 public:
  explicit KernelDecorator(std::unique_ptr<Kernels> inner) : inner_(std::move(inner)) {}

  void matmul(const Tensor& out, const Tensor& a, const Tensor& b, const ops::MatmulOptions& options) override {
    inner_->matmul(out, a, b, options);
  }
  bool matmul_f8(const Tensor& out, const Tensor& a, const Tensor& b, float scale,
                 const ops::MatmulOptions& options) override {
    return inner_->matmul_f8(out, a, b, scale, options);
  }
  void grouped_matmul(const Tensor& out, const Tensor& a, const Tensor& b, const std::vector<int64_t>& counts,
                      const ops::MatmulOptions& options) override {
    inner_->grouped_matmul(out, a, b, counts, options);
  }
  void fill(const Tensor& x, float value) override { inner_->fill(x, value); }
  void copy(const Tensor& destination, const Tensor& source) override { inner_->copy(destination, source); }
  void copy_columns(const Tensor& destination, int64_t to_column, const Tensor& source, int64_t from_column,
                    int64_t columns) override {
    inner_->copy_columns(destination, to_column, source, from_column, columns);
  }
  void quantize(const Tensor& q, const Tensor& x, float scale) override { inner_->quantize(q, x, scale); }
  void dequantize(const Tensor& x, const Tensor& q, float scale) override { inner_->dequantize(x, q, scale); }
  void add(const Tensor& out, const Tensor& x, const Tensor& y) override { inner_->add(out, x, y); }
  void scale(const Tensor& x, float factor) override { inner_->scale(x, factor); }
  void add_bias(const Tensor& x, const Tensor& bias) override { inner_->add_bias(x, bias); }
  void add_row_sums(const Tensor& sum, const Tensor& x) override { inner_->add_row_sums(sum, x); }
  void exp_difference(const Tensor& out, const Tensor& x, const Tensor& y) override {
    inner_->exp_difference(out, x, y);
  }
  void log_sum(const Tensor& out, const Tensor& shift, const Tensor& sum) override { inner_->log_sum(out, shift, sum); }
  void relu(const Tensor& y, const Tensor& x) override { inner_->relu(y, x); }
  void relu_backward(const Tensor& dx, const Tensor& dy, const Tensor& y) override { inner_->relu_backward(dx, dy, y); }
  void swiglu(const Tensor& y, const Tensor& gate, const Tensor& up) override { inner_->swiglu(y, gate, up); }
  void swiglu_backward(const ops::SwigluGradients& out, const Tensor& dy, const Tensor& gate,
                       const Tensor& up) override {
    inner_->swiglu_backward(out, dy, gate, up);
  }
  void dropout(const Tensor& y, const Tensor& x, float probability, const ops::DropoutKey& key) override {
    inner_->dropout(y, x, probability, key);
  }
  void rms_norm(const ops::RmsNorm& out, const Tensor& x, const Tensor& residual, const Tensor& weight,
                float eps) override {
    inner_->rms_norm(out, x, residual, weight, eps);
  }
  void rms_norm_backward(const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& residual,
                         const Tensor& weight, const Tensor& inverse_deviation, const Tensor& dsum,
                         const Tensor& dweight) override {
    inner_->rms_norm_backward(dx, dy, x, residual, weight, inverse_deviation, dsum, dweight);
  }
  void rope(const Tensor& x, const Tensor& positions, const std::vector<double>& frequencies,
            ops::RopeDirection direction) override {
    inner_->rope(x, positions, frequencies, direction);
  }
  void attention_block(const ops::Attention& out, const Tensor& q, const Tensor& q_positions, const Tensor& k,
                       const Tensor& v, const Tensor& k_positions, const ops::AttentionShape& shape) override {
    inner_->attention_block(out, q, q_positions, k, v, k_positions, shape);
  }
  void attention_block_backward(const ops::AttentionGradients& out, const Tensor& dout, const Tensor& q,
                                const Tensor& q_positions, const Tensor& k, const Tensor& v, const Tensor& k_positions,
                                const ops::Attention& forward, const ops::AttentionShape& shape) override {
    inner_->attention_block_backward(out, dout, q, q_positions, k, v, k_positions, forward, shape);
  }
  void merge_attention(const ops::Attention& sum, const ops::Attention& block,
                       const ops::AttentionShape& shape) override {
    inner_->merge_attention(sum, block, shape);
  }
  void embedding(const Tensor& out, const Tensor& tokens, const Tensor& table,
                 const std::optional<ops::VocabularyPart>& part) override {
    inner_->embedding(out, tokens, table, part);
  }
  void embedding_backward(const Tensor& dtable, const Tensor& tokens, const Tensor& dy,
                          const std::optional<ops::VocabularyPart>& part) override {
    inner_->embedding_backward(dtable, tokens, dy, part);
  }
  void add_weighted_rows(const Tensor& sum, const Tensor& rows, const Tensor& index, const Tensor& weights) override {
    inner_->add_weighted_rows(sum, rows, index, weights);
  }
  void weighted_rows_backward(const ops::WeightedRowsGradients& out, const Tensor& dy, const Tensor& rows,
                              const Tensor& index, const Tensor& weights) override {
    inner_->weighted_rows_backward(out, dy, rows, index, weights);
  }
  void cross_entropy(const ops::CrossEntropy& out, const Tensor& logits, const Tensor& targets) override {
    inner_->cross_entropy(out, logits, targets);
  }
  void cross_entropy_backward(const Tensor& logits, const Tensor& targets, const Tensor& log_sum_exp, float scale,
                              const std::optional<ops::VocabularyPart>& part) override {
    inner_->cross_entropy_backward(logits, targets, log_sum_exp, scale, part);
  }
  void partial_cross_entropy(const ops::PartialCrossEntropy& out, const Tensor& logits, const Tensor& targets,
                             const ops::VocabularyPart& part) override {
    inner_->partial_cross_entropy(out, logits, targets, part);
  }
  void log_softmax(const Tensor& y, const Tensor& x) override { inner_->log_softmax(y, x); }
  void nll(const Tensor& losses, const Tensor& log_probabilities, const Tensor& targets) override {
    inner_->nll(losses, log_probabilities, targets);
  }
  void log_softmax_nll_backward(const Tensor& dx, const Tensor& log_probabilities, const Tensor& targets,
                                float scale) override {
    inner_->log_softmax_nll_backward(dx, log_probabilities, targets, scale);
  }
  int64_t count_correct(const Tensor& scores, const Tensor& targets) override {
    return inner_->count_correct(scores, targets);
  }
  void convolution(const Tensor& y, const Tensor& x, const Tensor& weight, const Tensor& bias) override {
    inner_->convolution(y, x, weight, bias);
  }
  void convolution_backward(const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& weight,
                            const Tensor& dweight, const Tensor& dbias) override {
    inner_->convolution_backward(dx, dy, x, weight, dweight, dbias);
  }
  void max_pool(const ops::MaxPool& out, const Tensor& x) override { inner_->max_pool(out, x); }
  void max_pool_backward(const Tensor& dx, const Tensor& dy, const Tensor& index) override {
    inner_->max_pool_backward(dx, dy, index);
  }
  float absolute_max(const Tensor& x) override { return inner_->absolute_max(x); }
  double sum(const Tensor& x) override { return inner_->sum(x); }
  ops::ExactSum sum_of_squares(const Tensor& x) override { return inner_->sum_of_squares(x); }
  void fill_random(const Tensor& x, const ops::Distribution& distribution, uint64_t key,
                   int64_t first_element) override {
    inner_->fill_random(x, distribution, key, first_element);
  }
  void adamw(const ops::UpdateTensors& update, const Tensor& exp_avg, const Tensor& exp_avg_sq,
             const ops::Adamw& settings) override {
    inner_->adamw(update, exp_avg, exp_avg_sq, settings);
  }
  void adadelta(const ops::UpdateTensors& update, const Tensor& square_avg, const Tensor& acc_delta,
                const ops::Adadelta& settings) override {
    inner_->adadelta(update, square_avg, acc_delta, settings);
  }
  void sgd(const ops::UpdateTensors& update, const Tensor& momentum_buffer, const ops::Sgd& settings) override {
    inner_->sgd(update, momentum_buffer, settings);
  }
  std::string description() const override { return inner_->description(); }

 protected:
  std::unique_ptr<Kernels> inner_;
};

}  // namespace ninefold
