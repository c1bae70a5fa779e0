#include "05_tensor_parallel/f8.h"

#include <bit>
#include <cmath>

#include "03_zero_fsdp/gather_f8.h"
#include "common/comm/world.h"
#include "common/nn/f8_linears.h"

namespace ninefold {

// As bits: as integers they are in the order of the magnitudes, with infinity and NaN above all numbers.
ShareLargest largest_over(const Group& group) {
  return [group](float own) {
    const DeviceHandle& device = group.world().device();
    const MemoryScope scope(*device, MemoryKind::communication);
    const Tensor bits = Tensor::from(device, {1}, std::vector<int32_t>{std::bit_cast<int32_t>(std::abs(own))});
    group.labelled("scale").all_reduce(bits, ReduceOp::max);
    return std::bit_cast<float>(bits.to_vector<int32_t>()[0]);
  };
}

ShareLargest largest_of_rows(const LayerEnd& end) {
  return end.divides_rows() ? largest_over(end.group()) : ShareLargest();
}

namespace {

// A set for each weight, because each has a scale of its own.
std::vector<std::vector<Parameter*>> weights_of(Model& model, const std::string& f8_linears) {
  std::vector<std::vector<Parameter*>> weights;
  for (Parameter* parameter : parameters_of(model)) {
    const bool is_matrix = parameter->shape.size() == 2;
    if (is_matrix && is_at_or_below(f8_linears, parameter->name)) weights.push_back({parameter});
  }
  return weights;
}

}  // namespace

Parallelism with_weight_scales(Parallelism inner, Model& model, const std::string& f8_linears, const Mesh& mesh) {
  const auto weights = weights_of(model, f8_linears);
  const std::vector<Group> groups = groups_of_parts(parameters_of(model), mesh);
  const auto share = [weights, groups, device = mesh.world().device()] {
    const std::vector<float> largest = share_largest(weights, groups, device);
    for (size_t i = 0; i < weights.size(); ++i) weights[i][0]->f8_scale = f8_scale(largest[i], Dtype::f8_e4m3);
  };
  Parallelism both = inner;
  both.before_training = [inner, share] {
    inner.before_training();
    share();
  };
  both.after_update = [inner, share] {
    inner.after_update();
    share();
  };
  both.predict_traffic = [inner, groups, count = static_cast<int64_t>(weights.size())](TrafficLedger& ledger,
                                                                                       int64_t steps) {
    inner.predict_traffic(ledger, steps);
    for (const Group& group : groups) {
      ledger.predict(group.name(), Operation::all_reduce, steps + 1, group.all_reduce_volume(count, Dtype::i32));
    }
  };
  return both;
}

}  // namespace ninefold
