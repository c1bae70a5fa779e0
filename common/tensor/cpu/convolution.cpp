// Convolution by oneDNN: stride 1, no padding, plain [n, channels, height, width] outside. Inside, oneDNN chooses the
// layouts, and the primitive reorders to and from them. f16, and bf16 where the processor has none, run in f32.
#include "common/tensor/cpu/cpu_kernels.h"
#include "common/tensor/cpu/onednn.h"

namespace ninefold {
namespace {

// The arguments of one convolution, in the plain layout or (Layout::any) in whatever layout oneDNN likes best.
enum class Layout { plain, any };
onednn::ConvolutionArguments describe(const Tensor& x, const Tensor& weight, const Tensor& y, Dtype weight_type,
                                      Layout layout) {
  using Tag = dnnl::memory::format_tag;
  const auto describe_one = [&](const Tensor& tensor, Dtype dtype, Tag plain) {
    return dnnl::memory::desc(tensor.shape(), onednn_type(dtype), layout == Layout::any ? Tag::any : plain);
  };
  return {describe_one(x, x.dtype(), Tag::nchw), describe_one(weight, weight_type, Tag::oihw),
          dnnl::memory::desc({weight.dim(0)}, onednn_type(weight_type), Tag::x), describe_one(y, y.dtype(), Tag::nchw)};
}

OneDnn::Key key_of(OneDnn::Operation operation, const Tensor& x, const Tensor& weight) {
  return {static_cast<int64_t>(operation),
          static_cast<int64_t>(x.dtype()),
          x.dim(0),
          x.dim(1),
          x.dim(2),
          x.dim(3),
          weight.dim(0),
          weight.dim(2),
          weight.dim(3)};
}

ReadyPrimitive make_forward(OneDnn& onednn, const Tensor& x, const Tensor& weight, const Tensor& y) {
  const auto plain = describe(x, weight, y, weight.dtype(), Layout::plain);
  const auto described =
      onednn::describe_forward(onednn.engine, describe(x, weight, y, weight.dtype(), Layout::any), user_scratchpad());
  return ReadyPrimitive(onednn.engine, dnnl::convolution_forward(described), described.scratchpad_desc(),
                        {{DNNL_ARG_SRC, plain.x, described.src_desc()},
                         {DNNL_ARG_WEIGHTS, plain.weight, described.weights_desc()},
                         {DNNL_ARG_BIAS, plain.bias, described.bias_desc()},
                         {DNNL_ARG_DST, plain.y, described.dst_desc(), true}});
}

ReadyPrimitive make_backward_data(OneDnn& onednn, const Tensor& dx, const Tensor& weight, const Tensor& dy) {
  const auto plain = describe(dx, weight, dy, weight.dtype(), Layout::plain);
  const auto described = onednn::describe_backward_data(
      onednn.engine, describe(dx, weight, dy, weight.dtype(), Layout::any), user_scratchpad());
  return ReadyPrimitive(onednn.engine, dnnl::convolution_backward_data(described), described.scratchpad_desc(),
                        {{DNNL_ARG_DIFF_SRC, plain.x, described.diff_src_desc(), true},
                         {DNNL_ARG_WEIGHTS, plain.weight, described.weights_desc()},
                         {DNNL_ARG_DIFF_DST, plain.y, described.diff_dst_desc()}});
}

// The weights' and the bias's gradients are f32 whatever x is.
ReadyPrimitive make_backward_weights(OneDnn& onednn, const Tensor& x, const Tensor& weight, const Tensor& dy) {
  const auto plain = describe(x, weight, dy, Dtype::f32, Layout::plain);
  const auto described =
      onednn::describe_backward_weights(onednn.engine, describe(x, weight, dy, Dtype::f32, Layout::any),
                                        describe(x, weight, dy, weight.dtype(), Layout::any), user_scratchpad());
  return ReadyPrimitive(onednn.engine, dnnl::convolution_backward_weights(described), described.scratchpad_desc(),
                        {{DNNL_ARG_DIFF_WEIGHTS, plain.weight, described.diff_weights_desc(), true},
                         {DNNL_ARG_DIFF_BIAS, plain.bias, described.diff_bias_desc()},
                         {DNNL_ARG_SRC, plain.x, described.src_desc()},
                         {DNNL_ARG_DIFF_DST, plain.y, described.diff_dst_desc()}});
}

Tensor workspace_like(const Tensor& x) { return workspace(x.device(), x.size()).reshape(x.shape()); }

Tensor widened(CpuKernels& kernels, const Tensor& x) {
  Tensor copy = workspace_like(x);
  kernels.copy(copy, x);
  return copy;
}

}  // namespace

void CpuKernels::convolution(const Tensor& y, const Tensor& x, const Tensor& weight, const Tensor& bias) {
  if (!onednn_->multiplies(x.dtype())) {
    const Tensor y_f32 = workspace_like(y);
    convolution(y_f32, widened(*this, x), widened(*this, weight), widened(*this, bias));
    return copy(y, y_f32);
  }
  onednn_->kept(key_of(OneDnn::Operation::convolution, x, weight), [&] { return make_forward(*onednn_, x, weight, y); })
      .run(onednn_->stream, y.device(), {x.raw(), weight.raw(), bias.raw(), y.raw()});
}

void CpuKernels::convolution_backward(const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& weight,
                                      const Tensor& dweight, const Tensor& dbias) {
  if (!onednn_->multiplies(x.dtype())) {
    const Tensor dx_f32 = dx.defined() ? workspace_like(dx) : Tensor();
    convolution_backward(dx_f32, widened(*this, dy), widened(*this, x), widened(*this, weight), dweight, dbias);
    if (dx.defined()) copy(dx, dx_f32);
    return;
  }
  const Tensor weight_part = workspace_like(dweight), bias_part = workspace_like(dbias);
  onednn_
      ->kept(key_of(OneDnn::Operation::convolution_backward_weights, x, weight),
             [&] { return make_backward_weights(*onednn_, x, weight, dy); })
      .run(onednn_->stream, dy.device(), {weight_part.raw(), bias_part.raw(), x.raw(), dy.raw()});
  add(dweight, dweight, weight_part);
  add(dbias, dbias, bias_part);
  if (!dx.defined()) return;
  onednn_
      ->kept(key_of(OneDnn::Operation::convolution_backward_data, x, weight),
             [&] { return make_backward_data(*onednn_, dx, weight, dy); })
      .run(onednn_->stream, dy.device(), {dx.raw(), weight.raw(), dy.raw()});
}

}  // namespace ninefold
