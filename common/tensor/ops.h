// Every operation the course's models need, forward and backward, for f32, bf16 and f16, on every device.
//
// Conventions. Activations are [tokens, features]. Weights are [out, in]. Outputs are new tensors (activations are
// assigned), except that gradients of parameters are accumulated (`+=`) into the tensor given, and functions whose name
// ends in `_` change their first argument. Sums longer than a vector run in f32 whatever the storage type; a gradient
// of a parameter may be f32 while the parameter is bf16 or f16. Undefined tensors mean "absent" where the text allows
// it. An empty tensor is a valid argument everywhere. Shapes that do not fit throw Error.
#pragma once

#include <optional>
#include <string_view>

#include "common/tensor/tensor.h"

namespace ninefold::ops {

// ---- matmul -----------------------------------------------------------------------------------------------------
struct MatmulOptions {
  bool transpose_a = false;
  bool transpose_b = false;
  bool accumulate = false;  // out += a b instead of out = a b
};
// out [m, n] = a [m, k] · b [k, n], each read transposed if asked. a and b share a type; out is that type or f32.
void matmul_into(const Tensor& out, const Tensor& a, const Tensor& b, MatmulOptions options = {});
// The same into a new tensor of a's type.
Tensor matmul(const Tensor& a, const Tensor& b, MatmulOptions options = {});

// The same for the rows of a in consecutive groups, as experts have them: first the counts[0] rows of group 0, then
// those of group 1, …; a group may be empty. Each group has a matrix of its own:
//   out [rows, n] = a [rows, k] · b [groups, k, n]         b read transposed if asked: [groups, n, k]
//   out [groups, m, n] = a [rows, m]ᵀ · b [rows, n]        with transpose_a: the gradient of such matrices
void grouped_matmul_into(const Tensor& out, const Tensor& a, const Tensor& b, const std::vector<int64_t>& counts,
                         MatmulOptions options = {});
// The first form into a new tensor of a's type.
Tensor grouped_matmul(const Tensor& a, const Tensor& b, const std::vector<int64_t>& counts, MatmulOptions options = {});

// out [m, n] = a · b of 8-bit floats that stand for a * a_scale and b * b_scale, as matmul_into. Their products are
// exact in f32, and added in f32. Where the back end has no such product, it is that of two f32 copies, booked as
// workspace.
void matmul_f8_into(const Tensor& out, const Tensor& a, float a_scale, const Tensor& b, float b_scale,
                    MatmulOptions options = {});

// ---- element by element -----------------------------------------------------------------------------------------
void fill_(const Tensor& x, float value);
// Copies the elements, converting the type where it differs. Sizes must agree, shapes need not.
void copy_(const Tensor& destination, const Tensor& source);
Tensor cast(const Tensor& x, Dtype dtype);
// destination[:, to_column + i] = source[:, from_column + i] for i < columns, of two matrices of one type and as many
// rows.
void copy_columns_(const Tensor& destination, int64_t to_column, const Tensor& source, int64_t from_column,
                   int64_t columns);
// The 8-bit floats hold x as q * scale, with a positive and finite scale that moves x into their range: most precise is
// absolute_max(x) / 448 for f8_e4m3. q = x / scale, rounded: in f8_e4m3 what is too large becomes +-448, in f8_e5m2
// +-infinity; NaN stays NaN. x is f32, bf16 or f16; destination and source have equal sizes.
void quantize_(const Tensor& q, const Tensor& x, float scale);
Tensor quantize(const Tensor& x, float scale, Dtype dtype);
// x = q * scale, rounded.
void dequantize_(const Tensor& x, const Tensor& q, float scale);
Tensor dequantize(const Tensor& q, float scale, Dtype dtype);
// x += y; the types may differ.
void add_(const Tensor& x, const Tensor& y);
Tensor add(const Tensor& x, const Tensor& y);
void scale_(const Tensor& x, float factor);
// x [n, features] += bias [features] in every row.
void add_bias_(const Tensor& x, const Tensor& bias);
// sum [features] += the sum of x [n, features] over its rows.
void add_row_sums(const Tensor& sum, const Tensor& x);

// exp(x - y), and shift + log(sum): sums of exponentials whose largest would overflow.
Tensor exp_difference(const Tensor& x, const Tensor& y);
Tensor log_sum(const Tensor& shift, const Tensor& sum);

Tensor relu(const Tensor& x);
Tensor relu_backward(const Tensor& dy, const Tensor& y);
// silu(gate) * up (Shazeer 2020, arXiv 2002.05202).
Tensor swiglu(const Tensor& gate, const Tensor& up);
struct SwigluGradients {
  Tensor dgate, dup;
};
SwigluGradients swiglu_backward(const Tensor& dy, const Tensor& gate, const Tensor& up);

// Which random numbers a dropout draws: all global, so that every layout and every recomputation sees the same mask.
struct DropoutKey {
  uint64_t seed = 0;
  int64_t step = 0;
  int64_t layer = 0;            // distinguishes the dropouts of one model
  int64_t first_sample = 0;     // global index of the sample that row 0 belongs to
  int64_t rows_per_sample = 1;  // row r is position r % rows_per_sample of sample first_sample + r / rows_per_sample
};
// Zeroes each element with the given probability and scales the others by 1 / (1 - probability). Applied to dy with
// the same key it is its own backward. x is [rows, ...].
Tensor dropout(const Tensor& x, float probability, const DropoutKey& key);

// ---- normalisation, positions -----------------------------------------------------------------------------------
// y = x / sqrt(mean(x²) + eps) * weight over the last dimension (Zhang, Sennrich 2019, arXiv 1910.07467).
// With a residual: sum = x + residual (rounded to the storage type) is normalised instead, and returned.
struct RmsNorm {
  Tensor y;
  Tensor sum;                // undefined without a residual
  Tensor inverse_deviation;  // f32 [rows]
};
RmsNorm rms_norm(const Tensor& x, const Tensor& residual, const Tensor& weight, float eps);
// x and residual (may be undefined) are what the forward was given: their sum is formed again, so that the forward's
// `sum` may be overwritten. Adds dweight; returns the gradient of the sum, plus `dsum` where that is defined (what
// flows past the norm on the residual path).
Tensor rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& residual, const Tensor& weight,
                         const Tensor& inverse_deviation, const Tensor& dsum, const Tensor& dweight);

// Rotary positions (Su et al. 2021, arXiv 2104.09864) on half-split pairs (i, i + head_dim / 2), in place.
// x is [batch * length, heads * head_dim]; positions i32 [length] serve every sequence of the batch; `frequencies`, of
// head_dim / 2 pairs, are the radians by which each turns from one position to the next.
enum class RopeDirection { forward, backward };
void rope_(const Tensor& x, const Tensor& positions, const std::vector<double>& frequencies, RopeDirection direction);
// Those of the paper: theta^(-2 i / head_dim) for pair i.
std::vector<double> rope_frequencies(int64_t head_dim, double theta);

// ---- attention --------------------------------------------------------------------------------------------------
// Causal grouped-query attention by blocks with online softmax (Dao 2022, arXiv 2205.14135). A query at position p
// sees the keys at positions <= p. A row that sees no key gives zeros and log-sum-exp -infinity.
struct AttentionShape {
  int64_t batch, heads, kv_heads, head_dim;
  // scores are multiplied by 1 / sqrt(head_dim)

  // For the books: the (query, key) pairs of a sequence that the mask lets through. Absent: where queries and keys have
  // one tensor of positions, those of a sequence that attends to itself; else they are counted, for which the host
  // waits for the device.
  std::optional<int64_t> visible_pairs{};
};
struct Attention {
  Tensor out;          // [batch * queries, heads * head_dim], q's type
  Tensor log_sum_exp;  // f32 [batch, heads, queries], natural logarithm of the scaled scores' sum
};
// q [batch * queries, heads * head_dim], k and v [batch * keys, kv_heads * head_dim]; positions i32 [queries], [keys].
Attention attention_block(const Tensor& q, const Tensor& q_positions, const Tensor& k, const Tensor& v,
                          const Tensor& k_positions, const AttentionShape& shape);
struct AttentionGradients {
  Tensor dq, dk, dv;
};
// `out` and `log_sum_exp` are those of the whole row of scores, even where k and v are one block of several.
AttentionGradients attention_block_backward(const Tensor& dout, const Tensor& q, const Tensor& q_positions,
                                            const Tensor& k, const Tensor& v, const Tensor& k_positions,
                                            const Attention& forward, const AttentionShape& shape);
// Attention over some keys becomes that over more of them: merges the attention of the same queries over other keys
// into `sum`, each weighted with exp(its log-sum-exp - the whole one), however large these are. sum.out is rounded to
// its own type, f32 or narrower, in every merge. A row that sees no key of `block` stays as it is.
void merge_attention_(const Attention& sum, const Attention& block, const AttentionShape& shape);

// ---- embedding, losses ------------------------------------------------------------------------------------------
// Where a vocabulary is divided: what a tensor holds of it. Its first `count` rows or columns are those of the ids
// first, first + 1, …; any more are padding.
struct VocabularyPart {
  int64_t first = 0, count = 0;
  bool has(int64_t id) const { return first <= id && id < first + count; }
};
// tokens i32 [n], table [vocabulary, features] -> [n, features]. Tokens that a part of a table does not have give
// zeros.
Tensor embedding(const Tensor& tokens, const Tensor& table, std::optional<VocabularyPart> part = std::nullopt);
// dtable [vocabulary, features] += rows of dy, in order of n; nothing for tokens that a part does not have.
void embedding_backward(const Tensor& dtable, const Tensor& tokens, const Tensor& dy,
                        std::optional<VocabularyPart> part = std::nullopt);

// x[index]: rows of x [n, features] in another order, or several times. index i32 [m] -> [m, features].
Tensor gather_rows(const Tensor& x, const Tensor& index);
// sum [n, features] += for each j < k weights[i, j] * rows[index[i, j]], in order of j; nothing where the index is -1.
// index i32 [n, k]; weights f32 [n, k], or undefined, for 1.
void add_weighted_rows(const Tensor& sum, const Tensor& rows, const Tensor& index, const Tensor& weights);
struct WeightedRowsGradients {
  Tensor drows;     // [m, features]
  Tensor dweights;  // f32 [n, k], 0 where the index is -1
};
// Of the sum above, given its gradient dy. Every row must have one index.
WeightedRowsGradients weighted_rows_backward(const Tensor& dy, const Tensor& rows, const Tensor& index,
                                             const Tensor& weights);

// Softmax cross-entropy in one pass over the logits. Losses are natural-log, one a row, not divided by anything.
struct CrossEntropy {
  Tensor losses;       // f32 [n]
  Tensor log_sum_exp;  // f32 [n]
};
CrossEntropy cross_entropy(const Tensor& logits, const Tensor& targets);
// Turns the logits [n, vocabulary] into scale * (softmax - one_hot(targets)); where they are a part of a vocabulary,
// those of the part, given the log-sum-exp over all of it. Padding becomes 0.
void cross_entropy_backward_(const Tensor& logits, const Tensor& targets, const Tensor& log_sum_exp, float scale,
                             std::optional<VocabularyPart> part = std::nullopt);
// What a part of a vocabulary's logits contributes to the cross-entropy: its log-sum-exp f32 [n], and the target's
// logit f32 [n], 0 where the part does not have it. Loss = log-sum-exp over all parts less the target's logit.
struct PartialCrossEntropy {
  Tensor log_sum_exp, target_logit;
};
PartialCrossEntropy partial_cross_entropy(const Tensor& logits, const Tensor& targets, const VocabularyPart& part);

Tensor log_softmax(const Tensor& x);  // over the last dimension of [n, classes]
// Negative log likelihood of the targets i32 [n], one f32 a row.
Tensor nll(const Tensor& log_probabilities, const Tensor& targets);
// scale * (exp(log_probabilities) - one_hot(targets)): the gradient of scale * sum(nll) before the log-softmax.
Tensor log_softmax_nll_backward(const Tensor& log_probabilities, const Tensor& targets, float scale);
// Rows whose largest element is the target's (the first of equals counts).
int64_t count_correct(const Tensor& scores, const Tensor& targets);

// ---- convolution ------------------------------------------------------------------------------------------------
// x [n, in, height, width], weight [out, in, kernel, kernel], bias [out]; stride 1, no padding.
Tensor convolution(const Tensor& x, const Tensor& weight, const Tensor& bias);
// dweight and dbias are accumulated. Returns dx, or an undefined tensor unless `needs_dx`.
Tensor convolution_backward(const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& dweight,
                            const Tensor& dbias, bool needs_dx);
// Largest of each 2 x 2 window, stride 2; `index` i32 holds which of the four (0..3, the first of equals).
struct MaxPool {
  Tensor y, index;
};
MaxPool max_pool(const Tensor& x);
Tensor max_pool_backward(const Tensor& dy, const Tensor& index, const Shape& x_shape);

// ---- sums over a whole tensor -----------------------------------------------------------------------------------
// The sum of all elements in f64, in row-major order; on GPUs in another, always the same.
double sum(const Tensor& x);
// The largest |x[i]|, 0 of none; NaN if any element is.
float absolute_max(const Tensor& x);

// A sum in which order cannot matter: squares are added in f64 within each aligned 16-element block, the blocks in
// 128-bit fixed point with 80 bits behind the point: sums reach to 2^47 (a norm of 1e7), and of a block only what
// is below 2^-80 is lost: even elements of 1e-10 count to five digits. Sums of parts add to the sum of
// the whole, to the bit, where parts begin at multiples of 16 elements. Anything not finite, or too large for the fixed
// point, makes the whole `overflow`.
struct ExactSum {
  static constexpr int fraction_bits = 80;
  __int128 fixed = 0;  // in units of 2^-fraction_bits
  bool overflow = false;
  ExactSum& operator+=(const ExactSum& other);
  // Rounded once; infinity after an overflow.
  double value() const;
};
ExactSum sum_of_squares(const Tensor& x);

// ---- initialisation ---------------------------------------------------------------------------------------------
struct Distribution {
  enum class Kind { constant, uniform, normal } kind = Kind::constant;
  double mean = 0;   // constant: the value; normal: the mean; uniform: the centre
  double width = 0;  // normal: standard deviation; uniform: half the interval's length
};
// x[i] = the value of global element first_element + i of the tensor that `key` names (Philox 4x32-10, Salmon et al.
// 2011). The same element has the same bits whatever range it is drawn in.
void fill_random_(const Tensor& x, const Distribution& distribution, uint64_t key, int64_t first_element);

// ---- optimizers: one fused pass over flat ranges; every tensor has the same size ----------------------------------
// The gradient is read as gradient * gradient_scale (clipping). `parameter` is f32 and holds the values that are
// updated; `compute_copy`, if defined, receives them rounded to its type.
struct UpdateTensors {
  Tensor parameter, gradient, compute_copy;
  float gradient_scale = 1;
};
// Loshchilov, Hutter 2019 (arXiv 1711.05101), as torch.optim.AdamW. `step` counts from 1.
struct Adamw {
  float lr, beta1, beta2, eps, weight_decay;
  int64_t step;
};
void adamw_(const UpdateTensors& update, const Tensor& exp_avg, const Tensor& exp_avg_sq, const Adamw& settings);
// Zeiler 2012 (arXiv 1212.5701), as torch.optim.Adadelta.
struct Adadelta {
  float lr, rho, eps, weight_decay;
};
void adadelta_(const UpdateTensors& update, const Tensor& square_avg, const Tensor& acc_delta,
               const Adadelta& settings);
// As torch.optim.SGD. `momentum_buffer` may be undefined when momentum is 0. `step` counts from 1.
struct Sgd {
  float lr, momentum, weight_decay;
  int64_t step;
};
void sgd_(const UpdateTensors& update, const Tensor& momentum_buffer, const Sgd& settings);

}  // namespace ninefold::ops
