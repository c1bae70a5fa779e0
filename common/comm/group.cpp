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

Pending Group::start(Call call) const { return world().start(*this, std::move(call)); }

Pending Group::start_all_reduce(const Tensor& tensor, ReduceOp op) const {
  return start_all_reduce(tensor, tensor, op);
}

Pending Group::start_all_reduce(const Tensor& out, const Tensor& in, ReduceOp op) const {
  expect(in.dtype() == out.dtype() && in.size() == out.size(), "all_reduce: {} {} in, {} {} out", in.size(),
         name_of(in.dtype()), out.size(), name_of(out.dtype()));
  expect_reducible(in, op);
  return start({.operation = Operation::all_reduce, .in = in, .out = out, .op = op});
}

Volume Group::all_reduce_volume(int64_t elements, Dtype dtype) const {
  if (size() == 1) return {};
  const Tensor paper = Tensor::empty(make_meta_device(), {elements}, dtype);
  return state_->collectives->volume({.operation = Operation::all_reduce, .in = paper, .out = paper});
}

bool Group::sums_in_rank_order() const { return size() <= 2 || state_->collectives->sums_in_rank_order(); }

Pending Group::start_all_gather(const Tensor& out, const Tensor& in) const {
  expect_parts(*this, "all_gather", out, in);
  return start({.operation = Operation::all_gather, .in = in, .out = out});
}

Pending Group::start_reduce_scatter(const Tensor& out, const Tensor& in, ReduceOp op) const {
  expect_parts(*this, "reduce_scatter", in, out);
  expect_reducible(in, op);
  return start({.operation = Operation::reduce_scatter, .in = in, .out = out, .op = op});
}

Pending Group::start_broadcast(const Tensor& tensor, int root) const {
  expect_root(*this, root);
  return start({.operation = Operation::broadcast, .in = tensor, .out = tensor, .peer = root});
}

Pending Group::start_reduce(const Tensor& tensor, int root, ReduceOp op) const {
  expect_root(*this, root);
  expect_reducible(tensor, op);
  return start({.operation = Operation::reduce, .in = tensor, .out = tensor, .op = op, .peer = root});
}

Pending Group::start_all_to_all(const Tensor& out, const Tensor& in) const {
  expect(in.dtype() == out.dtype(), "all_to_all: {} and {} must have one type", name_of(in.dtype()),
         name_of(out.dtype()));
  expect(in.size() == out.size() && in.size() % size() == 0, "all_to_all: {} elements in, {} out, for {} equal parts",
         in.size(), out.size(), size());
  return start({.operation = Operation::all_to_all, .in = in, .out = out});
}

Pending Group::start_all_to_all(const Tensor& out, const Tensor& in, const std::vector<int64_t>& out_rows,
                                const std::vector<int64_t>& in_rows) const {
  expect(in.dtype() == out.dtype(), "all_to_all: {} and {} must have one type", name_of(in.dtype()),
         name_of(out.dtype()));
  return start({.operation = Operation::all_to_all,
                .in = in,
                .out = out,
                .in_counts = element_counts(*this, in, in_rows),
                .out_counts = element_counts(*this, out, out_rows)});
}

Pending Group::start_send(const Tensor& tensor, int peer, int tag) const {
  expect_peer(*this, peer, tag);
  return start({.operation = Operation::send, .in = tensor, .peer = peer, .tag = tag});
}

Pending Group::start_recv(const Tensor& tensor, int peer, int tag) const {
  expect_peer(*this, peer, tag);
  return start({.operation = Operation::recv, .out = tensor, .peer = peer, .tag = tag});
}

Pending Group::start_barrier() const { return start({.operation = Operation::barrier}); }

}  // namespace ninefold
