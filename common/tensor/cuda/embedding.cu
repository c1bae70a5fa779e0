// Rows looked up in a table, and their gradients added back.
#include "common/tensor/cuda/gpu_kernels.h"
#include "common/tensor/cuda/loops.h"

namespace ninefold::NINEFOLD_GPU {
namespace {

// Which row of a table a token has. A whole table must have them all.
struct TableRows {
  const int32_t* tokens;
  int64_t first, count;
  bool is_whole;
  Faults* faults;

  // -1 where a part does not have it.
  __device__ int64_t operator()(int64_t i) const {
    const int64_t token = tokens[i];
    if (first <= token && token < first + count) return token - first;
    if (is_whole) faults->token = fault_of(i, tokens[i]);
    return -1;
  }
};

TableRows table_rows(const Tensor& tokens, int64_t rows, const std::optional<ops::VocabularyPart>& part,
                     Faults* faults) {
  const ops::VocabularyPart held = part.value_or(ops::VocabularyPart{0, rows});
  return {tokens.address<int32_t>(), held.first, held.count, !part, faults};
}

template <typename T>
struct LookUp {
  T* out;
  const T* table;
  TableRows row_of;
  int64_t features;

  __device__ void operator()(int64_t i) const {
    const int64_t row = row_of(i / features);
    out[i] = row < 0 ? T(0.0f) : table[row * features + i % features];
  }
};

// One block for every token; the block of its first occurrence adds up all of them, in order of n and in f32.
template <typename Table, typename T>
struct AddToFirst {
  Table* table;
  const T* dy;
  TableRows row_of;
  int64_t tokens, features;

  __device__ void operator()(int64_t token) const {
    const int64_t own = row_of(token);
    if (own < 0 || occurs_before(token, own)) return;
    for (int64_t first = 0; first < features; first += blockDim.x) add_columns(token, own, first + threadIdx.x);
  }

 private:
  __device__ bool occurs_before(int64_t token, int64_t own) const {
    bool occurs = false;
    for (int64_t i = threadIdx.x; i < token; i += blockDim.x) occurs |= row_of(i) == own;
    return __syncthreads_or(occurs) != 0;
  }

  // Every thread one column. Tokens are compared by the whole block: `is_same` has room for a thread's each.
  __device__ void add_columns(int64_t token, int64_t own, int64_t column) const {
    unsigned char* const is_same = shared_memory();
    const bool has_column = column < features;
    float sum = has_column ? static_cast<float>(table[own * features + column]) : 0.0f;
    for (int64_t begin = token; begin < tokens; begin += blockDim.x) {
      const int64_t compared = begin + threadIdx.x;
      is_same[threadIdx.x] = compared < tokens && row_of(compared) == own;
      if (__syncthreads_or(is_same[threadIdx.x])) {
        for (int64_t i = 0; has_column && i < blockDim.x; ++i) {
          if (is_same[i]) sum += static_cast<float>(dy[(begin + i) * features + column]);
        }
      }
      __syncthreads();
    }
    if (has_column) table[own * features + column] = Table(sum);
  }
};

}  // namespace

void GpuKernels::embedding(const Tensor& out, const Tensor& tokens, const Tensor& table,
                           const std::optional<ops::VocabularyPart>& part) {
  const TableRows rows = table_rows(tokens, table.dim(0), part, faults_);
  for_float_type(table.dtype(), [&](auto type) {
    using T = decltype(type);
    for_each(stream_, out.size(), LookUp<T>{out.address<T>(), table.address<T>(), rows, table.dim(1)});
  });
}

void GpuKernels::embedding_backward(const Tensor& dtable, const Tensor& tokens, const Tensor& dy,
                                    const std::optional<ops::VocabularyPart>& part) {
  const TableRows rows = table_rows(tokens, dtable.dim(0), part, faults_);
  for_float_types(dtable.dtype(), dy.dtype(), [&](auto table_type, auto type) {
    using Table = decltype(table_type);
    using T = decltype(type);
    for_each_row(stream_, tokens.size(),
                 AddToFirst<Table, T>{dtable.address<Table>(), dy.address<T>(), rows, tokens.size(), dtable.dim(1)});
  });
}

}  // namespace ninefold::NINEFOLD_GPU
