#include "07_context_parallel/ring.h"

#include <optional>

namespace ninefold {
namespace {

Tensor as(const Tensor& x, Dtype dtype) { return x.dtype() == dtype ? x : ops::cast(x, dtype); }

// The gradients of keys and values: of this rank's own, which stay here, and of those that come by, whose sum over the
// ranks they have passed travels with them. In f32.
class KeyGradients {
 public:
  // `own`: what this rank's queries add to its own.
  KeyGradients(const Ring& ring, const ops::AttentionGradients& own)
      : ring_(ring), own_{as(own.dk, Dtype::f32), as(own.dv, Dtype::f32)} {}

  // `part`: what they add to those that are here now, which look like `keys`; nothing where it is undefined.
  void add_and_pass_on(const ops::AttentionGradients& part, const Ring::Pair& keys) {
    Ring::Pair sum = passing_.wait();
    if (!sum[0].defined()) {
      sum = begin(part, keys);
    } else if (part.dk.defined()) {
      ops::add_(sum[0], part.dk);
      ops::add_(sum[1], part.dv);
    }
    passing_ = ring_.pass_gradients(sum);
  }

  // With what all other ranks have added.
  Ring::Pair finish() {
    const Ring::Pair others = passing_.wait();
    for (size_t i = 0; i < own_.size() && others[i].defined(); ++i) ops::add_(own_[i], others[i]);
    return own_;
  }

 private:
  static Ring::Pair begin(const ops::AttentionGradients& part, const Ring::Pair& keys) {
    const MemoryScope scope(*keys[0].device(), MemoryKind::communication);
    if (part.dk.defined()) return {ops::cast(part.dk, Dtype::f32), ops::cast(part.dv, Dtype::f32)};
    const auto zeros = [](const Tensor& like) { return Tensor::zeros(like.device(), like.shape(), Dtype::f32); };
    return {zeros(keys[0]), zeros(keys[1])};
  }

  const Ring& ring_;
  Ring::Pair own_;
  Ring::Passing passing_;
};

}  // namespace

Ring::Passing::Passing(const Group& group, const Pair& leaving, int tag) {
  const int next = (group.rank() + 1) % group.size(), before = (group.rank() + group.size() - 1) % group.size();
  const MemoryScope scope(*leaving[0].device(), MemoryKind::communication);
  for (size_t i = 0; i < leaving.size(); ++i) {
    arriving_[i] = Tensor::empty(leaving[i].device(), leaving[i].shape(), leaving[i].dtype());
    pending_.push_back(group.start_recv(arriving_[i], before, tag));
    pending_.push_back(group.start_send(leaving[i], next, tag));
  }
}

void Ring::Passing::settle() {
  for (Pending& pending : pending_) pending.wait();
  pending_.clear();
}

Ring::Pair Ring::Passing::wait() {
  settle();
  return std::exchange(arriving_, {});
}

Ring::Passing Ring::pass(const Pair& leaving, int tag) const {
  Passing passing(group_, leaving, tag);
  if (!options_.overlap) passing.settle();
  return passing;
}

const Ring::Course& Ring::course(int64_t length, const DeviceHandle& device) {
  if (course_.length == length) return course_;
  const MemoryScope scope(*device, MemoryKind::data);
  course_ = {length, ring_plan(layout_, group_.rank(), length), {}};
  for (int block = 0; block < group_.size(); ++block) {
    const std::vector<int32_t> positions = layout_.block_positions(block, length);
    course_.positions.push_back(Tensor::from(device, {static_cast<int64_t>(positions.size())}, positions));
  }
  return course_;
}

const Ring::Course& RingAttention::course(const Step& step) const {
  return ring_->course(step.rows_per_sample * ring_->size(), step.positions.device());
}

ops::Attention RingAttention::attend(const Tensor& q, const Ring::Pair& own, const Step& step) const {
  const Ring::Course& course = this->course(step);
  ops::AttentionShape shape = attention_shape(q, own[0], step, head_dim_);
  Ring::Pair here = own;
  ops::Attention sum;
  for (const auto& [block, pairs, is_last] : course.steps) {
    Ring::Passing keys = is_last ? Ring::Passing() : ring_->pass_keys(here);
    if (pairs > 0) {
      shape.visible_pairs = pairs;
      const ops::Attention part = ops::attention_block(q, step.positions, here[0], here[1],
                                                       course.positions[static_cast<size_t>(block)], shape);
      if (sum.out.defined()) {
        ops::merge_attention_(sum, part, shape);
      } else {  // this rank's own block, which is first
        sum = {as(part.out, ring_->options().merge), part.log_sum_exp};
      }
    }
    here = keys.wait();
  }
  return {as(sum.out, q.dtype()), sum.log_sum_exp};
}

Tensor RingAttention::forward(const Tensor& q, const Tensor& k, const Tensor& v, Saved& saved) {
  const auto [out, log_sum_exp] = saved.keep(SavedOperation::attention, [&] {
    const ops::Attention result = attend(q, {k, v}, saved.step());
    return std::array{result.out, result.log_sum_exp};
  });
  for (const Tensor& tensor : {q, k, v, out, log_sum_exp}) saved.push(tensor);
  return out;
}

ops::AttentionGradients RingAttention::backward(const Tensor& dout, Saved& saved) {
  const Tensor log_sum_exp = saved.pop(), out = saved.pop(), v = saved.pop(), k = saved.pop(), q = saved.pop();
  const Step& step = saved.step();
  const Ring::Course& course = this->course(step);
  const auto differentiate = [&](const Ring::Pair& keys, int block, int64_t pairs) {
    ops::AttentionShape shape = attention_shape(q, k, step, head_dim_);
    shape.visible_pairs = pairs;
    return ops::attention_block_backward(dout, q, step.positions, keys[0], keys[1],
                                         course.positions[static_cast<size_t>(block)], {out, log_sum_exp}, shape);
  };
  Ring::Pair here = {k, v};
  Tensor dq;
  std::optional<KeyGradients> gradients;
  for (const auto& [block, pairs, is_last] : course.steps) {
    Ring::Passing keys = is_last ? Ring::Passing() : ring_->pass_keys(here);
    const ops::AttentionGradients part = pairs > 0 ? differentiate(here, block, pairs) : ops::AttentionGradients{};
    if (!gradients) {  // this rank's own block
      dq = as(part.dq, Dtype::f32);
      gradients.emplace(*ring_, part);
    } else {
      if (pairs > 0) ops::add_(dq, part.dq);
      gradients->add_and_pass_on(part, here);
    }
    here = keys.wait();
  }
  const auto [dk, dv] = gradients->finish();
  return {as(dq, q.dtype()), as(dk, k.dtype()), as(dv, v.dtype())};
}

}  // namespace ninefold
