// Sums over whole tensors.
#include "common/tensor/cpu/cpu_kernels.h"
#include "common/tensor/cpu/loops.h"

namespace ninefold {
namespace {

using simd::Doubles;
using simd::Floats;

constexpr int64_t block_elements = 16;

template <int distance = simd::lanes / 4>
double horizontal_sum(Doubles x) {
  constexpr int count = simd::lanes / 2;
  x += [x]<int... lane>(std::integer_sequence<int, lane...>) {
    return __builtin_shufflevector(x, x, ((lane + distance) % count)...);
  }
  (std::make_integer_sequence<int, count>{});
  if constexpr (distance == 1)
    return x[0];
  else
    return horizontal_sum<distance / 2>(x);
}

// The sum of the squares of `count` (at most block_elements) elements, in f64.
template <typename T>
double block_of_squares(const T* x, int64_t count) {
  Doubles sums = {};
  simd::for_each_vector(count, [&](int64_t i, auto in_use) {
    const Floats values = simd::load(x + i, in_use);
    const Doubles lower = simd::lower_doubles(values), upper = simd::upper_doubles(values);
    sums += lower * lower + upper * upper;
  });
  return horizontal_sum(sums);
}

// Adds a block's sum, cut at the last bit of the fixed point. The cut is made in two integers of 62 bits.
void add_block(ops::ExactSum& total, double block) {
  constexpr int low_bits = 62, high_fraction = ops::ExactSum::fraction_bits - low_bits;
  constexpr double limit = 0x1p44;
  if (!(block < limit)) {  // NaN too
    total.overflow = true;
    return;
  }
  const auto high = static_cast<int64_t>(block * (int64_t{1} << high_fraction));
  const double rest = block - static_cast<double>(high) * (1.0 / (int64_t{1} << high_fraction));
  const auto low = static_cast<int64_t>(rest * 0x1p80);
  const __int128 fixed = (static_cast<__int128>(high) << low_bits) + low;
  total.overflow |= __builtin_add_overflow(total.fixed, fixed, &total.fixed);
}

}  // namespace

double CpuKernels::sum(const Tensor& x) {
  double total = 0;
  for_float_type(x.dtype(), [&](auto type) {
    const auto* const values = x.data<decltype(type)>();
    for (int64_t i = 0; i < x.size(); ++i) total += static_cast<double>(static_cast<float>(values[i]));
  });
  return total;
}

ops::ExactSum CpuKernels::sum_of_squares(const Tensor& x) {
  ops::ExactSum total;
  for_float_type(x.dtype(), [&](auto type) {
    const auto* const values = x.data<decltype(type)>();
    const int64_t whole = x.size() / block_elements * block_elements;
    for (int64_t i = 0; i < whole; i += block_elements) add_block(total, block_of_squares(values + i, block_elements));
    if (whole < x.size()) add_block(total, block_of_squares(values + whole, x.size() - whole));
  });
  return total;
}

}  // namespace ninefold
