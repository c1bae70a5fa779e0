// Matrix products by oneDNN. Blocks of f16, and of bf16 where the processor has none, are converted to f32,
// multiplied, and rounded once.
#include <algorithm>

#include "common/tensor/cpu/cpu_kernels.h"
#include "common/tensor/cpu/onednn.h"
#include "common/tensor/grouped_products.h"

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

dnnl::primitive_attr product_attributes(bool accumulate) {
  dnnl::primitive_attr attributes = user_scratchpad();
  if (accumulate) {
    dnnl::post_ops after;
    after.append_sum(1.0f);
    attributes.set_post_ops(after);
  }
  return attributes;
}

ReadyPrimitive make_product(OneDnn& onednn, const Matrix& out, const Matrix& a, const Matrix& b, bool accumulate) {
  const auto described = onednn::describe_matmul(onednn.engine, a.description(), b.description(), out.description(),
                                                 product_attributes(accumulate));
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

// Groups have other numbers of rows each time. A primitive that is told its number of rows, or the length of its sums,
// with each call serves them all; it is made of oneDNN's general product, which is as fast at these sizes. Kept for
// each shape instead, there would be one for every number that ever comes.
void multiply_ragged(OneDnn& onednn, const Matrix& out, const Matrix& a, const Matrix& b, bool accumulate) {
  const bool sums_rows = a.column_stride != 1;
  const int64_t types = static_cast<int64_t>(a.dtype) * 10 + static_cast<int64_t>(out.dtype);
  const OneDnn::Key key = {types,          accumulate,     sums_rows,    sums_rows ? out.rows : a.columns,
                           out.columns,    a.row_stride,   b.row_stride, b.column_stride,
                           out.row_stride, a.column_stride};
  auto found = onednn.ragged.find(key);
  if (found == onednn.ragged.end()) {
    Matrix any_out = out, any_a = a, any_b = b;
    (sums_rows ? any_a.columns : any_out.rows) = DNNL_RUNTIME_DIM_VAL;
    (sums_rows ? any_b.rows : any_a.rows) = DNNL_RUNTIME_DIM_VAL;
    const auto described = onednn::describe_matmul(onednn.engine, any_a.description(), any_b.description(),
                                                   any_out.description(), product_attributes(accumulate));
    found = onednn.ragged.emplace(key, dnnl::matmul(described)).first;
  }
  const auto memory = [&](const Matrix& x) { return dnnl::memory(x.description(), onednn.engine, x.address); };
  found->second.execute(onednn.stream,
                        {{DNNL_ARG_DST, memory(out)}, {DNNL_ARG_SRC, memory(a)}, {DNNL_ARG_WEIGHTS, memory(b)}});
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

// Whether the sizes of a product come again in every step.
enum class Sizes { fixed, ragged };

void multiply_native(OneDnn& onednn, const DeviceHandle& device, const Matrix& out, const Matrix& a, const Matrix& b,
                     bool accumulate, Sizes sizes) {
  if (sizes == Sizes::ragged) return multiply_ragged(onednn, out, a, b, accumulate);
  multiply(onednn, device, out, a, b, accumulate);
}

// Blocks span all of k, so that each result is rounded once.
void multiply_emulated(OneDnn& onednn, const DeviceHandle& device, const Matrix& out, const Matrix& a, const Matrix& b,
                       bool accumulate, Sizes sizes) {
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
        multiply_native(onednn, device, target, a_block, b_block, accumulate, sizes);
      } else {
        const Matrix product = {static_cast<std::byte*>(out_space.raw()), Dtype::f32, rows, columns, columns, 1};
        multiply_native(onednn, device, product, a_block, b_block, false, sizes);
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
                     bool accumulate, Sizes sizes) {
  const BlockSize block = block_size(out, a);
  for (int64_t row = 0; row < out.rows; row += block.rows) {
    const int64_t rows = std::min(block.rows, out.rows - row);
    for (int64_t column = 0; column < out.columns; column += block.columns) {
      const int64_t columns = std::min(block.columns, out.columns - column);
      multiply_native(onednn, device, out.block(row, rows, column, columns), a.block(row, rows, 0, a.columns),
                      b.block(0, b.rows, column, columns), accumulate, sizes);
    }
  }
}

}  // namespace

void CpuKernels::matmul(const Tensor& out, const Tensor& a, const Tensor& b, const ops::MatmulOptions& options) {
  const Matrix left = matrix_of(a, options.transpose_a), right = matrix_of(b, options.transpose_b);
  const auto multiply_all = onednn_->multiplies(a.dtype()) ? multiply_blocks : multiply_emulated;
  multiply_all(*onednn_, out.device(), matrix_of(out), left, right, options.accumulate, Sizes::fixed);
}

void CpuKernels::grouped_matmul(const Tensor& out, const Tensor& a, const Tensor& b, const std::vector<int64_t>& counts,
                                const ops::MatmulOptions& options) {
  const auto multiply_all = onednn_->multiplies(a.dtype()) ? multiply_blocks : multiply_emulated;
  for_each_group(
      out, a, b, counts, options,
      [&](const Tensor& target, const Tensor& left, const Tensor& right) {
        multiply_all(*onednn_, out.device(), matrix_of(target), matrix_of(left, options.transpose_a),
                     matrix_of(right, options.transpose_b), options.accumulate, Sizes::ragged);
      },
      [this](const Tensor& x, float value) { fill(x, value); });
}

}  // namespace ninefold
