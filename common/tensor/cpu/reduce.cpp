// Sums over whole tensors. The sum of squares goes over four blocks of 16 elements side by side, from f64 into three
// limbs of fixed point in each lane, so that it takes little more time than reading the tensor.
#include <algorithm>
#include <cstring>

#include "common/tensor/cpu/cpu_kernels.h"
#include "common/tensor/cpu/loops.h"

namespace ninefold {
namespace {

// Four lanes, on every processor: a block's sum has the same bits on all of them.
constexpr int four = 4;
using Doubles = double __attribute__((vector_size(32)));
using Longs = int64_t __attribute__((vector_size(32)));

constexpr int64_t block_elements = 16;
constexpr int64_t group_elements = four * block_elements;

Doubles squares_of_block(const float* x) {
  Doubles sums = {};
  for (int64_t i = 0; i < block_elements; i += four) {
    float values __attribute__((vector_size(16)));
    std::memcpy(&values, x + i, sizeof values);
    const Doubles exact = __builtin_convertvector(values, Doubles);
    sums += exact * exact;
  }
  return sums;
}
template <simd::Narrow T>
Doubles squares_of_block(const T* x) {
  float values[block_elements];
  for (int64_t i = 0; i < block_elements; i += simd::lanes) simd::store(values + i, simd::load(x + i));
  return squares_of_block(values);
}

// Lane i of the result is the sum of the squares of block i of four.
template <typename T>
Doubles squares_of_group(const T* x) {
  const Doubles a = squares_of_block(x), b = squares_of_block(x + block_elements);
  const Doubles c = squares_of_block(x + 2 * block_elements), d = squares_of_block(x + 3 * block_elements);
  const Doubles ab = __builtin_shufflevector(a, b, 0, 4, 2, 6) + __builtin_shufflevector(a, b, 1, 5, 3, 7);
  const Doubles cd = __builtin_shufflevector(c, d, 0, 4, 2, 6) + __builtin_shufflevector(c, d, 1, 5, 3, 7);
  return __builtin_shufflevector(ab, cd, 0, 1, 4, 5) + __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
}

// Fixed point with 80 bits behind the point, in limbs of 38 bits that have room to add up.
class FixedPointLanes {
 public:
  // Each of `values` is cut at the last bit.
  void add(Doubles values) {
    const Longs fits = values < 0x1p44;  // false for NaN
    misfits_ |= ~fits;
    values = fits ? values : Doubles{};
    const Longs high = __builtin_convertvector(values * 0x1p4, Longs);
    values -= __builtin_convertvector(high, Doubles) * 0x1p-4;
    const Longs middle = __builtin_convertvector(values * 0x1p42, Longs);
    values -= __builtin_convertvector(middle, Doubles) * 0x1p-42;
    high_ += high;
    middle_ += middle;
    low_ += __builtin_convertvector(values * 0x1p80, Longs);
  }

  // Moves what has been added into `total`. Due after at most `room` additions.
  static constexpr int room = 1 << 15;
  void move_to(ops::ExactSum& total) {
    for (int lane = 0; lane < four; ++lane) {
      __int128 high = 0;
      total.overflow |= misfits_[lane] || __builtin_mul_overflow(__int128{high_[lane]}, __int128{1} << 76, &high);
      total += {high, false};
      total += {(__int128{middle_[lane]} << 38) + low_[lane], false};
    }
    *this = {};
  }

 private:
  static_assert(ops::ExactSum::fraction_bits == 80);
  Longs high_ = {}, middle_ = {}, low_ = {}, misfits_ = {};
};

}  // namespace

double CpuKernels::sum(const Tensor& x) {
  double total = 0;
  for_float_type(x.dtype(), [&](auto type) {
    const auto* const values = x.data<decltype(type)>();
    for (int64_t i = 0; i < x.size(); ++i) total += static_cast<double>(static_cast<float>(values[i]));
  });
  return total;
}

float CpuKernels::absolute_max(const Tensor& x) {
  simd::Words largest{};  // as bits: without their signs floats are ordered like integers, NaN above all
  for_float_type(x.dtype(), [&](auto type) {
    const auto* const values = x.data<decltype(type)>();
    simd::for_each_vector(x.size(), [&](int64_t i, auto in_use) {
      const simd::Words magnitude = simd::bits_of(simd::load(values + i, in_use)) & 0x7fffffffu;
      largest = magnitude > largest ? magnitude : largest;
    });
  });
  uint32_t bits = 0;
  for (int lane = 0; lane < simd::lanes; ++lane) bits = std::max<uint32_t>(bits, largest[lane]);
  return std::bit_cast<float>(bits);
}

ops::ExactSum CpuKernels::sum_of_squares(const Tensor& x) {
  ops::ExactSum total;
  for_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    const T* const values = x.data<T>();
    const int64_t whole = x.size() / group_elements * group_elements;
    FixedPointLanes lanes;
    for (int64_t begin = 0; begin < whole;) {
      const int64_t end = std::min(begin + FixedPointLanes::room * group_elements, whole);
      for (; begin < end; begin += group_elements) lanes.add(squares_of_group(values + begin));
      lanes.move_to(total);
    }
    T rest[group_elements] = {};
    std::copy(values + whole, values + x.size(), rest);
    lanes.add(squares_of_group(rest));
    lanes.move_to(total);
  });
  return total;
}

}  // namespace ninefold
