// Rows looked up in a table, and their gradients added back.
#include <algorithm>
#include <cstring>
#include <vector>

#include "common/tensor/cpu/cpu_kernels.h"
#include "common/tensor/cpu/loops.h"

namespace ninefold {
namespace {

const int32_t* checked_tokens(const Tensor& tokens, int64_t vocabulary) {
  const int32_t* const values = tokens.data<int32_t>();
  for (int64_t i = 0; i < tokens.size(); ++i) {
    expect(0 <= values[i] && values[i] < vocabulary, "token {} at {} is not in a vocabulary of {}", values[i], i,
           vocabulary);
  }
  return values;
}

}  // namespace

void CpuKernels::embedding(const Tensor& out, const Tensor& tokens, const Tensor& table) {
  const int32_t* const token = checked_tokens(tokens, table.dim(0));
  const int64_t row_bytes = table.dim(1) * size_of(table.dtype());
  if (row_bytes == 0) return;
  for (int64_t i = 0; i < tokens.size(); ++i) {
    std::memcpy(static_cast<std::byte*>(out.raw()) + i * row_bytes,
                static_cast<const std::byte*>(table.raw()) + token[i] * row_bytes, static_cast<size_t>(row_bytes));
  }
}

void CpuKernels::embedding_backward(const Tensor& dtable, const Tensor& tokens, const Tensor& dy) {
  const int32_t* const token = checked_tokens(tokens, dtable.dim(0));
  const int64_t n = tokens.size(), features = dtable.dim(1);
  // The rows of one token together, each group in order of n: its sum stays in f32 until it is stored once.
  std::vector<int64_t> order(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) order[static_cast<size_t>(i)] = i;
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return token[a] < token[b]; });
  for_float_types(dtable.dtype(), dy.dtype(), [&](auto table_type, auto type) {
    auto* const table = dtable.data<decltype(table_type)>();
    const auto* const rows = dy.data<decltype(type)>();
    for (auto begin = order.begin(); begin != order.end();) {
      const int32_t same = token[*begin];
      const auto end = std::find_if(begin, order.end(), [&](int64_t i) { return token[i] != same; });
      simd::for_each_vector(features, [&](int64_t column, auto in_use) {
        simd::Floats sum = simd::load(table + same * features + column, in_use);
        for (auto i = begin; i != end; ++i) sum += simd::load(rows + *i * features + column, in_use);
        simd::store(table + same * features + column, sum, in_use);
      });
      begin = end;
    }
  });
}

}  // namespace ninefold
