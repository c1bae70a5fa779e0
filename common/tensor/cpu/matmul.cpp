// Matrix products by oneDNN. Blocks of f16, and of bf16 where the processor has none, are converted to f32,
// multiplied, and rounded once.
#include <algorithm>

#include "common/tensor/cpu/cpu_kernels.h"
#include "common/tensor/cpu/onednn.h"

namespace ninefold {
namespace {

// A matrix inside a tensor: element (row, column) lies at row * row_stride + column * column_stride.
struct Matrix {
  std::byte* address;
  Dtype dtype;
  int64_t rows, columns, row_stride, column_stride;

  Matrix block(int64_t row, int64_t row_count, int64_t column, int64_t column_count) const {
    Matrix part = *this;
    part.address += (row * row_stride + column * column_stride) * size_of(dtype);
    part.rows = row_count;
    part.columns = column_count;
    return part;
  }
  dnnl::memory::desc description() const {
    return {{rows, columns}, onednn_type(dtype), dnnl::memory::dims{row_stride, column_stride}};
  }
};

Matrix matrix_of(const Tensor& x, bool transposed = false) {
  const int64_t width = x.dim(1);
  std::byte* const address = static_cast<std::byte*>(x.raw());
  if (transposed) return {address, x.dtype(), width, x.dim(0), 1, width};
  return {address, x.dtype(), x.dim(0), width, width, 1};
}

ReadyPrimitive make_product(OneDnn& onednn, const Matrix& out, const Matrix& a, const Matrix& b, bool accumulate) {
  dnnl::primitive_attr attributes = user_scratchpad();
  if (accumulate) {
    dnnl::post_ops after;
    after.append_sum(1.0f);
    attributes.set_post_ops(after);
  }
  const auto described =
      onednn::describe_matmul(onednn.engine, a.description(), b.description(), out.description(), attributes);
  return ReadyPrimitive(onednn.engine, dnnl::matmul(described), described.scratchpad_desc(),
                        {{DNNL_ARG_DST, out.description(), out.description()},
                         {DNNL_ARG_SRC, a.description(), a.description()},
                         {DNNL_ARG_WEIGHTS, b.description(), b.description()}});
}

void multiply(OneDnn& onednn, const DeviceHandle& device, const Matrix& out, const Matrix& a, const Matrix& b,
              bool accumulate) {
  const int64_t types = static_cast<int64_t>(a.dtype) * 10 + static_cast<int64_t>(out.dtype);
  const OneDnn::Key key = {static_cast<int64_t>(OneDnn::Operation::matmul),
                           types,
                           accumulate,
                           out.rows,
                           out.columns,
                           a.columns,
                           a.row_stride,
                           a.column_stride,
                           b.row_stride,
                           b.column_stride,
                           out.row_stride};
  onednn.kept(key, [&] { return make_product(onednn, out, a, b, accumulate); })
      .run(onednn.stream, device, {out.address, a.address, b.address});
}

// ---- types that oneDNN does not multiply ---------------------------------------------------------------------------

template <typename To, typename From>
void convert(To* to, const From* from, int64_t size) {
  simd::for_each_vector(size, [&](int64_t i, auto lanes) { simd::store(to + i, simd::load(from + i, lanes), lanes); });
}

// An f32 copy of `from` at `address`, with the same dimension contiguous.
Matrix widened(float* address, const Matrix& from) {
  const bool by_rows = from.column_stride == 1;
  const int64_t lines = by_rows ? from.rows : from.columns, length = by_rows ? from.columns : from.rows;
  const int64_t stride = by_rows ? from.row_stride : from.column_stride;
  for_float_type(from.dtype, [&](auto type) {
    const auto* const source = reinterpret_cast<const decltype(type)*>(from.address);
    for (int64_t line = 0; line < lines; ++line) convert(address + line * length, source + line * stride, length);
  });
  return {reinterpret_cast<std::byte*>(address),
          Dtype::f32,
          from.rows,
          from.columns,
          by_rows ? length : 1,
          by_rows ? 1 : length};
}

// out = or += the f32 matrix `product`, rounded.
template <typename T>
void narrow_into(const Matrix& out, const Matrix& product, bool accumulate) {
  for (int64_t row = 0; row < out.rows; ++row) {
    T* const to = reinterpret_cast<T*>(out.address) + row * out.row_stride;
    const float* const from = reinterpret_cast<const float*>(product.address) + row * product.row_stride;
    simd::for_each_vector(out.columns, [&](int64_t i, auto lanes) {
      const simd::Floats value = simd::load(from + i, lanes);
      simd::store(to + i, accumulate ? simd::load(to + i, lanes) + value : value, lanes);
    });
  }
}

// Blocks span all of k, so that each result is rounded once.
void multiply_emulated(OneDnn& onednn, const DeviceHandle& device, const Matrix& out, const Matrix& a, const Matrix& b,
                       bool accumulate) {
  const int64_t block_rows = std::min<int64_t>(out.rows, 256), block_columns = std::min<int64_t>(out.columns, 512);
  const Tensor a_space = workspace(device, block_rows * a.columns);
  const Tensor b_space = workspace(device, block_columns * b.rows);
  const Tensor out_space = workspace(device, out.dtype == Dtype::f32 ? 0 : block_rows * block_columns);
  for (int64_t column = 0; column < out.columns; column += block_columns) {
    const int64_t columns = std::min(block_columns, out.columns - column);
    const Matrix b_block = widened(b_space.data<float>(), b.block(0, b.rows, column, columns));
    for (int64_t row = 0; row < out.rows; row += block_rows) {
      const int64_t rows = std::min(block_rows, out.rows - row);
      const Matrix a_block = widened(a_space.data<float>(), a.block(row, rows, 0, a.columns));
      const Matrix target = out.block(row, rows, column, columns);
      if (out.dtype == Dtype::f32) {
        multiply(onednn, device, target, a_block, b_block, accumulate);
      } else {
        const Matrix product = {static_cast<std::byte*>(out_space.raw()), Dtype::f32, rows, columns, columns, 1};
        multiply(onednn, device, product, a_block, b_block, false);
        for_float_type(out.dtype, [&](auto type) { narrow_into<decltype(type)>(target, product, accumulate); });
      }
    }
  }
}

// Blocks in which oneDNN is fastest, by measurement (docs/performance.md). It copies a transposed left operand whole
// before it multiplies: by blocks of rows the copy stays in the nearest cache (weight gradients, +5 to 9 %). Very long
// sums and very wide results, as in the output layer of a large vocabulary, gain 4 to 25 %.
struct BlockSize {
  int64_t rows, columns;
};
BlockSize block_size(const Matrix& out, const Matrix& a) {
  const bool transposed = a.column_stride != 1;
  return {transposed ? 384 : out.rows, a.columns > 4096 ? 384 : 8192};
}

void multiply_blocks(OneDnn& onednn, const DeviceHandle& device, const Matrix& out, const Matrix& a, const Matrix& b,
                     bool accumulate) {
  const BlockSize block = block_size(out, a);
  for (int64_t row = 0; row < out.rows; row += block.rows) {
    const int64_t rows = std::min(block.rows, out.rows - row);
    for (int64_t column = 0; column < out.columns; column += block.columns) {
      const int64_t columns = std::min(block.columns, out.columns - column);
      multiply(onednn, device, out.block(row, rows, column, columns), a.block(row, rows, 0, a.columns),
               b.block(0, b.rows, column, columns), accumulate);
    }
  }
}

}  // namespace

void CpuKernels::matmul(const Tensor& out, const Tensor& a, const Tensor& b, const ops::MatmulOptions& options) {
  const Matrix left = matrix_of(a, options.transpose_a), right = matrix_of(b, options.transpose_b);
  const auto multiply_all = onednn_->multiplies(a.dtype()) ? multiply_blocks : multiply_emulated;
  multiply_all(*onednn_, out.device(), matrix_of(out), left, right, options.accumulate);
}

}  // namespace ninefold
