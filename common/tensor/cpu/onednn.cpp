#include "common/tensor/cpu/onednn.h"

#include <fmt/format.h>

#include "common/tensor/cpu/cpu_kernels.h"
#include "common/tensor/cpu/simd.h"
#include "common/tensor/storage_type.h"

// Of the OpenMP runtime that oneDNN is linked with; <omp.h> does not come with every compiler.
extern "C" void omp_set_num_threads(int);

namespace ninefold {

dnnl::memory::data_type onednn_type(Dtype dtype) {
  expect(dtype == Dtype::f32 || dtype == Dtype::bf16, "oneDNN multiplies no {} here", name_of(dtype));
  return dtype == Dtype::bf16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
}

ReadyPrimitive::ReadyPrimitive(const dnnl::engine& engine, const dnnl::primitive& primitive,
                               const dnnl::memory::desc& scratchpad, const std::vector<PrimitiveArgument>& arguments)
    : primitive_(primitive),
      scratchpad_(scratchpad, engine, DNNL_MEMORY_NONE),
      workspace_bytes_(rounded(static_cast<int64_t>(scratchpad.get_size()))) {
  for (const PrimitiveArgument& argument : arguments) {
    Slot slot{dnnl::memory(argument.outside, engine, DNNL_MEMORY_NONE),
              dnnl::memory(argument.inside, engine, DNNL_MEMORY_NONE), std::nullopt, argument.is_output};
    if (argument.outside != argument.inside) {
      slot.reorder =
          argument.is_output ? dnnl::reorder(slot.inside, slot.outside) : dnnl::reorder(slot.outside, slot.inside);
      slot.offset = workspace_bytes_;
      workspace_bytes_ += rounded(static_cast<int64_t>(argument.inside.get_size()));
    }
    slots_.push_back(slot);
    arguments_.push_back({argument.role, slot.inside.get()});
  }
  arguments_.push_back({DNNL_ARG_SCRATCHPAD, scratchpad_.get()});
}

void ReadyPrimitive::run(dnnl::stream& stream, const DeviceHandle& device,
                         std::initializer_list<const void*> addresses) {
  expect(addresses.size() == slots_.size(), "{} addresses for {} arguments", addresses.size(), slots_.size());
  Tensor scratch;
  std::byte* scratch_address = nullptr;
  if (workspace_bytes_ > 0) {
    scratch = workspace(device, workspace_bytes_ / size_of(Dtype::f32));
    scratch_address = static_cast<std::byte*>(scratch.raw());
    scratchpad_.set_data_handle(scratch_address);
  }
  auto slot = slots_.begin();
  for (const void* address : addresses) {
    slot->outside.set_data_handle(const_cast<void*>(address));
    if (!slot->reorder) slot->inside.set_data_handle(const_cast<void*>(address));
    if (slot->reorder) slot->inside.set_data_handle(scratch_address + slot->offset);
    if (slot->reorder && !slot->is_output) slot->reorder->execute(stream, slot->outside, slot->inside);
    ++slot;
  }
  dnnl::error::wrap_c_api(
      dnnl_primitive_execute(primitive_.get(), stream.get(), static_cast<int>(arguments_.size()), arguments_.data()),
      "oneDNN could not run a primitive");
  for (Slot& output : slots_) {
    if (output.reorder && output.is_output) output.reorder->execute(stream, output.inside, output.outside);
  }
}

OneDnn::OneDnn(int threads) : engine(dnnl::engine::kind::cpu, 0), stream(engine) {
  omp_set_num_threads(threads);
  const int present = static_cast<int>(dnnl::get_effective_cpu_isa());
  const int needed = static_cast<int>(dnnl::cpu_isa::avx512_core_bf16);
  bf16_native = (present & needed) == needed;
}

bool OneDnn::multiplies(Dtype dtype) const { return dtype == Dtype::f32 || (dtype == Dtype::bf16 && bf16_native); }

dnnl::primitive_attr user_scratchpad() {
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return attributes;
}

CpuKernels::CpuKernels(int threads) : onednn_(std::make_unique<OneDnn>(threads)) {}
CpuKernels::~CpuKernels() = default;

std::string CpuKernels::description() const {
  const dnnl_version_t& version = *dnnl::version();
  return fmt::format("oneDNN {}.{}.{}, {}-bit vectors, bf16 {}", version.major, version.minor, version.patch,
                     8 * simd::vector_bytes, onednn_->bf16_native ? "native" : "emulated");
}

}  // namespace ninefold
