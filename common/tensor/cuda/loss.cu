// Softmax and its losses: one block a row. A row of logits is read once; each thread keeps the largest of its logits
// and the sum of exponentials relative to it.
#include "common/tensor/cuda/gpu_kernels.h"
#include "common/tensor/cuda/loops.h"

namespace ninefold::NINEFOLD_GPU {
namespace {

// log(sum(exp(row))), in every thread.
template <typename T>
__device__ float log_sum_exp(const T* row, int64_t n) {
  float maximum = -INFINITY, sum = 0;
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
    const float value = static_cast<float>(row[i]), larger = fmaxf(maximum, value);
    if (larger == -INFINITY && value == value) continue;
    sum = sum * expf(maximum - larger) + expf(value - larger);
    maximum = larger;
  }
  const float whole_maximum = reduce_block(maximum, -INFINITY, Largest());
  const float part = sum == 0.0f ? 0.0f : sum * expf(maximum - whole_maximum);
  return whole_maximum + logf(sum_over_block(part));
}

// The target of a row, 0 in place of what is not a class.
struct Targets {
  const int32_t* values;
  int64_t classes;
  Faults* faults;

  __device__ int64_t operator()(int64_t row) const {
    if (0 <= values[row] && values[row] < classes) return values[row];
    faults->target = fault_of(row, values[row]);
    return 0;
  }
};

template <typename T>
struct CrossEntropy {
  float *losses, *log_sums;
  const T* logits;
  Targets targets;
  int64_t classes;

  __device__ void operator()(int64_t row) const {
    const T* const scores = logits + row * classes;
    const float total = log_sum_exp(scores, classes);
    if (threadIdx.x > 0) return;
    log_sums[row] = total;
    losses[row] = total - static_cast<float>(scores[targets(row)]);
  }
};

template <typename T>
struct PartialCrossEntropy {
  float *log_sums, *target_logits;
  const T* logits;
  const int32_t* targets;
  int64_t columns;
  ops::VocabularyPart part;

  __device__ void operator()(int64_t row) const {
    const T* const scores = logits + row * columns;
    const float total = log_sum_exp(scores, part.count);
    if (threadIdx.x > 0) return;
    const int64_t target = targets[row] - part.first;
    log_sums[row] = total;
    target_logits[row] = 0 <= target && target < part.count ? static_cast<float>(scores[target]) : 0.0f;
  }
};

// to = scale * (exp(from - shift) - one_hot(target)), where `shift` is the row's or 0. `to` may be `from`.
template <typename T>
struct SoftmaxMinusOneHot {
  T* to;
  const T* from;
  const int32_t* targets;
  const float* shifts;
  float scale;
  int64_t columns, first, count;
  bool is_whole;
  Faults* faults;

  __device__ void operator()(int64_t i) const {
    const int64_t row = i / columns, column = i % columns, target = targets[row] - first;
    if (is_whole && (target < 0 || target >= count)) faults->target = fault_of(row, targets[row]);
    const float power = expf(static_cast<float>(from[i]) - (shifts ? shifts[row] : 0.0f));
    to[i] = T(column < count ? scale * (power - (column == target ? 1.0f : 0.0f)) : 0.0f);
  }
};

template <typename T>
struct LogSoftmax {
  T* y;
  const T* x;
  int64_t classes;

  __device__ void operator()(int64_t row) const {
    const float total = log_sum_exp(x + row * classes, classes);
    for (int64_t i = row * classes + threadIdx.x; i < (row + 1) * classes; i += blockDim.x) {
      y[i] = T(static_cast<float>(x[i]) - total);
    }
  }
};

template <typename T>
struct NegativeLogLikelihood {
  float* losses;
  const T* log_probabilities;
  Targets targets;
  int64_t classes;

  __device__ void operator()(int64_t row) const {
    losses[row] = -static_cast<float>(log_probabilities[row * classes + targets(row)]);
  }
};

// Counts the row where no score before the target's reaches it, and none after it is larger.
template <typename T>
struct CountCorrect {
  int32_t* correct;
  const T* scores;
  Targets targets;
  int64_t classes;

  __device__ void operator()(int64_t row) const {
    const T* const values = scores + row * classes;
    const int64_t target = targets(row);
    const float chosen = static_cast<float>(values[target]);
    bool is_beaten = false;
    for (int64_t i = threadIdx.x; i < classes; i += blockDim.x) {
      const float value = static_cast<float>(values[i]);
      is_beaten |= i < target ? !(value < chosen) : !(value <= chosen);
    }
    is_beaten = __syncthreads_or(is_beaten) != 0;
    if (threadIdx.x == 0 && !is_beaten) atomicAdd(correct, 1);
  }
};

}  // namespace

void GpuKernels::cross_entropy(const ops::CrossEntropy& out, const Tensor& logits, const Tensor& targets) {
  const int64_t classes = logits.dim(1);
  for_float_type(logits.dtype(), [&](auto type) {
    using T = decltype(type);
    for_each_row(stream_, logits.dim(0),
                 CrossEntropy<T>{out.losses.address<float>(), out.log_sum_exp.address<float>(), logits.address<T>(),
                                 Targets{targets.address<int32_t>(), classes, faults_}, classes});
  });
}

void GpuKernels::partial_cross_entropy(const ops::PartialCrossEntropy& out, const Tensor& logits, const Tensor& targets,
                                       const ops::VocabularyPart& part) {
  for_float_type(logits.dtype(), [&](auto type) {
    using T = decltype(type);
    for_each_row(stream_, logits.dim(0),
                 PartialCrossEntropy<T>{out.log_sum_exp.address<float>(), out.target_logit.address<float>(),
                                        logits.address<T>(), targets.address<int32_t>(), logits.dim(1), part});
  });
}

void GpuKernels::cross_entropy_backward(const Tensor& logits, const Tensor& targets, const Tensor& log_sum_exp,
                                        float scale, const std::optional<ops::VocabularyPart>& part) {
  const int64_t columns = logits.dim(1);
  const ops::VocabularyPart held = part.value_or(ops::VocabularyPart{0, columns});
  for_float_type(logits.dtype(), [&](auto type) {
    using T = decltype(type);
    for_each(
        stream_, logits.size(),
        SoftmaxMinusOneHot<T>{logits.address<T>(), logits.address<T>(), targets.address<int32_t>(),
                              log_sum_exp.address<float>(), scale, columns, held.first, held.count, !part, faults_});
  });
}

void GpuKernels::log_softmax(const Tensor& y, const Tensor& x) {
  for_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    for_each_row(stream_, x.dim(0), LogSoftmax<T>{y.address<T>(), x.address<T>(), x.dim(1)});
  });
}

void GpuKernels::nll(const Tensor& losses, const Tensor& log_probabilities, const Tensor& targets) {
  const int64_t classes = log_probabilities.dim(1);
  for_float_type(log_probabilities.dtype(), [&](auto type) {
    using T = decltype(type);
    for_each(stream_, targets.size(),
             NegativeLogLikelihood<T>{losses.address<float>(), log_probabilities.address<T>(),
                                      Targets{targets.address<int32_t>(), classes, faults_}, classes});
  });
}

void GpuKernels::log_softmax_nll_backward(const Tensor& dx, const Tensor& log_probabilities, const Tensor& targets,
                                          float scale) {
  const int64_t classes = dx.dim(1);
  for_float_type(dx.dtype(), [&](auto type) {
    using T = decltype(type);
    for_each(stream_, dx.size(),
             SoftmaxMinusOneHot<T>{dx.address<T>(), log_probabilities.address<T>(), targets.address<int32_t>(), nullptr,
                                   scale, classes, 0, classes, true, faults_});
  });
}

int64_t GpuKernels::count_correct(const Tensor& scores, const Tensor& targets) {
  const int64_t classes = scores.dim(1);
  const Tensor correct = Tensor::zeros(scores.device(), {1}, Dtype::i32);
  for_float_type(scores.dtype(), [&](auto type) {
    using T = decltype(type);
    for_each_row(stream_, scores.dim(0),
                 CountCorrect<T>{correct.address<int32_t>(), scores.address<T>(),
                                 Targets{targets.address<int32_t>(), classes, faults_}, classes});
  });
  return correct.to_vector<int32_t>()[0];
}

}  // namespace ninefold::NINEFOLD_GPU
