#include "03_zero_fsdp/gather_f8.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "common/comm/control.h"

namespace ninefold {
namespace {

constexpr float largest_e4m3 = 448;

// The largest magnitude of the owned values, as bits: as integers they are in the order of the magnitudes, with
// infinity and NaN above all numbers, so that no maximum hides them. Padding is no value.
int32_t largest_bits(const std::vector<Parameter*>& parameters) {
  int32_t largest = 0;
  for (const Parameter* parameter : parameters) {
    const float magnitude = std::abs(ops::absolute_max(parameter->owned.value));
    largest = std::max(largest, std::bit_cast<int32_t>(magnitude));
  }
  return largest;
}

float scale_of(float largest, const std::string& unit) {
  require(std::isfinite(largest),
          "the parameters of {} are not all finite, so they cannot be gathered in f8; a lower --lr may help", unit);
  return largest > 0 ? std::max(largest / largest_e4m3, std::numeric_limits<float>::min()) : 1;
}

}  // namespace

std::vector<Group> groups_of_parts(const std::vector<Parameter*>& parameters, const Mesh& mesh) {
  std::set<std::string> dimensions;
  for (const Parameter* parameter : parameters) {
    for (const Placement::Shard& shard : parameter->placement.shards) dimensions.insert(shard.mesh_dimension);
    if (!parameter->placement.flat) continue;
    const auto& flat = parameter->placement.flat->mesh_dimensions;
    dimensions.insert(flat.begin(), flat.end());
  }
  std::vector<Group> groups;
  for (const std::string& dimension : dimensions) {
    if (mesh[dimension].size() > 1) groups.push_back(mesh[dimension]);
  }
  return groups;
}

std::vector<float> share_largest(const std::vector<std::vector<Parameter*>>& parameters,
                                 const std::vector<Group>& groups, const DeviceHandle& device) {
  std::vector<int32_t> bits;
  for (const auto& set : parameters) bits.push_back(largest_bits(set));
  const MemoryScope scope(*device, MemoryKind::communication);
  const Tensor shared = Tensor::from(device, {static_cast<int64_t>(bits.size())}, bits);
  for (const Group& group : groups) group.all_reduce(shared, ReduceOp::max);
  std::vector<float> largest;
  for (const int32_t number : shared.to_vector<int32_t>()) largest.push_back(std::bit_cast<float>(number));
  return largest;
}

void share_scales(const Units& units, const std::vector<Group>& groups, const DeviceHandle& device) {
  std::vector<std::vector<Parameter*>> parameters;
  for (const auto& unit : units) parameters.push_back(unit->parameters());
  const std::vector<float> largest = share_largest(parameters, groups, device);
  for (size_t i = 0; i < units.size(); ++i) units[i]->set_scale(scale_of(largest[i], units[i]->layout().name));
}

void round_as_gathered(const Units& units, const std::vector<Parameter*>& whole) {
  std::map<std::string, Parameter*> by_name;
  for (Parameter* parameter : whole) by_name[parameter->name] = parameter;
  for (const auto& unit : units) {
    std::vector<Parameter*> held;
    for (const Parameter* parameter : unit->parameters()) held.push_back(by_name.at(parameter->name));
    const float scale = scale_of(std::bit_cast<float>(largest_bits(held)), unit->layout().name);
    for (Parameter* parameter : held) {
      parameter->f8_scale = scale;
      ops::dequantize_(parameter->value, ops::quantize(parameter->owned.value, scale, Dtype::f8_e4m3), scale);
    }
  }
}

double gather_error(const Units& units, const std::vector<Group>& groups) {
  ops::ExactSum squares, error_squares;
  for (const auto& unit : units) {
    for (const Parameter* parameter : unit->parameters()) {
      const Tensor& value = parameter->owned.value;
      const Tensor quantized = ops::quantize(value, unit->scale(), Dtype::f8_e4m3);
      const Tensor error = ops::dequantize(quantized, unit->scale(), Dtype::f32);
      ops::scale_(error, -1);
      ops::add_(error, value);
      squares += ops::sum_of_squares(value);
      error_squares += ops::sum_of_squares(error);
    }
  }
  double sum = squares.value(), error_sum = error_squares.value();
  for (const Group& group : groups) {
    sum = control::sum(group, sum);
    error_sum = control::sum(group, error_sum);
  }
  return std::sqrt(error_sum / sum);
}

}  // namespace ninefold
