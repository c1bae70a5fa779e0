// The one place that knows which oneDNN is installed: up to 2.x a primitive is described by an operation descriptor,
// from 3.0 on by its arguments directly.
#pragma once

#include <dnnl.hpp>

namespace ninefold::onednn {

using MemoryDescription = dnnl::memory::desc;
using Dimensions = dnnl::memory::dims;

// Convolution with stride 1 and no padding.
struct ConvolutionArguments {
  MemoryDescription x, weight, bias, y;
};
inline const Dimensions unit_stride = {1, 1};
inline const Dimensions no_padding = {0, 0};

#if DNNL_VERSION_MAJOR >= 3

inline auto describe_matmul(const dnnl::engine& engine, const MemoryDescription& a, const MemoryDescription& b,
                            const MemoryDescription& out, const dnnl::primitive_attr& attributes) {
  return dnnl::matmul::primitive_desc(engine, a, b, out, attributes);
}

inline auto describe_forward(const dnnl::engine& engine, const ConvolutionArguments& of,
                             const dnnl::primitive_attr& attributes) {
  return dnnl::convolution_forward::primitive_desc(engine, dnnl::prop_kind::forward_training,
                                                   dnnl::algorithm::convolution_direct, of.x, of.weight, of.bias, of.y,
                                                   unit_stride, no_padding, no_padding, attributes);
}

inline auto describe_backward_data(const dnnl::engine& engine, const ConvolutionArguments& of,
                                   const dnnl::primitive_attr& attributes) {
  return dnnl::convolution_backward_data::primitive_desc(engine, dnnl::algorithm::convolution_direct, of.x, of.weight,
                                                         of.y, unit_stride, no_padding, no_padding,
                                                         describe_forward(engine, of, attributes), attributes);
}

inline auto describe_backward_weights(const dnnl::engine& engine, const ConvolutionArguments& of,
                                      const ConvolutionArguments& forward, const dnnl::primitive_attr& attributes) {
  return dnnl::convolution_backward_weights::primitive_desc(
      engine, dnnl::algorithm::convolution_direct, of.x, of.weight, of.bias, of.y, unit_stride, no_padding, no_padding,
      describe_forward(engine, forward, attributes), attributes);
}

#else

inline auto describe_matmul(const dnnl::engine& engine, const MemoryDescription& a, const MemoryDescription& b,
                            const MemoryDescription& out, const dnnl::primitive_attr& attributes) {
  return dnnl::matmul::primitive_desc(dnnl::matmul::desc(a, b, out), attributes, engine);
}

inline auto describe_forward(const dnnl::engine& engine, const ConvolutionArguments& of,
                             const dnnl::primitive_attr& attributes) {
  const dnnl::convolution_forward::desc operation(dnnl::prop_kind::forward_training,
                                                  dnnl::algorithm::convolution_direct, of.x, of.weight, of.bias, of.y,
                                                  unit_stride, no_padding, no_padding);
  return dnnl::convolution_forward::primitive_desc(operation, attributes, engine);
}

inline auto describe_backward_data(const dnnl::engine& engine, const ConvolutionArguments& of,
                                   const dnnl::primitive_attr& attributes) {
  const dnnl::convolution_backward_data::desc operation(dnnl::algorithm::convolution_direct, of.x, of.weight, of.y,
                                                        unit_stride, no_padding, no_padding);
  return dnnl::convolution_backward_data::primitive_desc(operation, attributes, engine,
                                                         describe_forward(engine, of, attributes));
}

inline auto describe_backward_weights(const dnnl::engine& engine, const ConvolutionArguments& of,
                                      const ConvolutionArguments& forward, const dnnl::primitive_attr& attributes) {
  const dnnl::convolution_backward_weights::desc operation(dnnl::algorithm::convolution_direct, of.x, of.weight,
                                                           of.bias, of.y, unit_stride, no_padding, no_padding);
  return dnnl::convolution_backward_weights::primitive_desc(operation, attributes, engine,
                                                            describe_forward(engine, forward, attributes));
}

#endif

}  // namespace ninefold::onednn
