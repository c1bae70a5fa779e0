// Softmax and its losses. A row of logits is read from memory once: the log-sum-exp goes over it in pieces that stay in
// the first-level cache, and rescales what it has when a piece brings a larger maximum.
#include <algorithm>
#include <limits>

#include "common/tensor/cpu/cpu_kernels.h"
#include "common/tensor/cpu/loops.h"

namespace ninefold {
namespace {

using simd::Floats;
using simd::load;
using simd::store;

constexpr float minus_infinity = -std::numeric_limits<float>::infinity();
constexpr int64_t piece_elements = 2048;

float exp_of(float x) { return simd::exp(simd::broadcast(x))[0]; }

// -infinity of an empty row.
template <typename T>
float row_maximum(const T* row, int64_t n) {
  Floats largest = simd::broadcast(minus_infinity);
  simd::for_each_vector(n, [&](int64_t i, auto in_use) {
    largest = simd::maximum(largest, simd::keep(load(row + i, in_use), in_use, minus_infinity));
  });
  return simd::horizontal_max(largest);
}

template <typename T>
float sum_of_exp(const T* row, int64_t n, float shift) {
  return simd::sum_over_vectors(n, [&](int64_t i, auto in_use) {
    return simd::exp(simd::keep(load(row + i, in_use), in_use, minus_infinity) - shift);
  });
}

// log(sum(exp(row))).
template <typename T>
float log_sum_exp(const T* row, int64_t n) {
  float maximum = minus_infinity, sum = 0;
  for (int64_t begin = 0; begin < n; begin += piece_elements) {
    const int64_t count = std::min(piece_elements, n - begin);
    const float larger = std::max(row_maximum(row + begin, count), maximum);
    if (larger == minus_infinity) continue;
    sum = sum * exp_of(maximum - larger) + sum_of_exp(row + begin, count, larger);
    maximum = larger;
  }
  return maximum + simd::log(simd::broadcast(sum))[0];
}

// to[i] = scale * exp(from[i] - shift). `to` may be `from`.
template <typename T>
void scaled_softmax(T* to, const T* from, int64_t n, float shift, float scale) {
  simd::for_each_vector(
      n, [&](int64_t i, auto in_use) { store(to + i, simd::exp(load(from + i, in_use) - shift) * scale, in_use); });
}

// The same, less `scale` at the target.
template <typename T>
void softmax_minus_one_hot(T* to, const T* from, int64_t n, int64_t target, float shift, float scale) {
  const float at_target = scale * (exp_of(static_cast<float>(from[target]) - shift) - 1.0f);
  scaled_softmax(to, from, n, shift, scale);
  to[target] = T(at_target);
}

// The targets' values; throws where one is not a class.
const int32_t* checked_targets(const Tensor& targets, int64_t classes) {
  const int32_t* const values = targets.data<int32_t>();
  for (int64_t row = 0; row < targets.size(); ++row) {
    expect(0 <= values[row] && values[row] < classes, "target {} of row {} is not one of {} classes", values[row], row,
           classes);
  }
  return values;
}

}  // namespace

void CpuKernels::cross_entropy(const ops::CrossEntropy& out, const Tensor& logits, const Tensor& targets) {
  const int64_t classes = logits.dim(1);
  const int32_t* const target = checked_targets(targets, classes);
  for_float_type(logits.dtype(), [&](auto type) {
    for (int64_t row = 0; row < logits.dim(0); ++row) {
      const auto* const scores = logits.data<decltype(type)>() + row * classes;
      const float total = log_sum_exp(scores, classes);
      out.log_sum_exp.data<float>()[row] = total;
      out.losses.data<float>()[row] = total - static_cast<float>(scores[target[row]]);
    }
  });
}

void CpuKernels::partial_cross_entropy(const ops::PartialCrossEntropy& out, const Tensor& logits, const Tensor& targets,
                                       const ops::VocabularyPart& part) {
  const int32_t* const target = targets.data<int32_t>();
  for_float_type(logits.dtype(), [&](auto type) {
    for (int64_t row = 0; row < logits.dim(0); ++row) {
      const auto* const scores = logits.data<decltype(type)>() + row * logits.dim(1);
      const bool is_here = part.has(target[row]);
      out.log_sum_exp.data<float>()[row] = log_sum_exp(scores, part.count);
      out.target_logit.data<float>()[row] = is_here ? static_cast<float>(scores[target[row] - part.first]) : 0.0f;
    }
  });
}

void CpuKernels::cross_entropy_backward(const Tensor& logits, const Tensor& targets, const Tensor& log_sum_exp,
                                        float scale, const std::optional<ops::VocabularyPart>& part) {
  const int64_t columns = logits.dim(1);
  const ops::VocabularyPart held = part.value_or(ops::VocabularyPart{0, columns});
  const int32_t* const target = part ? targets.data<int32_t>() : checked_targets(targets, columns);
  for_float_type(logits.dtype(), [&](auto type) {
    using T = decltype(type);
    for (int64_t row = 0; row < logits.dim(0); ++row) {
      T* const scores = logits.data<T>() + row * columns;
      const float shift = log_sum_exp.data<float>()[row];
      if (held.has(target[row])) {
        softmax_minus_one_hot(scores, scores, held.count, target[row] - held.first, shift, scale);
      } else {
        scaled_softmax(scores, scores, held.count, shift, scale);
      }
      std::fill(scores + held.count, scores + columns, T(0.0f));
    }
  });
}

void CpuKernels::log_softmax(const Tensor& y, const Tensor& x) {
  const int64_t classes = x.dim(1);
  for_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    for (int64_t row = 0; row < x.dim(0); ++row) {
      const T* const from = x.data<T>() + row * classes;
      T* const to = y.data<T>() + row * classes;
      const float total = log_sum_exp(from, classes);
      simd::for_each_vector(classes,
                            [&](int64_t i, auto in_use) { store(to + i, load(from + i, in_use) - total, in_use); });
    }
  });
}

void CpuKernels::nll(const Tensor& losses, const Tensor& log_probabilities, const Tensor& targets) {
  const int64_t classes = log_probabilities.dim(1);
  const int32_t* const target = checked_targets(targets, classes);
  for_float_type(log_probabilities.dtype(), [&](auto type) {
    const auto* const values = log_probabilities.data<decltype(type)>();
    for (int64_t row = 0; row < targets.size(); ++row) {
      losses.data<float>()[row] = -static_cast<float>(values[row * classes + target[row]]);
    }
  });
}

void CpuKernels::log_softmax_nll_backward(const Tensor& dx, const Tensor& log_probabilities, const Tensor& targets,
                                          float scale) {
  const int64_t classes = dx.dim(1);
  const int32_t* const target = checked_targets(targets, classes);
  for_float_type(dx.dtype(), [&](auto type) {
    using T = decltype(type);
    for (int64_t row = 0; row < targets.size(); ++row) {
      softmax_minus_one_hot(dx.data<T>() + row * classes, log_probabilities.data<T>() + row * classes, classes,
                            target[row], 0, scale);
    }
  });
}

int64_t CpuKernels::count_correct(const Tensor& scores, const Tensor& targets) {
  const int64_t classes = scores.dim(1);
  const int32_t* const target = checked_targets(targets, classes);
  int64_t correct = 0;
  for_float_type(scores.dtype(), [&](auto type) {
    for (int64_t row = 0; row < targets.size(); ++row) {
      const auto* const values = scores.data<decltype(type)>() + row * classes;
      const float chosen = static_cast<float>(values[target[row]]);
      const bool first = target[row] == 0 || row_maximum(values, target[row]) < chosen;
      correct += first && row_maximum(values, classes) <= chosen;
    }
  });
  return correct;
}

}  // namespace ninefold
