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

template <typename Out, typename A, typename B>
struct Element {
  Out* out;
  Matrix<A> a;
  Matrix<B> b;
  int64_t columns, depth;
  bool accumulate;
  float scale;
  void operator()(int64_t i) const {
    const int64_t row = i / columns, column = i % columns;
    float sum = 0;
    for (int64_t k = 0; k < depth; ++k) sum += a(row, k) * b(k, column);
    sum *= scale;
    out[i] = Out(accumulate ? static_cast<float>(out[i]) + sum : sum);
  }
};

// Calls body(A(), B()) with the types of the operands: one float type, or two of 8 bits.
template <typename Body>
void for_operand_types(const Tensor& a, const Tensor& b, Body&& body) {
  if (is_float(a.dtype())) return for_float_type(a.dtype(), [&](auto type) { body(type, type); });
  for_f8_type(a.dtype(), [&](auto left) { for_f8_type(b.dtype(), [&](auto right) { body(left, right); }); });
}

}  // namespace

void Products::multiply(const Tensor& out, const Tensor& a, const Tensor& b, const ops::MatmulOptions& options,
                        float scale) {
  for_operand_types(a, b, [&](auto left, auto right) {
    for_float_type(out.dtype(), [&](auto type) {
      using Out = decltype(type);
      using A = decltype(left);
      using B = decltype(right);
      for_each(
          state_->stream, out.size(),
          Element<Out, A, B>{out.address<Out>(), Matrix<A>(a, options.transpose_a), Matrix<B>(b, options.transpose_b),
                             out.dim(1), a.dim(options.transpose_a ? 0 : 1), options.accumulate, scale});
    });
  });
}

bool Products::has_f8() const { return true; }

std::string Products::description() const { return "the GPU's kernels on the host, their threads as fibres"; }

}  // namespace ninefold::fibres
