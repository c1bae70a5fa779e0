// Matrix products for the tests: every thread sums one element.
#include "common/tensor/cuda/products.h"

#include "common/tensor/cuda/loops.h"

namespace ninefold::fibres {

struct Products::State {
  Stream stream;
};

Products::Products(Stream stream) : state_(std::make_unique<State>(State{stream})) {}
Products::~Products() = default;

namespace {

// Element (row, column) lies at row * row_stride + column * column_stride.
template <typename T>
struct Matrix {
  const T* address;
  int64_t row_stride, column_stride;
  Matrix(const Tensor& x, bool transposed)
      : address(x.address<T>()), row_stride(transposed ? 1 : x.dim(1)), column_stride(transposed ? x.dim(1) : 1) {}
  float operator()(int64_t row, int64_t column) const {
    return static_cast<float>(address[row * row_stride + column * column_stride]);
  }
};

template <typename Out, typename T>
struct Element {
  Out* out;
  Matrix<T> a, b;
  int64_t columns, depth;
  bool accumulate;
  void operator()(int64_t i) const {
    const int64_t row = i / columns, column = i % columns;
    float sum = 0;
    for (int64_t k = 0; k < depth; ++k) sum += a(row, k) * b(k, column);
    out[i] = Out(accumulate ? static_cast<float>(out[i]) + sum : sum);
  }
};

}  // namespace

void Products::multiply(const Tensor& out, const Tensor& a, const Tensor& b, const ops::MatmulOptions& options) {
  for_float_types(out.dtype(), a.dtype(), [&](auto out_type, auto type) {
    using Out = decltype(out_type);
    using T = decltype(type);
    const int64_t depth = a.dim(options.transpose_a ? 0 : 1);
    for_each(state_->stream, out.size(),
             Element<Out, T>{out.address<Out>(), Matrix<T>(a, options.transpose_a), Matrix<T>(b, options.transpose_b),
                             out.dim(1), depth, options.accumulate});
  });
}

std::string Products::description() const { return "the GPU's kernels on the host, their threads as fibres"; }

}  // namespace ninefold::fibres
