// Sums over whole tensors: every block sums a part, the host adds up the parts in order. The sum of squares goes from
// f64, a block of 16 elements at a time, into 128-bit fixed point, where order cannot matter.
#include "common/tensor/cuda/gpu_kernels.h"
#include "common/tensor/cuda/loops.h"

namespace ninefold::NINEFOLD_GPU {
namespace {

constexpr int64_t square_elements = 16;  // added up in f64
constexpr int64_t part_elements = 64 * 1024;

int64_t parts_of(int64_t n) { return blocks_for(n, part_elements); }

template <typename T>
struct SumOfPart {
  double* sums;
  const T* x;
  int64_t n;

  __device__ void operator()(int64_t part) const {
    const int64_t begin = part * part_elements, end = begin + part_elements < n ? begin + part_elements : n;
    double sum = 0;
    for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x)
      sum += static_cast<double>(static_cast<float>(x[i]));
    sum = sum_over_block(sum);
    if (threadIdx.x == 0) sums[part] = sum;
  }
};

// As bits: without their signs floats are ordered like integers, NaN above all.
template <typename T>
struct LargestMagnitude {
  uint32_t* largest;
  const T* x;

  __device__ void operator()(int64_t i) const {
    const uint32_t magnitude = std::bit_cast<uint32_t>(static_cast<float>(x[i])) & 0x7fffffffu;
    if (magnitude > *largest) atomicMax(largest, magnitude);
  }
};

// 128 bits of fixed point, as ops::ExactSum's.
struct Fixed {
  unsigned long long low = 0, high = 0;
  unsigned long long overflow = 0;

  __device__ void add(unsigned long long low_, unsigned long long high_) {
    low += low_;
    high += high_ + (low < low_ ? 1 : 0);
    overflow |= high >> 63;  // every addend is far below 2^127
  }
  // A value that is not negative, cut at the last bit.
  __device__ void add(double value) {
    if (!(value < 0x1p44)) {
      overflow = 1;
      return;
    }
    const auto top = static_cast<unsigned long long>(value * 0x1p16);  // in units of 2^-16, the upper word's
    const double rest = value - static_cast<double>(top) * 0x1p-16;
    add(static_cast<unsigned long long>(rest * 0x1p80), top);
  }
  __device__ void add(const Fixed& other) {
    add(other.low, other.high);
    overflow |= other.overflow;
  }
};

// In the order of the processor's back end, so that both have the same bits.
template <typename T>
__device__ double squares_of_block(const T* x, int64_t count) {
  double sums[4] = {};
  for (int64_t i = 0; i < count; ++i) {
    const double value = static_cast<double>(static_cast<float>(x[i]));
    sums[i % 4] += value * value;
  }
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

template <typename T>
struct SquaresOfPart {
  Fixed* sums;
  const T* x;
  int64_t n;

  __device__ void operator()(int64_t part) const {
    const int64_t begin = part * part_elements, end = begin + part_elements < n ? begin + part_elements : n;
    Fixed sum;
    for (int64_t i = begin + threadIdx.x * square_elements; i < end; i += blockDim.x * square_elements) {
      sum.add(squares_of_block(x + i, end - i < square_elements ? end - i : square_elements));
    }
    sum = sum_of_warp(sum);
    auto* const warps = reinterpret_cast<Fixed*>(shared_memory());
    if (threadIdx.x % warp_threads == 0) warps[threadIdx.x / warp_threads] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
      for (unsigned warp = 1; warp < blockDim.x / warp_threads; ++warp) sum.add(warps[warp]);
      sums[part] = sum;
    }
    __syncthreads();
  }

 private:
  static __device__ Fixed sum_of_warp(Fixed sum) {
    for (int mask = warp_threads / 2; mask > 0; mask /= 2) {
      Fixed other;
      other.low = __shfl_xor_sync(all_lanes, sum.low, mask);
      other.high = __shfl_xor_sync(all_lanes, sum.high, mask);
      other.overflow = __shfl_xor_sync(all_lanes, sum.overflow, mask);
      sum.add(other);
    }
    return sum;
  }
};

// What the blocks leave, each of a part of x: Part<T>{sums, x, n} says how.
template <template <typename T> typename Part, typename Sum>
std::vector<Sum> sums_of_parts(Stream stream, const Tensor& x) {
  const int64_t parts = parts_of(x.size());
  const Tensor space = workspace(x.device(), parts * static_cast<int64_t>(sizeof(Sum)) / size_of(Dtype::f32));
  for_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    for_each_row(stream, parts, Part<T>{static_cast<Sum*>(space.raw()), x.address<T>(), x.size()});
  });
  std::vector<Sum> sums(static_cast<size_t>(parts));
  space.copy_to_host(sums.data());
  return sums;
}

}  // namespace

double GpuKernels::sum(const Tensor& x) {
  double total = 0;
  for (const double part : sums_of_parts<SumOfPart, double>(stream_, x)) total += part;
  return total;
}

float GpuKernels::absolute_max(const Tensor& x) {
  const Tensor largest = Tensor::zeros(x.device(), {1}, Dtype::f32);
  for_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    for_each(stream_, x.size(), LargestMagnitude<T>{static_cast<uint32_t*>(largest.raw()), x.address<T>()});
  });
  return largest.to_vector<float>()[0];
}

ops::ExactSum GpuKernels::sum_of_squares(const Tensor& x) {
  static_assert(ops::ExactSum::fraction_bits == 80);
  ops::ExactSum total;
  for (const Fixed& part : sums_of_parts<SquaresOfPart, Fixed>(stream_, x)) {
    const auto bits = static_cast<unsigned __int128>(part.high) << 64 | part.low;
    total += {static_cast<__int128>(bits), part.overflow != 0};
  }
  return total;
}

}  // namespace ninefold::NINEFOLD_GPU
