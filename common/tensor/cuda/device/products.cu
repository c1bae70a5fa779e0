// Matrix products by cuBLASLt. f32 products are f32 throughout: TF32, which keeps ten bits, is not used. Those of 8-bit
// floats are not added fast, which keeps fewer bits.
#include "common/tensor/cuda/products.h"

#include <cublasLt.h>

#include <array>
#include <map>

#include "common/tensor/storage_type.h"

namespace ninefold::cuda {
namespace {

constexpr int64_t largest_workspace = int64_t{32} << 20;
constexpr int64_t workspace_alignment = 256;

void check(cublasStatus_t result) {
  expect(result == CUBLAS_STATUS_SUCCESS, "cuBLASLt: {}", cublasLtGetStatusString(result));
}

cudaDataType_t type_of(Dtype dtype) {
  if (dtype == Dtype::f8_e4m3) return CUDA_R_8F_E4M3;
  if (dtype == Dtype::f8_e5m2) return CUDA_R_8F_E5M2;
  expect(is_float(dtype), "cuBLASLt multiplies no {} here", name_of(dtype));
  if (dtype == Dtype::bf16) return CUDA_R_16BF;
  return dtype == Dtype::f16 ? CUDA_R_16F : CUDA_R_32F;
}

// The largest power of two up to 256 that divides the address.
uint32_t alignment_of(const void* address) {
  const auto bits = reinterpret_cast<uintptr_t>(address) | 256;
  return static_cast<uint32_t>(bits & (~bits + 1));
}

// Owns one of cuBLASLt's descriptions.
template <typename Handle, cublasStatus_t (*destroy)(Handle)>
struct Owned {
  Handle handle = nullptr;
  Owned() = default;
  ~Owned() { destroy(handle); }
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
};
using Layout = Owned<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference = Owned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;
using Description = Owned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;

// cuBLASLt's matrices are column by column: ours, row by row, are their transposes, and out = a b is outᵀ = bᵀ aᵀ.
void describe(Layout& layout, const Tensor& x) {
  check(cublasLtMatrixLayoutCreate(&layout.handle, type_of(x.dtype()), static_cast<uint64_t>(x.dim(1)),
                                   static_cast<uint64_t>(x.dim(0)), x.dim(1)));
}

void prefer(Preference& preference, cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
  check(cublasLtMatmulPreferenceSetAttribute(preference.handle, attribute, &value, sizeof value));
}

// A product of one shape, and how cuBLASLt would compute it.
struct Plan {
  Description description;
  Layout out, a, b;
  cublasLtMatmulAlgo_t algorithm;
  int64_t workspace_bytes;

  Plan(cublasLtHandle_t handle, const Tensor& out_, const Tensor& a_, const Tensor& b_,
       const ops::MatmulOptions& options) {
    check(cublasLtMatmulDescCreate(&description.handle, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    const auto transpose = [&](cublasLtMatmulDescAttributes_t operand, bool transposed) {
      const int32_t value = transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
      check(cublasLtMatmulDescSetAttribute(description.handle, operand, &value, sizeof value));
    };
    transpose(CUBLASLT_MATMUL_DESC_TRANSA, options.transpose_b);
    transpose(CUBLASLT_MATMUL_DESC_TRANSB, options.transpose_a);
    describe(out, out_);
    describe(a, a_);
    describe(b, b_);
    choose_algorithm(handle, out_, a_, b_);
  }

 private:
  void choose_algorithm(cublasLtHandle_t handle, const Tensor& out_, const Tensor& a_, const Tensor& b_) {
    Preference preference;
    check(cublasLtMatmulPreferenceCreate(&preference.handle));
    prefer(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(largest_workspace));
    prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(b_.raw()));
    prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(a_.raw()));
    prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment_of(out_.raw()));
    prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment_of(out_.raw()));
    cublasLtMatmulHeuristicResult_t result = {};
    int found = 0;
    check(cublasLtMatmulAlgoGetHeuristic(handle, description.handle, b.handle, a.handle, out.handle, out.handle,
                                         preference.handle, 1, &result, &found));
    expect(found == 1, "cuBLASLt has no product of {} and {}", to_string(a_.shape()), to_string(b_.shape()));
    algorithm = result.algo;
    workspace_bytes = static_cast<int64_t>(result.workspaceSize);
  }
};

// What a plan depends on.
using Key = std::array<int64_t, 11>;
Key key_of(const Tensor& out, const Tensor& a, const Tensor& b, const ops::MatmulOptions& options) {
  return {static_cast<int64_t>(out.dtype()),
          static_cast<int64_t>(a.dtype()),
          static_cast<int64_t>(b.dtype()),
          options.transpose_a,
          options.transpose_b,
          a.dim(0),
          a.dim(1),
          out.dim(1),
          alignment_of(a.raw()),
          alignment_of(b.raw()),
          alignment_of(out.raw())};
}

}  // namespace

struct Products::State {
  Stream stream;
  cublasLtHandle_t handle = nullptr;
  std::map<Key, Plan> plans;
  cudaDeviceProp properties;

  explicit State(Stream stream_) : stream(stream_) {
    int device = 0;
    cuda::check(cudaGetDevice(&device));
    cuda::check(cudaGetDeviceProperties(&properties, device));
    check(cublasLtCreate(&handle));
  }
  ~State() {
    plans.clear();
    cublasLtDestroy(handle);
  }
};

Products::Products(Stream stream) : state_(std::make_unique<State>(stream)) {}
Products::~Products() = default;

void Products::multiply(const Tensor& out, const Tensor& a, const Tensor& b, const ops::MatmulOptions& options,
                        float scale) {
  const Key key = key_of(out, a, b, options);
  auto found = state_->plans.find(key);
  if (found == state_->plans.end()) {
    found =
        state_->plans.emplace(std::piecewise_construct, std::tuple(key), std::tie(state_->handle, out, a, b, options))
            .first;
  }
  const Plan& plan = found->second;
  Tensor space;
  uintptr_t address = 0;
  if (plan.workspace_bytes > 0) {
    space = workspace(out.device(), (plan.workspace_bytes + workspace_alignment) / size_of(Dtype::f32));
    address = reinterpret_cast<uintptr_t>(space.raw());
    address = (address + workspace_alignment - 1) / workspace_alignment * workspace_alignment;
  }
  const float beta = options.accumulate ? 1.0f : 0.0f;
  check(cublasLtMatmul(state_->handle, plan.description.handle, &scale, b.raw(), plan.b.handle, a.raw(), plan.a.handle,
                       &beta, out.raw(), plan.out.handle, out.raw(), plan.out.handle, &plan.algorithm,
                       reinterpret_cast<void*>(address), static_cast<size_t>(plan.workspace_bytes), state_->stream));
}

bool Products::has_f8() const {
  return state_->properties.major * 10 + state_->properties.minor >= 89;  // Ada, Hopper and what came after
}

std::string Products::description() const {
  const cudaDeviceProp& properties = state_->properties;
  return fmt::format("{}, compute capability {}.{}, cuBLASLt {}, f32 without TF32", properties.name, properties.major,
                     properties.minor, cublasLtGetVersion());
}

}  // namespace ninefold::cuda
