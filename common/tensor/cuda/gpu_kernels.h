// The operations on a GPU: matrix products by cuBLASLt, everything else by our own kernels. Their sources also compile
// for the host (fibres/gpu.h), where their arithmetic is tested without a GPU.
#pragma once

#include <gpu.h>  // of device/ or of fibres/

#include <string>

#include "common/tensor/cuda/faults.h"
#include "common/tensor/cuda/products.h"
#include "common/tensor/kernels.h"

namespace ninefold::NINEFOLD_GPU {

class GpuKernels final : public Kernels {
 public:
  // `faults`, in memory that kernels can write, must live as long as the kernels do.
  GpuKernels(Stream stream, Faults* faults) : stream_(stream), faults_(faults), products_(stream) {}

  // matmul.cu
  void matmul(const Tensor& out, const Tensor& a, const Tensor& b, const ops::MatmulOptions& options) override;
  bool matmul_f8(const Tensor& out, const Tensor& a, const Tensor& b, float scale,
                 const ops::MatmulOptions& options) override;
  void grouped_matmul(const Tensor& out, const Tensor& a, const Tensor& b, const std::vector<int64_t>& counts,
                      const ops::MatmulOptions& options) override;

  // elementwise.cu
  void fill(const Tensor& x, float value) override;
  void copy(const Tensor& destination, const Tensor& source) override;
  void copy_columns(const Tensor& destination, int64_t to_column, const Tensor& source, int64_t from_column,
                    int64_t columns) override;
  void quantize(const Tensor& q, const Tensor& x, float scale) override;
  void dequantize(const Tensor& x, const Tensor& q, float scale) override;
  void add(const Tensor& out, const Tensor& x, const Tensor& y) override;
  void scale(const Tensor& x, float factor) override;
  void add_bias(const Tensor& x, const Tensor& bias) override;
  void add_row_sums(const Tensor& sum, const Tensor& x) override;
  void exp_difference(const Tensor& out, const Tensor& x, const Tensor& y) override;
  void log_sum(const Tensor& out, const Tensor& shift, const Tensor& sum) override;
  void relu(const Tensor& y, const Tensor& x) override;
  void relu_backward(const Tensor& dx, const Tensor& dy, const Tensor& y) override;
  void swiglu(const Tensor& y, const Tensor& gate, const Tensor& up) override;
  void swiglu_backward(const ops::SwigluGradients& out, const Tensor& dy, const Tensor& gate,
                       const Tensor& up) override;

  // dropout.cu
  void dropout(const Tensor& y, const Tensor& x, float probability, const ops::DropoutKey& key) override;

  // norm.cu
  void rms_norm(const ops::RmsNorm& out, const Tensor& x, const Tensor& residual, const Tensor& weight,
                float eps) override;
  void rms_norm_backward(const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& residual,
                         const Tensor& weight, const Tensor& inverse_deviation, const Tensor& dsum,
                         const Tensor& dweight) override;

  // rope.cu
  void rope(const Tensor& x, const Tensor& positions, const std::vector<double>& frequencies,
            ops::RopeDirection direction) override;

  // attention_forward.cu, attention_backward.cu, attention_merge.cu
  void attention_block(const ops::Attention& out, const Tensor& q, const Tensor& q_positions, const Tensor& k,
                       const Tensor& v, const Tensor& k_positions, const ops::AttentionShape& shape) override;
  void attention_block_backward(const ops::AttentionGradients& out, const Tensor& dout, const Tensor& q,
                                const Tensor& q_positions, const Tensor& k, const Tensor& v, const Tensor& k_positions,
                                const ops::Attention& forward, const ops::AttentionShape& shape) override;
  void merge_attention(const ops::Attention& sum, const ops::Attention& block,
                       const ops::AttentionShape& shape) override;

  // embedding.cu
  void embedding(const Tensor& out, const Tensor& tokens, const Tensor& table,
                 const std::optional<ops::VocabularyPart>& part) override;
  void embedding_backward(const Tensor& dtable, const Tensor& tokens, const Tensor& dy,
                          const std::optional<ops::VocabularyPart>& part) override;

  // weighted_rows.cu
  void add_weighted_rows(const Tensor& sum, const Tensor& rows, const Tensor& index, const Tensor& weights) override;
  void weighted_rows_backward(const ops::WeightedRowsGradients& out, const Tensor& dy, const Tensor& rows,
                              const Tensor& index, const Tensor& weights) override;

  // loss.cu
  void cross_entropy(const ops::CrossEntropy& out, const Tensor& logits, const Tensor& targets) override;
  void cross_entropy_backward(const Tensor& logits, const Tensor& targets, const Tensor& log_sum_exp, float scale,
                              const std::optional<ops::VocabularyPart>& part) override;
  void partial_cross_entropy(const ops::PartialCrossEntropy& out, const Tensor& logits, const Tensor& targets,
                             const ops::VocabularyPart& part) override;
  void log_softmax(const Tensor& y, const Tensor& x) override;
  void nll(const Tensor& losses, const Tensor& log_probabilities, const Tensor& targets) override;
  void log_softmax_nll_backward(const Tensor& dx, const Tensor& log_probabilities, const Tensor& targets,
                                float scale) override;
  int64_t count_correct(const Tensor& scores, const Tensor& targets) override;

  // convolution.cu
  void convolution(const Tensor& y, const Tensor& x, const Tensor& weight, const Tensor& bias) override;
  void convolution_backward(const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& weight,
                            const Tensor& dweight, const Tensor& dbias) override;

  // pooling.cu
  void max_pool(const ops::MaxPool& out, const Tensor& x) override;
  void max_pool_backward(const Tensor& dx, const Tensor& dy, const Tensor& index) override;

  // reduce.cu
  double sum(const Tensor& x) override;
  float absolute_max(const Tensor& x) override;
  ops::ExactSum sum_of_squares(const Tensor& x) override;

  // random.cu
  void fill_random(const Tensor& x, const ops::Distribution& distribution, uint64_t key,
                   int64_t first_element) override;

  // optim.cu
  void adamw(const ops::UpdateTensors& update, const Tensor& exp_avg, const Tensor& exp_avg_sq,
             const ops::Adamw& settings) override;
  void adadelta(const ops::UpdateTensors& update, const Tensor& square_avg, const Tensor& acc_delta,
                const ops::Adadelta& settings) override;
  void sgd(const ops::UpdateTensors& update, const Tensor& momentum_buffer, const ops::Sgd& settings) override;

  std::string description() const override { return products_.description(); }

 private:
  Stream stream_;
  Faults* faults_;
  Products products_;
};

}  // namespace ninefold::NINEFOLD_GPU
