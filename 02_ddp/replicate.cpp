#include "02_ddp/replicate.h"

namespace ninefold {
namespace {

// Elements that a parameter takes in the flat buffer: every parameter starts at a multiple of 64 bytes.
int64_t padded(const Parameter& parameter, Dtype gradient) {
  return rounded(elements(parameter.local_shape()) * size_of(gradient)) / size_of(gradient);
}

// One buffer of zeros, with every parameter's gradient a view into it.
Tensor flatten_gradients(const std::vector<Parameter*>& parameters, const DeviceHandle& device, Dtype gradient) {
  int64_t total = 0;
  for (const Parameter* parameter : parameters) total += padded(*parameter, gradient);
  const MemoryScope scope(*device, MemoryKind::gradients);
  Tensor flat = Tensor::zeros(device, {total}, gradient);
  int64_t offset = 0;
  for (Parameter* parameter : parameters) {
    parameter->gradient = flat.slice(offset, parameter->local_shape());
    offset += padded(*parameter, gradient);
  }
  return flat;
}

}  // namespace

Replicated::Replicated(Model& model, const Group& group, DdpVariant variant, const DeviceHandle& device, Dtype gradient)
    : parameters_(parameters_of(model)), group_(group), gradient_(gradient) {
  if (variant == DdpVariant::flat) flat_ = flatten_gradients(parameters_, device, gradient);
}

void Replicated::reduce_gradients() const {
  if (flat_.defined()) {
    group_.all_reduce(flat_);
  } else {
    for (const Parameter* parameter : parameters_) group_.all_reduce(parameter->gradient);
  }
}

void Replicated::predict_traffic(TrafficLedger& ledger, int64_t steps) const {
  if (group_.size() == 1) return;
  const auto predict = [&](int64_t elements) {
    ledger.predict(group_.name(), Operation::all_reduce, steps,
                   steps * formula::all_reduce_bytes(group_.size(), elements, gradient_));
  };
  if (flat_.defined()) {
    int64_t total = 0;
    for (const Parameter* parameter : parameters_) total += padded(*parameter, gradient_);
    predict(total);
  } else {
    for (const Parameter* parameter : parameters_) predict(parameter->size());
  }
}

}  // namespace ninefold
