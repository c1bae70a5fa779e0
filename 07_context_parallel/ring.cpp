#include "07_context_parallel/ring.h"

namespace ninefold {
namespace {

Tensor as(const Tensor& x, Dtype dtype) { return x.dtype() == dtype ? x : ops::cast(x, dtype); }

// f32, on its way between ranks; zeros where there is nothing to begin with.
Ring::Pair to_be_passed(const ops::AttentionGradients& gradients, const Ring::Pair& like) {
  const MemoryScope scope(*like[0].device(), MemoryKind::communication);
  const auto copy = [](const Tensor& x, const Tensor& shaped) {
    return x.defined() ? ops::cast(x, Dtype::f32) : Tensor::zeros(shaped.device(), shaped.shape(), Dtype::f32);
  };
  return {copy(gradients.dk, like[0]), copy(gradients.dv, like[1])};
}

void add(const Ring::Pair& sum, const Ring::Pair& part) {
  for (size_t i = 0; i < sum.size(); ++i) ops::add_(sum[i], part[i]);
}

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

ops::AttentionShape RingAttention::shape_of(const Tensor& q, const Tensor& k, const Step& step) const {
  return {.batch = q.dim(0) / step.rows_per_sample,
          .heads = q.dim(1) / head_dim_,
          .kv_heads = k.dim(1) / head_dim_,
          .head_dim = head_dim_};
}

ops::Attention RingAttention::attend(const Tensor& q, const Ring::Pair& own, const Step& step) const {
  const Ring::Course& course = this->course(step);
  const ops::AttentionShape shape = shape_of(q, own[0], step);
  ops::Attention sum;
  Ring::Pair here = own;
  for (size_t i = 0; i < course.steps.size(); ++i) {
    const auto [block, pairs] = course.steps[i];
    Ring::Passing passing;
    if (i + 1 < course.steps.size()) passing = ring_->pass_keys(here);
    if (pairs > 0) {
      const ops::Attention part = ops::attention_block(q, step.positions, here[0], here[1],
                                                       course.positions[static_cast<size_t>(block)], shape);
      if (i == 0) {
        sum = {as(part.out, ring_->options().merge), part.log_sum_exp};
      } else {
        ops::merge_attention_(sum, part, shape);
      }
    }
    here = passing.wait();
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
  Tensor dq;
  Ring::Pair here = {k, v}, own;  // own: dk, dv of this rank's block
  Ring::Passing gradients;        // dk, dv of another, that all ranks before this one have added to
  for (size_t i = 0; i < course.steps.size(); ++i) {
    const auto [block, pairs] = course.steps[i];
    Ring::Passing keys;
    if (i + 1 < course.steps.size()) keys = ring_->pass_keys(here);
    ops::AttentionGradients part;
    if (pairs > 0) {
      part = ops::attention_block_backward(dout, q, step.positions, here[0], here[1],
                                           course.positions[static_cast<size_t>(block)], {out, log_sum_exp},
                                           shape_of(q, k, step));
    }
    if (i == 0) {
      dq = as(part.dq, Dtype::f32);
      own = {as(part.dk, Dtype::f32), as(part.dv, Dtype::f32)};
    } else {
      if (pairs > 0) ops::add_(dq, part.dq);
      Ring::Pair sum = gradients.wait();
      if (!sum[0].defined()) {
        sum = to_be_passed(part, here);
      } else if (pairs > 0) {
        add(sum, {part.dk, part.dv});
      }
      gradients = ring_->pass_gradients(sum);
    }
    here = keys.wait();
  }
  if (const Ring::Pair others = gradients.wait(); others[0].defined()) add(own, others);
  return {as(dq, q.dtype()), as(own[0], k.dtype()), as(own[1], v.dtype())};
}

}  // namespace ninefold
