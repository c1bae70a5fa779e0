// Each fusion of the library undone, as a decorator: the same mathematics in separate passes over memory, so that the
// gain of the fused form can be measured.
#pragma once

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "common/tensor/cpu/loops.h"
#include "common/tensor/kernel_decorator.h"
#include "common/tensor/operation.h"

namespace ninefold::unfused {

using ops::empty_like;
using simd::Floats;

// One pass over memory: out[i] = value(inputs[i]…), all of one type. `out` may be an input.
template <typename Value, typename... Inputs>
void pass(const Tensor& out, Value&& value, const Inputs&... inputs) {
  for_float_type(out.dtype(), [&](auto type) {
    using T = decltype(type);
    [&](T* to, const auto*... from) {
      simd::for_each_vector(out.size(), [&](int64_t i, auto in_use) {
        simd::store(to + i, value(simd::load(from + i, in_use)...), in_use);
      });
    }(out.data<T>(), static_cast<const T*>(inputs.template data<T>())...);
  });
}

// The sum is formed and stored by one operation, normalised by the next; its gradient likewise.
class ResidualAdd : public KernelDecorator {
 public:
  using KernelDecorator::KernelDecorator;

  void rms_norm(const ops::RmsNorm& out, const Tensor& x, const Tensor& residual, const Tensor& weight,
                float eps) override {
    if (!residual.defined()) return inner_->rms_norm(out, x, residual, weight, eps);
    inner_->add(out.sum, x, residual);
    inner_->rms_norm({out.y, Tensor(), out.inverse_deviation}, out.sum, Tensor(), weight, eps);
  }

  void rms_norm_backward(const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& residual,
                         const Tensor& weight, const Tensor& inverse_deviation, const Tensor& dsum,
                         const Tensor& dweight) override {
    Tensor sum = x;
    if (residual.defined()) inner_->add(sum = empty_like(x), x, residual);
    inner_->rms_norm_backward(dx, dy, sum, Tensor(), weight, inverse_deviation, Tensor(), dweight);
    if (dsum.defined()) inner_->add(dx, dx, dsum);
  }
};

// The log-softmax of all logits is stored, the loss gathered from it, and its gradient a tensor of its own.
class CrossEntropy : public KernelDecorator {
 public:
  using KernelDecorator::KernelDecorator;

  void cross_entropy(const ops::CrossEntropy& out, const Tensor& logits, const Tensor& targets) override {
    inner_->fill(out.log_sum_exp, 0);  // the backward has the log-probabilities instead
    log_probabilities_ = empty_like(logits);
    inner_->log_softmax(log_probabilities_, logits);
    inner_->nll(out.losses, log_probabilities_, targets);
  }

  void cross_entropy_backward(const Tensor& logits, const Tensor& targets, const Tensor&, float scale,
                              const std::optional<ops::VocabularyPart>&) override {
    const Tensor dlogits = empty_like(logits);
    inner_->log_softmax_nll_backward(dlogits, log_probabilities_, targets, scale);
    inner_->copy(logits, dlogits);
    log_probabilities_ = Tensor();
  }

 private:
  Tensor log_probabilities_;
};

// One pass for each line of the formula, as an optimizer written with tensor operations makes.
class AdamwUpdate : public KernelDecorator {
 public:
  using KernelDecorator::KernelDecorator;

  void adamw(const ops::UpdateTensors& update, const Tensor& exp_avg, const Tensor& exp_avg_sq,
             const ops::Adamw& settings) override {
    const float beta1 = settings.beta1, beta2 = settings.beta2, eps = settings.eps;
    const auto steps = static_cast<float>(settings.step);
    const float step_size = settings.lr / (1 - std::pow(beta1, steps));
    const float inverse_root = 1 / std::sqrt(1 - std::pow(beta2, steps));
    const float decay = 1 - settings.lr * settings.weight_decay, clip = update.gradient_scale;
    const Tensor &p = update.parameter, g = empty_like(p), denominator = empty_like(p);
    pass(
        g, [=](Floats g) { return g * clip; }, update.gradient);
    pass(
        p, [=](Floats p) { return p * decay; }, p);
    pass(
        exp_avg, [=](Floats m, Floats g) { return m + (g - m) * (1 - beta1); }, exp_avg, g);
    pass(
        exp_avg_sq, [=](Floats v) { return v * beta2; }, exp_avg_sq);
    pass(
        exp_avg_sq, [=](Floats v, Floats g) { return v + g * g * (1 - beta2); }, exp_avg_sq, g);
    pass(
        denominator, [](Floats v) { return simd::sqrt(v); }, exp_avg_sq);
    pass(
        denominator, [=](Floats root) { return root * inverse_root; }, denominator);
    pass(
        denominator, [=](Floats root) { return root + eps; }, denominator);
    pass(
        p, [=](Floats p, Floats m, Floats d) { return p - m * step_size / d; }, p, exp_avg, denominator);
    if (update.compute_copy.defined()) inner_->copy(update.compute_copy, p);
  }
};

// The product goes to a tensor of its own, which is then added.
class MatmulAccumulate : public KernelDecorator {
 public:
  using KernelDecorator::KernelDecorator;

  void matmul(const Tensor& out, const Tensor& a, const Tensor& b, const ops::MatmulOptions& options) override {
    if (!options.accumulate) return inner_->matmul(out, a, b, options);
    const Tensor product = empty_like(out);
    inner_->matmul(product, a, b, {options.transpose_a, options.transpose_b});
    inner_->add(out, out, product);
  }
};

class Swiglu : public KernelDecorator {
 public:
  using KernelDecorator::KernelDecorator;

  void swiglu(const Tensor& y, const Tensor& gate, const Tensor& up) override {
    const Tensor activated = silu(gate);
    pass(
        y, [](Floats a, Floats b) { return a * b; }, activated, up);
  }

  void swiglu_backward(const ops::SwigluGradients& out, const Tensor& dy, const Tensor& gate,
                       const Tensor& up) override {
    const Tensor dactivated = empty_like(gate);
    pass(
        out.dup, [](Floats a, Floats b) { return a * b; }, dy, silu(gate));
    pass(
        dactivated, [](Floats a, Floats b) { return a * b; }, dy, up);
    const auto silu_gradient = [](Floats d, Floats x) {
      const Floats s = simd::sigmoid(x);
      return d * s * (1.0f + x * (1.0f - s));
    };
    pass(out.dgate, silu_gradient, dactivated, gate);
  }

 private:
  static Tensor silu(const Tensor& x) {
    const Tensor y = empty_like(x);
    pass(
        y, [](Floats x) { return x * simd::sigmoid(x); }, x);
    return y;
  }
};

// All scores of all heads are computed, masked, turned into probabilities and kept for the backward: every query
// against every key, no block skipped. As many key heads as query heads.
class Attention : public KernelDecorator {
 public:
  using KernelDecorator::KernelDecorator;

  void attention_block(const ops::Attention& out, const Tensor& q, const Tensor& q_positions, const Tensor& k,
                       const Tensor& v, const Tensor& k_positions, const ops::AttentionShape& shape) override {
    expect(shape.heads == shape.kv_heads, "unfused attention: {} heads, but {} kv-heads", shape.heads, shape.kv_heads);
    inner_->fill(out.log_sum_exp, 0);  // the backward has the probabilities instead
    const Tensor q_heads = by_head(q, shape), k_heads = by_head(k, shape), v_heads = by_head(v, shape);
    const Tensor scores = Tensor::empty(q.device(), {q_heads.dim(0), k_positions.size()}, Dtype::f32);
    products(scores, q_heads, k_heads, {.transpose_b = true}, shape);
    scale_and_mask(scores, q_positions, k_positions, scale_of(shape));
    const Tensor log_probabilities = empty_like(scores);
    inner_->log_softmax(log_probabilities, scores);
    pass(
        scores, [](Floats x) { return simd::exp(x); }, log_probabilities);
    probabilities_.push_back(ops::cast(scores, q.dtype()));
    const Tensor out_heads = empty_like(q_heads);
    products(out_heads, probabilities_.back(), v_heads, {}, shape);
    move_heads(out.out, out_heads, shape, Direction::by_token);
  }

  void attention_block_backward(const ops::AttentionGradients& out, const Tensor& dout, const Tensor& q, const Tensor&,
                                const Tensor& k, const Tensor& v, const Tensor&, const ops::Attention&,
                                const ops::AttentionShape& shape) override {
    const Tensor probabilities = probabilities_.back();
    probabilities_.pop_back();
    const Tensor dout_heads = by_head(dout, shape), gradient = empty_like(dout_heads);
    products(gradient, probabilities, dout_heads, {.transpose_a = true}, shape);
    move_heads(out.dv, gradient, shape, Direction::by_token);
    const Tensor scores = Tensor::empty(q.device(), probabilities.shape(), Dtype::f32);
    products(scores, dout_heads, by_head(v, shape), {.transpose_b = true}, shape);
    softmax_gradient(scores, probabilities, scale_of(shape));
    const Tensor dscores = ops::cast(scores, q.dtype());
    products(gradient, dscores, by_head(k, shape), {}, shape);
    move_heads(out.dq, gradient, shape, Direction::by_token);
    products(gradient, dscores, by_head(q, shape), {.transpose_a = true}, shape);
    move_heads(out.dk, gradient, shape, Direction::by_token);
  }

 private:
  enum class Direction { by_token, by_head };

  static float scale_of(const ops::AttentionShape& shape) { return 1 / std::sqrt(static_cast<float>(shape.head_dim)); }

  // Between [batch * length, heads * head_dim] and [batch * heads * length, head_dim].
  static void move_heads(const Tensor& tokens, const Tensor& heads, const ops::AttentionShape& shape,
                         Direction direction) {
    const int64_t length = tokens.dim(0) / shape.batch, bytes = shape.head_dim * size_of(tokens.dtype());
    for (int64_t row = 0; row < heads.dim(0); ++row) {
      const int64_t position = row % length, head = row / length % shape.heads, sample = row / length / shape.heads;
      auto* const token =
          static_cast<std::byte*>(tokens.raw()) + ((sample * length + position) * shape.heads + head) * bytes;
      auto* const vector = static_cast<std::byte*>(heads.raw()) + row * bytes;
      const bool to_head = direction == Direction::by_head;
      std::memcpy(to_head ? vector : token, to_head ? token : vector, static_cast<size_t>(bytes));
    }
  }
  static Tensor by_head(const Tensor& x, const ops::AttentionShape& shape) {
    const Tensor heads = Tensor::empty(x.device(), {x.dim(0) * shape.heads, shape.head_dim}, x.dtype());
    move_heads(x, heads, shape, Direction::by_head);
    return heads;
  }

  // A product for each sample's each head.
  void products(const Tensor& out, const Tensor& a, const Tensor& b, const ops::MatmulOptions& options,
                const ops::AttentionShape& shape) {
    const int64_t count = shape.batch * shape.heads;
    for (int64_t i = 0; i < count; ++i) {
      const auto part = [&](const Tensor& x) { return x.rows(x.dim(0) / count * i, x.dim(0) / count * (i + 1)); };
      inner_->matmul(part(out), part(a), part(b), options);
    }
  }

  static void scale_and_mask(const Tensor& scores, const Tensor& q_positions, const Tensor& k_positions, float scale) {
    const int64_t queries = q_positions.size(), keys = k_positions.size();
    const int32_t* const k_position = k_positions.data<int32_t>();
    for (int64_t row = 0; row < scores.dim(0); ++row) {
      float* const score = scores.data<float>() + row * keys;
      const int32_t q_position = q_positions.data<int32_t>()[row % queries];
      for (int64_t key = 0; key < keys; ++key) {
        score[key] = k_position[key] <= q_position ? score[key] * scale : -std::numeric_limits<float>::infinity();
      }
    }
  }

  // Turns the gradients of the probabilities into those of the scores, row by row: P (dP - sum(P dP)).
  static void softmax_gradient(const Tensor& gradients, const Tensor& probabilities, float scale) {
    const int64_t keys = gradients.dim(1);
    for_float_type(probabilities.dtype(), [&](auto type) {
      for (int64_t row = 0; row < gradients.dim(0); ++row) {
        float* const gradient = gradients.data<float>() + row * keys;
        const auto* const probability = probabilities.data<decltype(type)>() + row * keys;
        const float sum = simd::sum_over_vectors(keys, [&](int64_t i, auto in_use) {
          return simd::load(probability + i, in_use) * simd::load(gradient + i, in_use);
        });
        simd::for_each_vector(keys, [&](int64_t i, auto in_use) {
          const Floats p = simd::load(probability + i, in_use), d = simd::load(gradient + i, in_use);
          simd::store(gradient + i, p * (d - sum) * scale, in_use);
        });
      }
    });
  }

  std::vector<Tensor> probabilities_;  // one a layer
};

// A fusion by name, and what undoes it.
struct Form {
  const char* fusion;
  std::unique_ptr<Kernels> (*undo)(std::unique_ptr<Kernels>);
};
template <typename Decorator>
std::unique_ptr<Kernels> decorated(std::unique_ptr<Kernels> inner) {
  return std::make_unique<Decorator>(std::move(inner));
}
inline const Form forms[] = {
    {"residual add in the norm", decorated<ResidualAdd>}, {"SwiGLU in one pass", decorated<Swiglu>},
    {"attention by blocks", decorated<Attention>},        {"matmul that accumulates", decorated<MatmulAccumulate>},
    {"cross-entropy in place", decorated<CrossEntropy>},  {"AdamW in one pass", decorated<AdamwUpdate>},
};

}  // namespace ninefold::unfused
