// Wrong collectives, to prove that checks fail when they must: a decorator around any Collectives that breaks what it
// carries in one of the ways real programs do.
#pragma once

#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "common/comm/collectives.h"
#include "tests/support/numbers.h"

namespace ninefold {

// Reductions are all_reduce, reduce and reduce_scatter.
enum class CollectiveFault {
  scale_by_two,    // reductions: twice the result
  divide_twice,    // reductions: the result divided by the ranks once more
  drop_one_rank,   // every collective but broadcast: the last rank contributes zeros
  stale_buffer,    // every collective but broadcast: the result of the previous call of the same operation and size
  wrong_group,     // every collective but broadcast: each rank communicates with itself alone
  reorder_sums,    // reductions by sum or avg: added from the last rank to the first; right up to rounding
  reorder_chunks,  // all_gather, reduce_scatter, all_to_all: the parts rotated by one
  scaled_message,  // recv: twice what was sent
  stale_message,   // recv: the message before, of the same size
};
// Those of collectives; the last two are of messages.
inline constexpr CollectiveFault all_collective_faults[] = {
    CollectiveFault::scale_by_two,  CollectiveFault::divide_twice, CollectiveFault::drop_one_rank,
    CollectiveFault::stale_buffer,  CollectiveFault::wrong_group,  CollectiveFault::reorder_sums,
    CollectiveFault::reorder_chunks};

// Only floating-point collectives are broken, and all_to_all with uneven parts by drop_one_rank alone.
class FaultyCollectives : public Collectives {
 public:
  FaultyCollectives(std::unique_ptr<Collectives> inner, CollectiveFault fault, int rank, int size)
      : inner_(std::move(inner)), fault_(fault), rank_(rank), size_(size) {}

  std::shared_ptr<Work> start(const Call& call) override {
    if (!breakable(call)) return inner_->start(call);
    switch (fault_) {
      case CollectiveFault::scale_by_two:
        return scaled(call, 2.0f);
      case CollectiveFault::divide_twice:
        return scaled(call, 1.0f / size_);
      case CollectiveFault::drop_one_rank:
        return rank_ == size_ - 1 ? start_instead(without_contribution(call)) : inner_->start(call);
      case CollectiveFault::stale_buffer:
        return stale(call);
      case CollectiveFault::wrong_group:
        return alone(call);
      case CollectiveFault::reorder_sums:
        return summed_backwards(call);
      case CollectiveFault::reorder_chunks:
        return rotated(call);
      case CollectiveFault::scaled_message:
        return scaled(call, 2.0f);
      case CollectiveFault::stale_message:
        return stale(call);
    }
    return nullptr;
  }
  Sent volume(const Call& call) const override { return inner_->volume(call); }
  bool sends_by_itself(const Call& call) const override { return inner_->sends_by_itself(call); }
  bool sums_in_rank_order() const override { return inner_->sums_in_rank_order(); }

 private:
  // The inner work, and what happens to its result.
  class Spoiled : public Work {
   public:
    Spoiled(std::shared_ptr<Work> inner, std::function<void()> spoil)
        : inner_(std::move(inner)), spoil_(std::move(spoil)) {}
    bool step() override {
      if (inner_ && !inner_->step()) return false;
      spoil_();
      return true;
    }

   private:
    std::shared_ptr<Work> inner_;  // absent where nothing is sent
    std::function<void()> spoil_;
  };

  static bool has_parts(const Call& call) {
    return call.operation == Operation::all_gather || call.operation == Operation::reduce_scatter ||
           call.operation == Operation::all_to_all;
  }

  bool breakable(const Call& call) const {
    if (!call.tensor().defined() || call.tensor().dtype() == Dtype::i32) return false;
    if (!call.in_counts.empty()) return fault_ == CollectiveFault::drop_one_rank;
    switch (fault_) {
      case CollectiveFault::scale_by_two:
      case CollectiveFault::divide_twice:
        return call.reduces();
      case CollectiveFault::reorder_sums:
        return call.reduces() && (call.op == ReduceOp::sum || call.op == ReduceOp::avg);
      case CollectiveFault::reorder_chunks:
        return has_parts(call);
      case CollectiveFault::scaled_message:
      case CollectiveFault::stale_message:
        return call.operation == Operation::recv;
      default:
        return call.reduces() || has_parts(call);
    }
  }

  bool receives(const Call& call) const { return call.operation != Operation::reduce || rank_ == call.peer; }

  // Another call than the one that was asked for, with tensors of its own.
  std::shared_ptr<Work> start_instead(const Call& call) {
    return std::make_unique<Spoiled>(inner_->start(call), [call] {});
  }

  // `part` of the equal parts of `x`.
  Tensor part_of(const Tensor& x, int part) const {
    const int64_t elements = x.size() / size_;
    return x.slice(part * elements, {elements});
  }

  std::shared_ptr<Work> scaled(const Call& call, float factor) {
    return std::make_unique<Spoiled>(inner_->start(call), [this, call, factor] {
      if (receives(call)) ops::scale_(call.out, factor);
    });
  }

  static Call without_contribution(Call call) {
    if (call.in.shares_storage_with(call.out)) {
      ops::fill_(call.in, 0);
    } else {
      call.in = Tensor::zeros(call.in.device(), call.in.shape(), call.in.dtype());
    }
    return call;
  }

  std::shared_ptr<Work> stale(const Call& call) {
    return std::make_unique<Spoiled>(inner_->start(call), [this, call] {
      if (!receives(call)) return;
      Tensor& previous = previous_[{call.operation, call.out.size()}];
      const Tensor fresh = copy_of(call.out);
      if (previous.defined()) ops::copy_(call.out, previous);
      previous = fresh;
    });
  }

  std::shared_ptr<Work> alone(const Call& call) const {
    return std::make_unique<Spoiled>(nullptr, [this, call] {
      if (call.operation == Operation::all_gather) {
        const Tensor own = copy_of(call.in);
        for (int rank = 0; rank < size_; ++rank) ops::copy_(part_of(call.out, rank), own);
      } else if (call.operation == Operation::reduce_scatter) {
        if (call.out.raw() != part_of(call.in, rank_).raw()) ops::copy_(call.out, part_of(call.in, rank_));
      } else if (call.operation == Operation::all_to_all) {
        ops::copy_(call.out, call.in);
      }
    });
  }

  std::shared_ptr<Work> summed_backwards(const Call& call) {
    const Tensor all = Tensor::empty(call.in.device(), {size_ * call.in.size()}, call.in.dtype());
    const Call gather{.operation = Operation::all_gather, .in = copy_of(call.in), .out = all};
    return std::make_unique<Spoiled>(inner_->start(gather), [this, call, gather, all] {
      if (!receives(call)) return;
      const Tensor sum = Tensor::zeros(call.in.device(), {call.in.size()}, Dtype::f32);
      for (int rank = size_ - 1; rank >= 0; --rank) ops::add_(sum, part_of(all, rank));
      if (call.op == ReduceOp::avg) ops::scale_(sum, 1.0f / size_);
      ops::copy_(call.out, call.operation == Operation::reduce_scatter ? part_of(sum, rank_) : sum);
    });
  }

  std::shared_ptr<Work> rotated(Call call) {
    if (call.operation == Operation::reduce_scatter) {
      call.in = with_rotated_parts(call.in);
      return start_instead(call);
    }
    return std::make_unique<Spoiled>(inner_->start(call),
                                     [this, call] { ops::copy_(call.out, with_rotated_parts(call.out)); });
  }

  Tensor with_rotated_parts(const Tensor& x) const {
    const Tensor rotated = Tensor::empty(x.device(), x.shape(), x.dtype());
    for (int part = 0; part < size_; ++part) ops::copy_(part_of(rotated, part), part_of(x, (part + 1) % size_));
    return rotated;
  }

  std::unique_ptr<Collectives> inner_;
  CollectiveFault fault_;
  int rank_, size_;
  std::map<std::pair<Operation, int64_t>, Tensor> previous_;  // results, of stale_buffer
};

// World world(options, faulty_collectives(mpi_collectives(), CollectiveFault::scale_by_two));
inline CollectivesFactory faulty_collectives(CollectivesFactory inner, CollectiveFault fault) {
  return [inner = std::move(inner), fault](Transport& transport) -> std::unique_ptr<Collectives> {
    return std::make_unique<FaultyCollectives>(inner(transport), fault, transport.rank(), transport.size());
  };
}

}  // namespace ninefold
