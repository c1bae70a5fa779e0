#include "01_collectives/benchmark/exercise.h"

#include <algorithm>

#include "01_collectives/benchmark/blocking_mpi.h"
#include "common/comm/world.h"
#include "common/tensor/ops.h"

namespace ninefold::collectives {
namespace {

constexpr int root = 0;

bool is_made_of_parts(Operation operation) {
  return operation == Operation::all_gather || operation == Operation::reduce_scatter ||
         operation == Operation::all_to_all;
}

// Through the host's memory, where no device needs to be known.
template <typename Value>
void write(const Tensor& tensor, const Value& value) {
  const auto fill = [&]<typename T>(T) {
    std::vector<T> values(static_cast<size_t>(tensor.size()));
    for (int64_t i = 0; i < tensor.size(); ++i) values[static_cast<size_t>(i)] = T(value(i));
    tensor.copy_from_host(values.data());
  };
  if (tensor.dtype() == Dtype::f32) fill(0.0f);
  if (tensor.dtype() == Dtype::bf16) fill(bf16());
  if (tensor.dtype() == Dtype::f16) fill(f16());
  if (tensor.dtype() == Dtype::i32) fill(0);
}

// Elements that `is_wrong`.
template <typename Test>
int64_t count_if(const Tensor& tensor, const Test& is_wrong) {
  const auto count = [&](const auto& values) {
    int64_t found = 0;
    for (int64_t i = 0; i < tensor.size(); ++i)
      found += is_wrong(i, static_cast<float>(values[static_cast<size_t>(i)]));
    return found;
  };
  if (tensor.dtype() == Dtype::f32) return count(tensor.to_vector<float>());
  if (tensor.dtype() == Dtype::bf16) return count(tensor.to_vector<bf16>());
  if (tensor.dtype() == Dtype::f16) return count(tensor.to_vector<f16>());
  return count(tensor.to_vector<int32_t>());
}

float combined(ReduceOp op, float a, float b) {
  switch (op) {
    case ReduceOp::min:
      return std::min(a, b);
    case ReduceOp::max:
      return std::max(a, b);
    case ReduceOp::product:
      return a * b;
    default:
      return a + b;
  }
}

}  // namespace

bool Exercise::exists(Operation operation, bool in_place) {
  if (operation == Operation::broadcast || operation == Operation::reduce) return in_place;
  return operation != Operation::all_to_all || !in_place;
}

Exercise::Exercise(const Group& group, Operation operation, ReduceOp op, Dtype dtype, int64_t bytes, bool in_place)
    : group_(group), operation_(operation), op_(op) {
  const int64_t parts = is_made_of_parts(operation) ? group.size() : 1;
  const int64_t part_bytes = parts * size_of(dtype);
  count_ = (bytes + part_bytes - 1) / part_bytes;
  const int64_t whole = count_ * parts;
  bytes_ = whole * size_of(dtype);

  const DeviceHandle& device = group.world().device();
  const auto tensor = [&](int64_t size) { return Tensor::empty(device, {size}, dtype); };
  const Tensor large = tensor(whole);
  const Tensor own_part = large.slice(is_made_of_parts(operation) ? group.rank() * count_ : 0, {count_});
  const bool gathers = operation == Operation::all_gather, scatters = operation == Operation::reduce_scatter;
  in_ = !gathers ? large : in_place ? own_part : tensor(count_);
  out_ = gathers ? large : scatters ? (in_place ? own_part : tensor(count_)) : in_place ? large : tensor(whole);
  if (device->type() != DeviceType::cpu) return;  // MPI sees the host's memory only
  mpi_ = blocking_mpi(group_, {.operation = operation_, .in = in_, .out = out_, .op = op_, .peer = root});
}

float Exercise::contributed(int rank, int64_t i) const {
  // Small powers of two for products, small integers else: sums of 32 ranks still fit bf16's eight bits.
  if (op_ == ReduceOp::product) return (i + rank) % 3 == 0 ? -1.0f : (i + rank) % 7 == 0 ? 2.0f : 1.0f;
  return static_cast<float>((i * 7 + rank * 3) % 17 - 8);
}

float Exercise::expected(int64_t i) const {
  if (operation_ == Operation::broadcast) return contributed(root, i);
  if (operation_ == Operation::all_gather) return contributed(static_cast<int>(i / count_), i % count_);
  if (operation_ == Operation::all_to_all) {
    return contributed(static_cast<int>(i / count_), group_.rank() * count_ + i % count_);
  }
  if (operation_ == Operation::reduce && group_.rank() != root) return contributed(group_.rank(), i);
  const int64_t first = operation_ == Operation::reduce_scatter ? group_.rank() * count_ : 0;
  float result = contributed(0, first + i);
  for (int rank = 1; rank < group_.size(); ++rank) result = combined(op_, result, contributed(rank, first + i));
  return op_ == ReduceOp::avg ? result * (1.0f / static_cast<float>(group_.size())) : result;
}

void Exercise::fill() const {
  write(out_, [](int64_t) { return 99.0f; });
  write(in_, [this](int64_t i) { return contributed(group_.rank(), i); });
}

void Exercise::run_on(const Group& group) const {
  switch (operation_) {
    case Operation::all_reduce:
      return group.all_reduce(out_, in_, op_);
    case Operation::all_gather:
      return group.all_gather(out_, in_);
    case Operation::reduce_scatter:
      return group.reduce_scatter(out_, in_, op_);
    case Operation::broadcast:
      return group.broadcast(out_, root);
    case Operation::reduce:
      return group.reduce(out_, root, op_);
    default:
      return group.all_to_all(out_, in_);
  }
}

int64_t Exercise::wrong() const {
  return count_if(out_, [this](int64_t i, float found) {
    float right = expected(i);
    if (out_.dtype() == Dtype::bf16) right = static_cast<float>(bf16(right));
    if (out_.dtype() == Dtype::f16) right = static_cast<float>(f16(right));
    return found != right;
  });
}

double bus_factor(Operation operation, int ranks) {
  if (operation == Operation::broadcast || operation == Operation::reduce) return 1;
  const double share = static_cast<double>(ranks - 1) / ranks;
  return operation == Operation::all_reduce ? 2 * share : share;
}

}  // namespace ninefold::collectives
