#include "common/comm/group.h"

#include <numeric>

#include "common/comm/state.h"
#include "common/comm/world.h"
#include "common/tensor/ops.h"

namespace ninefold {
namespace {

void expect_root(const Group& group, int root) {
  expect(0 <= root && root < group.size(), "rank {} is not in {}, which has {} ranks", root, group.name(),
         group.size());
}

void expect_reducible(const Tensor& tensor, ReduceOp op) {
  expect(is_float(tensor.dtype()) || tensor.dtype() == Dtype::i32, "{} is not added: dequantize it first",
         name_of(tensor.dtype()));
  expect(op != ReduceOp::avg || tensor.dtype() != Dtype::i32, "an average of i32 is not an i32: use sum");
}

// `whole` holds one part the size of `part` for every rank.
void expect_parts(const Group& group, const char* operation, const Tensor& whole, const Tensor& part) {
  expect(whole.dtype() == part.dtype(), "{} over {}: {} and {} must have one type", operation, group.name(),
         name_of(whole.dtype()), name_of(part.dtype()));
  expect(whole.size() == group.size() * part.size(), "{} over {}: {} elements are not {} parts of {}", operation,
         group.name(), whole.size(), group.size(), part.size());
}

void expect_peer(const Group& group, int peer, int tag) {
  expect_root(group, peer);
  expect(peer != group.rank(), "rank {} of {} would send to itself", peer, group.name());
  expect(0 <= tag && tag < control_tag, "tag {} must lie in 0..{}", tag, control_tag - 1);
}

// Rows of the first dimension as elements; together they must be the whole tensor.
std::vector<int64_t> element_counts(const Group& group, const Tensor& tensor, const std::vector<int64_t>& rows) {
  expect(static_cast<int>(rows.size()) == group.size(), "{} row counts for {} ranks", rows.size(), group.size());
  const int64_t all_rows = std::accumulate(rows.begin(), rows.end(), int64_t{0});
  expect(all_rows == tensor.dim(0), "the parts have {} rows, the tensor {}", all_rows, tensor.dim(0));
  std::vector<int64_t> counts;
  for (const int64_t count : rows) counts.push_back(all_rows == 0 ? 0 : count * (tensor.size() / all_rows));
  return counts;
}

// What the two forms of each operation ask for.

Call all_reduce_call(const Tensor& out, const Tensor& in, ReduceOp op) {
  expect(in.dtype() == out.dtype() && in.size() == out.size(), "all_reduce: {} {} in, {} {} out", in.size(),
         name_of(in.dtype()), out.size(), name_of(out.dtype()));
  expect_reducible(in, op);
  return {.operation = Operation::all_reduce, .in = in, .out = out, .op = op};
}

Call all_gather_call(const Group& group, const Tensor& out, const Tensor& in) {
  expect_parts(group, "all_gather", out, in);
  return {.operation = Operation::all_gather, .in = in, .out = out};
}

Call reduce_scatter_call(const Group& group, const Tensor& out, const Tensor& in, ReduceOp op) {
  expect_parts(group, "reduce_scatter", in, out);
  expect_reducible(in, op);
  return {.operation = Operation::reduce_scatter, .in = in, .out = out, .op = op};
}

Call broadcast_call(const Group& group, const Tensor& tensor, int root) {
  expect_root(group, root);
  return {.operation = Operation::broadcast, .in = tensor, .out = tensor, .peer = root};
}

Call reduce_call(const Group& group, const Tensor& tensor, int root, ReduceOp op) {
  expect_root(group, root);
  expect_reducible(tensor, op);
  return {.operation = Operation::reduce, .in = tensor, .out = tensor, .op = op, .peer = root};
}

Call all_to_all_call(const Group& group, const Tensor& out, const Tensor& in) {
  expect(in.dtype() == out.dtype(), "all_to_all: {} and {} must have one type", name_of(in.dtype()),
         name_of(out.dtype()));
  expect(in.size() == out.size() && in.size() % group.size() == 0,
         "all_to_all: {} elements in, {} out, for {} equal parts", in.size(), out.size(), group.size());
  return {.operation = Operation::all_to_all, .in = in, .out = out};
}

Call all_to_all_call(const Group& group, const Tensor& out, const Tensor& in, const std::vector<int64_t>& out_rows,
                     const std::vector<int64_t>& in_rows) {
  expect(in.dtype() == out.dtype(), "all_to_all: {} and {} must have one type", name_of(in.dtype()),
         name_of(out.dtype()));
  return {.operation = Operation::all_to_all,
          .in = in,
          .out = out,
          .in_counts = element_counts(group, in, in_rows),
          .out_counts = element_counts(group, out, out_rows)};
}

Call send_call(const Group& group, const Tensor& tensor, int peer, int tag) {
  expect_peer(group, peer, tag);
  return {.operation = Operation::send, .in = tensor, .peer = peer, .tag = tag};
}

Call recv_call(const Group& group, const Tensor& tensor, int peer, int tag) {
  expect_peer(group, peer, tag);
  return {.operation = Operation::recv, .out = tensor, .peer = peer, .tag = tag};
}

}  // namespace

int Group::rank() const { return state_->rank; }
int Group::size() const { return static_cast<int>(state_->members.size()); }
const std::string& Group::name() const { return state_->name; }
const std::vector<int>& Group::members() const { return state_->members; }
World& Group::world() const { return *state_->world; }

Group Group::labelled(std::string label) const {
  Group group = *this;
  group.label_ = std::move(label);
  return group;
}

Transport& Group::transport() const {
  expect(state_->transport != nullptr, "a group of one rank has nobody to send to");
  return *state_->transport;
}

Volume Group::all_reduce_volume(int64_t elements, Dtype dtype) const {
  if (size() == 1) return {};
  const Tensor paper = Tensor::empty(make_meta_device(), {elements}, dtype);
  return state_->collectives->volume({.operation = Operation::all_reduce, .in = paper, .out = paper});
}

Volume Group::all_gather_volume(int64_t elements, Dtype dtype) const {
  if (size() == 1) return {};
  const DeviceHandle meta = make_meta_device();
  const Tensor whole = Tensor::empty(meta, {elements}, dtype), part = Tensor::empty(meta, {elements / size()}, dtype);
  return state_->collectives->volume({.operation = Operation::all_gather, .in = part, .out = whole});
}

Volume Group::reduce_scatter_volume(int64_t elements, Dtype dtype) const {
  if (size() == 1) return {};
  const DeviceHandle meta = make_meta_device();
  const Tensor whole = Tensor::empty(meta, {elements}, dtype), part = Tensor::empty(meta, {elements / size()}, dtype);
  return state_->collectives->volume({.operation = Operation::reduce_scatter, .in = whole, .out = part});
}

Volume Group::all_to_all_volume(int64_t elements, Dtype dtype) const {
  if (size() == 1) return {};
  const Tensor paper = Tensor::empty(make_meta_device(), {elements}, dtype);
  return state_->collectives->volume({.operation = Operation::all_to_all, .in = paper, .out = paper});
}

Volume Group::all_to_all_volume(const std::vector<int64_t>& out_rows, const std::vector<int64_t>& in_rows,
                                int64_t features, Dtype dtype) const {
  if (size() == 1) return {};
  const DeviceHandle meta = make_meta_device();
  const auto paper = [&](const std::vector<int64_t>& rows) {
    return Tensor::empty(meta, {std::accumulate(rows.begin(), rows.end(), int64_t{0}), features}, dtype);
  };
  return state_->collectives->volume(all_to_all_call(*this, paper(out_rows), paper(in_rows), out_rows, in_rows));
}

bool Group::sums_in_rank_order() const { return size() <= 2 || state_->collectives->sums_in_rank_order(); }

Pending Group::start(Call&& call) const { return world().start(*this, std::move(call)); }
void Group::run(Call&& call) const { world().run(*this, std::move(call)); }

void Group::all_reduce(const Tensor& tensor, ReduceOp op) const { run(all_reduce_call(tensor, tensor, op)); }
Pending Group::start_all_reduce(const Tensor& tensor, ReduceOp op) const {
  return start(all_reduce_call(tensor, tensor, op));
}

void Group::all_reduce(const Tensor& out, const Tensor& in, ReduceOp op) const { run(all_reduce_call(out, in, op)); }
Pending Group::start_all_reduce(const Tensor& out, const Tensor& in, ReduceOp op) const {
  return start(all_reduce_call(out, in, op));
}

void Group::all_gather(const Tensor& out, const Tensor& in) const { run(all_gather_call(*this, out, in)); }
Pending Group::start_all_gather(const Tensor& out, const Tensor& in) const {
  return start(all_gather_call(*this, out, in));
}

void Group::reduce_scatter(const Tensor& out, const Tensor& in, ReduceOp op) const {
  run(reduce_scatter_call(*this, out, in, op));
}
Pending Group::start_reduce_scatter(const Tensor& out, const Tensor& in, ReduceOp op) const {
  return start(reduce_scatter_call(*this, out, in, op));
}

void Group::broadcast(const Tensor& tensor, int root) const { run(broadcast_call(*this, tensor, root)); }
Pending Group::start_broadcast(const Tensor& tensor, int root) const {
  return start(broadcast_call(*this, tensor, root));
}

void Group::reduce(const Tensor& tensor, int root, ReduceOp op) const { run(reduce_call(*this, tensor, root, op)); }
Pending Group::start_reduce(const Tensor& tensor, int root, ReduceOp op) const {
  return start(reduce_call(*this, tensor, root, op));
}

void Group::all_to_all(const Tensor& out, const Tensor& in) const { run(all_to_all_call(*this, out, in)); }
Pending Group::start_all_to_all(const Tensor& out, const Tensor& in) const {
  return start(all_to_all_call(*this, out, in));
}

void Group::all_to_all(const Tensor& out, const Tensor& in, const std::vector<int64_t>& out_rows,
                       const std::vector<int64_t>& in_rows) const {
  run(all_to_all_call(*this, out, in, out_rows, in_rows));
}
Pending Group::start_all_to_all(const Tensor& out, const Tensor& in, const std::vector<int64_t>& out_rows,
                                const std::vector<int64_t>& in_rows) const {
  return start(all_to_all_call(*this, out, in, out_rows, in_rows));
}

void Group::send(const Tensor& tensor, int peer, int tag) const { run(send_call(*this, tensor, peer, tag)); }
Pending Group::start_send(const Tensor& tensor, int peer, int tag) const {
  return start(send_call(*this, tensor, peer, tag));
}

void Group::recv(const Tensor& tensor, int peer, int tag) const { run(recv_call(*this, tensor, peer, tag)); }
Pending Group::start_recv(const Tensor& tensor, int peer, int tag) const {
  return start(recv_call(*this, tensor, peer, tag));
}

void Group::barrier() const { run({.operation = Operation::barrier}); }
Pending Group::start_barrier() const { return start({.operation = Operation::barrier}); }

}  // namespace ninefold
