#include "common/tensor/cuda/gpu_kernels.h"

namespace ninefold::NINEFOLD_GPU {

void GpuKernels::dropout(const Tensor&, const Tensor&, float, const ops::DropoutKey&) { expect(false, "dropout has no kernel here"); }
void GpuKernels::attention_block(const ops::Attention&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const ops::AttentionShape&) { expect(false, "attention_block has no kernel here"); }
void GpuKernels::attention_block_backward(const ops::AttentionGradients&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const ops::Attention&, const ops::AttentionShape&) { expect(false, "attention_block_backward has no kernel here"); }
void GpuKernels::merge_attention(const ops::Attention&, const ops::Attention&, const ops::AttentionShape&) { expect(false, "merge_attention has no kernel here"); }
void GpuKernels::convolution(const Tensor&, const Tensor&, const Tensor&, const Tensor&) { expect(false, "convolution has no kernel here"); }
void GpuKernels::convolution_backward(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&) { expect(false, "convolution_backward has no kernel here"); }
void GpuKernels::max_pool(const ops::MaxPool&, const Tensor&) { expect(false, "max_pool has no kernel here"); }
void GpuKernels::max_pool_backward(const Tensor&, const Tensor&, const Tensor&) { expect(false, "max_pool_backward has no kernel here"); }
double GpuKernels::sum(const Tensor&) { expect(false, "sum has no kernel here"); return {}; }
float GpuKernels::absolute_max(const Tensor&) { expect(false, "absolute_max has no kernel here"); return {}; }
ops::ExactSum GpuKernels::sum_of_squares(const Tensor&) { expect(false, "sum_of_squares has no kernel here"); return {}; }
void GpuKernels::fill_random(const Tensor&, const ops::Distribution&, uint64_t, int64_t) { expect(false, "fill_random has no kernel here"); }
void GpuKernels::adamw(const ops::UpdateTensors&, const Tensor&, const Tensor&, const ops::Adamw&) { expect(false, "adamw has no kernel here"); }
void GpuKernels::adadelta(const ops::UpdateTensors&, const Tensor&, const Tensor&, const ops::Adadelta&) { expect(false, "adadelta has no kernel here"); }
void GpuKernels::sgd(const ops::UpdateTensors&, const Tensor&, const ops::Sgd&) { expect(false, "sgd has no kernel here"); }
}  // namespace ninefold::NINEFOLD_GPU
