// Rows looked up in a table, and their gradients added back.
#include <algorithm>
#include <cstring>
#include <vector>

#include "common/tensor/cpu/cpu_kernels.h"
#include "common/tensor/cpu/loops.h"

namespace ninefold {
namespace {

// The row of each token in the table, -1 where a part does not have it. A whole table must have them all.
std::vector<int64_t> rows_of(const Tensor& tokens, int64_t table_rows, const std::optional<ops::VocabularyPart>& part) {
  const ops::VocabularyPart held = part.value_or(ops::VocabularyPart{0, table_rows});
  const int32_t* const token = tokens.data<int32_t>();
  std::vector<int64_t> rows(static_cast<size_t>(tokens.size()));
  for (int64_t i = 0; i < tokens.size(); ++i) {
    expect(part || held.has(token[i]), "token {} at {} is not in a vocabulary of {}", token[i], i, table_rows);
    rows[static_cast<size_t>(i)] = held.has(token[i]) ? token[i] - held.first : -1;
  }
  return rows;
}

}  // namespace

void CpuKernels::embedding(const Tensor& out, const Tensor& tokens, const Tensor& table,
                           const std::optional<ops::VocabularyPart>& part) {
  const std::vector<int64_t> rows = rows_of(tokens, table.dim(0), part);
  const auto row_bytes = static_cast<size_t>(table.dim(1) * size_of(table.dtype()));
  if (row_bytes == 0) return;
  auto* to = static_cast<std::byte*>(out.raw());
  for (const int64_t row : rows) {
    if (row < 0) {
      std::memset(to, 0, row_bytes);
    } else {
      std::memcpy(to, static_cast<const std::byte*>(table.raw()) + static_cast<size_t>(row) * row_bytes, row_bytes);
    }
    to += row_bytes;
  }
}

void CpuKernels::embedding_backward(const Tensor& dtable, const Tensor& tokens, const Tensor& dy,
                                    const std::optional<ops::VocabularyPart>& part) {
  const std::vector<int64_t> row_of = rows_of(tokens, dtable.dim(0), part);
  const int64_t features = dtable.dim(1);
  // The rows of one token together, each group in order of n: its sum stays in f32 until it is stored once.
  std::vector<int64_t> order;
  for (int64_t i = 0; i < tokens.size(); ++i) {
    if (row_of[static_cast<size_t>(i)] >= 0) order.push_back(i);
  }
  const auto row = [&](int64_t i) { return row_of[static_cast<size_t>(i)]; };
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return row(a) < row(b); });
  for_float_types(dtable.dtype(), dy.dtype(), [&](auto table_type, auto type) {
    auto* const table = dtable.data<decltype(table_type)>();
    const auto* const rows = dy.data<decltype(type)>();
    for (auto begin = order.begin(); begin != order.end();) {
      const int64_t same = row(*begin);
      const auto end = std::find_if(begin, order.end(), [&](int64_t i) { return row(i) != same; });
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
