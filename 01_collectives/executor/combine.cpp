#include "01_collectives/executor/combine.h"

#include "common/tensor/cpu/simd.h"

namespace ninefold::collectives {
namespace {

// The vectors in which T is added: f32 for bf16 and f16, unsigned integers for i32 because they wrap around.
template <typename T, typename InUse>
simd::Floats load(const T* source, InUse in_use) {
  return simd::load(source, in_use);
}
template <typename InUse>
simd::Words load(const int32_t* source, InUse in_use) {
  return simd::load_raw<simd::Words>(source, in_use);
}
template <typename T, typename InUse>
void store(T* target, simd::Floats x, InUse in_use) {
  simd::store(target, x, in_use);
}
template <typename InUse>
void store(int32_t* target, simd::Words x, InUse in_use) {
  simd::store_raw(target, x, in_use);
}

simd::Floats minimum(simd::Floats a, simd::Floats b) { return simd::minimum(a, b); }
simd::Floats maximum(simd::Floats a, simd::Floats b) { return simd::maximum(a, b); }
simd::Words minimum(simd::Words a, simd::Words b) {
  return std::bit_cast<simd::Ints>(a) < std::bit_cast<simd::Ints>(b) ? a : b;
}
simd::Words maximum(simd::Words a, simd::Words b) {
  return std::bit_cast<simd::Ints>(a) > std::bit_cast<simd::Ints>(b) ? a : b;
}

template <ReduceOp op, typename Vector>
Vector combined(Vector a, Vector b) {
  if constexpr (op == ReduceOp::min) return minimum(a, b);
  if constexpr (op == ReduceOp::max) return maximum(a, b);
  if constexpr (op == ReduceOp::product) return a * b;
  if constexpr (op == ReduceOp::sum || op == ReduceOp::avg) return a + b;
}

template <ReduceOp op, typename Vector>
Vector finished(Vector sum, float factor) {
  if constexpr (op == ReduceOp::avg) return sum * factor;
  return sum;
}

template <typename T, ReduceOp op>
void combine_typed(T* target, std::span<const void* const> pieces, int64_t count, float factor) {
  const auto piece = [&](size_t index) { return static_cast<const T*>(pieces[index]); };
  if (pieces.size() == 2) {
    const T* const a = piece(0);
    const T* const b = piece(1);
    simd::for_each_vector(count, [&](int64_t i, auto in_use) {
      store(target + i, finished<op>(combined<op>(load(a + i, in_use), load(b + i, in_use)), factor), in_use);
    });
    return;
  }
  simd::for_each_vector(count, [&](int64_t i, auto in_use) {
    auto sum = load(piece(0) + i, in_use);
    for (size_t index = 1; index < pieces.size(); ++index) sum = combined<op>(sum, load(piece(index) + i, in_use));
    store(target + i, finished<op>(sum, factor), in_use);
  });
}

template <typename T>
void combine_as(void* target, std::span<const void* const> pieces, int64_t count, ReduceOp op, float factor) {
  T* const typed = static_cast<T*>(target);
  switch (op) {
    case ReduceOp::sum:
      return combine_typed<T, ReduceOp::sum>(typed, pieces, count, factor);
    case ReduceOp::avg:
      if constexpr (!std::is_same_v<T, int32_t>) {
        return combine_typed<T, ReduceOp::avg>(typed, pieces, count, factor);
      }
      return expect(false, "an average of i32 is not an i32: use sum");
    case ReduceOp::min:
      return combine_typed<T, ReduceOp::min>(typed, pieces, count, factor);
    case ReduceOp::max:
      return combine_typed<T, ReduceOp::max>(typed, pieces, count, factor);
    case ReduceOp::product:
      return combine_typed<T, ReduceOp::product>(typed, pieces, count, factor);
  }
}

}  // namespace

void combine(void* target, std::span<const void* const> pieces, int64_t count, Dtype dtype, ReduceOp op, int ranks) {
  const float factor = 1.0f / static_cast<float>(ranks);
  switch (dtype) {
    case Dtype::f32:
      return combine_as<float>(target, pieces, count, op, factor);
    case Dtype::bf16:
      return combine_as<bf16>(target, pieces, count, op, factor);
    case Dtype::f16:
      return combine_as<f16>(target, pieces, count, op, factor);
    case Dtype::i32:
      return combine_as<int32_t>(target, pieces, count, op, factor);
    case Dtype::f8_e4m3:
    case Dtype::f8_e5m2:
      return expect(false, "{} is not added", name_of(dtype));
  }
}

}  // namespace ninefold::collectives
