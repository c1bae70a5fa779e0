#include "common/train/generate.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "common/nn/attention_cache.h"
#include "common/nn/replace.h"

namespace ninefold {

int32_t choose_token(const Tensor& scores, const Sampling& sampling, RandomStream& random) {
  const std::vector<float> values = ops::cast(scores, Dtype::f32).to_vector<float>();
  std::vector<int32_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  const bool draws = sampling.temperature > 0;
  const auto wanted = static_cast<size_t>(draws ? sampling.top_k : 1);
  const size_t kept = wanted == 0 ? order.size() : std::min(wanted, order.size());
  // Of equal scores the first comes first, so that the order is one.
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(kept), order.end(),
                    [&](int32_t a, int32_t b) { return std::pair(-values[a], a) < std::pair(-values[b], b); });
  if (!draws) return order[0];
  std::vector<double> sums;
  double sum = 0;
  for (size_t i = 0; i < kept; ++i) {
    sum += std::exp((static_cast<double>(values[order[i]]) - values[order[0]]) / sampling.temperature);
    sums.push_back(sum);
  }
  const auto drawn = std::upper_bound(sums.begin(), sums.end(), random.uniform() * sum) - sums.begin();
  return order[std::min(static_cast<size_t>(drawn), kept - 1)];
}

Generator::Generator(Model& model, const LlamaConfig& config, const DeviceHandle& device)
    : model_(model), device_(device) {
  for_each_core(model, "layers.*.attention.core", [&](const std::string&, std::unique_ptr<AttentionCore>& core) {
    core = std::make_unique<CachedAttention>(config.head_dim());
  });
}

Tensor Generator::feed(const std::vector<int32_t>& tokens) {
  const auto count = static_cast<int64_t>(tokens.size());
  std::vector<int32_t> positions(tokens.size());
  std::iota(positions.begin(), positions.end(), static_cast<int32_t>(length_));
  length_ += count;
  Step step;
  step.training = false;
  step.rows_per_sample = count;
  step.positions = Tensor::from(device_, {count}, positions);
  Saved saved(std::move(step));
  return model_.forward(Tensor::from(device_, {count}, tokens), saved).rows(count - 1, count);
}

}  // namespace ninefold
