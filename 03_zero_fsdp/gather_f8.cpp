#include "03_zero_fsdp/gather_f8.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <map>

#include "common/comm/control.h"

namespace ninefold {
namespace {

constexpr float largest_e4m3 = 448;

// The largest magnitude of the owned values, as bits: as integers they are in the order of the magnitudes, with
// infinity and NaN above all numbers, so that no maximum hides them. Padding is no value.
template <typename Parameters>
int32_t largest_bits(const Parameters& parameters) {
  int32_t largest = 0;
  for (const Parameter* parameter : parameters) {
    const float magnitude = std::abs(ops::absolute_max(parameter->owned.value));
    largest = std::max(largest, std::bit_cast<int32_t>(magnitude));
  }
  return largest;
}

float scale_of(int32_t bits, const std::string& unit) {
  const auto largest = std::bit_cast<float>(bits);
  require(std::isfinite(largest),
          "the parameters of {} are not all finite, so they cannot be gathered in f8; a lower --lr may help", unit);
  return largest > 0 ? std::max(largest / largest_e4m3, std::numeric_limits<float>::min()) : 1;
}

}  // namespace

void share_scales(const Units& units, const Group& shards, const DeviceHandle& device) {
  std::vector<int32_t> bits;
  for (const auto& unit : units) bits.push_back(largest_bits(unit->parameters()));
  const MemoryScope scope(*device, MemoryKind::communication);
  const Tensor shared = Tensor::from(device, {static_cast<int64_t>(bits.size())}, bits);
  shards.all_reduce(shared, ReduceOp::max);
  bits = shared.to_vector<int32_t>();
  for (size_t i = 0; i < units.size(); ++i) units[i]->set_scale(scale_of(bits[i], units[i]->layout().name));
}

void round_as_gathered(const Units& units, const std::vector<Parameter*>& whole) {
  std::map<std::string, const Parameter*> by_name;
  for (const Parameter* parameter : whole) by_name[parameter->name] = parameter;
  for (const auto& unit : units) {
    std::vector<const Parameter*> held;
    for (const Parameter* parameter : unit->parameters()) held.push_back(by_name.at(parameter->name));
    const float scale = scale_of(largest_bits(held), unit->layout().name);
    for (const Parameter* parameter : held) {
      ops::dequantize_(parameter->value, ops::quantize(parameter->owned.value, scale, Dtype::f8_e4m3), scale);
    }
  }
}

double gather_error(const Units& units, const Group& shards) {
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
  return std::sqrt(control::sum(shards, error_squares.value()) / control::sum(shards, squares.value()));
}

}  // namespace ninefold
