#include "common/nn/attention_cache.h"

#include <algorithm>
#include <numeric>

namespace ninefold {
namespace {

// Appends rows; the capacity doubles when it is used up.
void append(Tensor& kept, int64_t length, const Tensor& rows) {
  const int64_t needed = length + rows.dim(0), capacity = kept.defined() ? kept.dim(0) : 0;
  if (needed > capacity) {
    const Tensor larger = Tensor::empty(rows.device(), {std::max(needed, 2 * capacity), rows.dim(1)}, rows.dtype());
    if (length > 0) ops::copy_(larger.rows(0, length), kept.rows(0, length));
    kept = larger;
  }
  ops::copy_(kept.rows(length, needed), rows);
}

}  // namespace

Tensor CachedAttention::forward(const Tensor& q, const Tensor& k, const Tensor& v, Saved& saved) {
  append(keys_, length_, k);
  append(values_, length_, v);
  length_ += k.dim(0);
  std::vector<int32_t> positions(static_cast<size_t>(length_));
  std::iota(positions.begin(), positions.end(), 0);
  const ops::AttentionShape shape{
      .batch = 1, .heads = q.dim(1) / head_dim_, .kv_heads = k.dim(1) / head_dim_, .head_dim = head_dim_};
  return ops::attention_block(q, saved.step().positions, keys_.rows(0, length_), values_.rows(0, length_),
                              Tensor::from(q.device(), {length_}, positions), shape)
      .out;
}

ops::AttentionGradients CachedAttention::backward(const Tensor&, Saved&) {
  expect(false, "attention with a cache has no backward");
  return {};
}

}  // namespace ninefold
