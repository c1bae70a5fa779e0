// Group is a set of ranks that communicate, and the operations among them under their usual names. They take Tensors:
// count and type come from the tensor, never from a pointer and a number.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/comm/collectives.h"
#include "common/comm/pending.h"
#include "common/tensor/tensor.h"

namespace ninefold {

class World;

// A small handle; copies are the same group. It must not outlive its World. Ranks and roots are ranks within the group.
//
// Every operation exists in two forms: `start_x` returns at once with a Pending, and `x` is start_x and wait. All ranks
// of the group make the same calls in the same order (send and recv aside). Results are complete on return from wait,
// and until then nobody else may use the tensors. In a group of one rank nothing is sent. On meta tensors an operation
// only books its bytes. Shapes that do not fit throw Error.
class Group {
 public:
  Group() = default;

  int rank() const;
  int size() const;
  // The mesh dimension, under which the traffic is booked.
  const std::string& name() const;
  // World ranks, in the order of the group's ranks.
  const std::vector<int>& members() const;
  World& world() const;
  // The same group; a trace names what is called through this handle: "all_reduce dp_replicate bucket 1".
  Group labelled(std::string label) const;
  const std::string& label() const { return label_; }
  // What chapters build their own algorithms on. Groups of one rank have none (Error).
  Transport& transport() const;

  // tensor = the reduction of every rank's tensor, on all ranks.
  void all_reduce(const Tensor& tensor, ReduceOp op = ReduceOp::sum) const;
  Pending start_all_reduce(const Tensor& tensor, ReduceOp op = ReduceOp::sum) const;
  // The same with the result in `out`, of equal size; `in` stays as it was.
  void all_reduce(const Tensor& out, const Tensor& in, ReduceOp op = ReduceOp::sum) const;
  Pending start_all_reduce(const Tensor& out, const Tensor& in, ReduceOp op = ReduceOp::sum) const;

  // out = every rank's `in`, one after the other; out.size() == size() * in.size(). `in` may be this rank's part of
  // out.
  void all_gather(const Tensor& out, const Tensor& in) const;
  Pending start_all_gather(const Tensor& out, const Tensor& in) const;

  // out = this rank's part of the reduction of every rank's `in`; in.size() == size() * out.size(). `out` may be this
  // rank's part of in; the other parts of `in` are left as they were.
  void reduce_scatter(const Tensor& out, const Tensor& in, ReduceOp op = ReduceOp::sum) const;
  Pending start_reduce_scatter(const Tensor& out, const Tensor& in, ReduceOp op = ReduceOp::sum) const;

  // tensor = the root's tensor, on all ranks.
  void broadcast(const Tensor& tensor, int root) const;
  Pending start_broadcast(const Tensor& tensor, int root) const;

  // On the root: tensor = the reduction of every rank's tensor. On the others it stays as it was.
  void reduce(const Tensor& tensor, int root, ReduceOp op = ReduceOp::sum) const;
  Pending start_reduce(const Tensor& tensor, int root, ReduceOp op = ReduceOp::sum) const;

  // Part j of `in` goes to rank j; part i of `out` comes from rank i. Both are size() equal parts, and do not overlap.
  void all_to_all(const Tensor& out, const Tensor& in) const;
  Pending start_all_to_all(const Tensor& out, const Tensor& in) const;
  // The same with parts of in_rows[j] and out_rows[i] rows of the first dimension, zero allowed.
  void all_to_all(const Tensor& out, const Tensor& in, const std::vector<int64_t>& out_rows,
                  const std::vector<int64_t>& in_rows) const;
  Pending start_all_to_all(const Tensor& out, const Tensor& in, const std::vector<int64_t>& out_rows,
                           const std::vector<int64_t>& in_rows) const;

  // Messages between two ranks with the same tag (0 <= tag < control_tag) arrive in the order they were sent.
  // A send may wait until the peer receives.
  void send(const Tensor& tensor, int peer, int tag = 0) const;
  Pending start_send(const Tensor& tensor, int peer, int tag = 0) const;
  void recv(const Tensor& tensor, int peer, int tag = 0) const;
  Pending start_recv(const Tensor& tensor, int peer, int tag = 0) const;

  // What this rank will send for an all_reduce, or for an all_gather to, a reduce_scatter or an even all_to_all of so
  // many elements in all, by the formula of the algorithm that will run. For predictions: nothing is measured.
  Volume all_reduce_volume(int64_t elements, Dtype dtype) const;
  Volume all_gather_volume(int64_t elements, Dtype dtype) const;
  Volume reduce_scatter_volume(int64_t elements, Dtype dtype) const;
  Volume all_to_all_volume(int64_t elements, Dtype dtype) const;
  // The same for an all_to_all with parts of out_rows[i] and in_rows[j] rows of `features` elements.
  Volume all_to_all_volume(const std::vector<int64_t>& out_rows, const std::vector<int64_t>& in_rows, int64_t features,
                           Dtype dtype) const;

  // Whether an f32 sum over this group has the bits of ((x0 + x1) + x2) + …: always for up to two ranks, because a sum
  // of two has no order, else where the collectives see to it.
  bool sums_in_rank_order() const;

  // Returns once every rank of the group has called it.
  void barrier() const;
  Pending start_barrier() const;

 private:
  friend class World;
  friend class VirtualTime;
  struct State;
  explicit Group(std::shared_ptr<State> state) : state_(std::move(state)) {}
  Pending start(Call&& call) const;
  void run(Call&& call) const;

  std::shared_ptr<State> state_;
  std::string label_;
};

}  // namespace ninefold
