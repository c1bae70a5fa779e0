#include "05_tensor_parallel/conjugates.h"

#include <algorithm>

namespace ninefold {

ConjugateOperations operations_of(Conjugate conjugate) {
  switch (conjugate) {
    case Conjugate::none:
      break;
    case Conjugate::copy:
      return {"", "all_reduce"};
    case Conjugate::reduce:
      return {"all_reduce", ""};
    case Conjugate::gather_rows:
      return {"all_gather", "reduce_scatter"};
    case Conjugate::scatter_rows:
      return {"reduce_scatter", "all_gather"};
    case Conjugate::gather_columns:
    case Conjugate::whole_rows:
      return {"all_gather", ""};
    case Conjugate::scatter_columns:
    case Conjugate::own_rows:
      return {"", "all_gather"};
  }
  return {"", ""};
}

Conjugate whole_input_conjugate(Layout from) {
  expect(from != Layout::columns, "a layer that takes all features does not gather columns");
  return from == Layout::rows ? Conjugate::gather_rows : Conjugate::copy;
}

Conjugate columns_input_conjugate(Layout from) {
  expect(from != Layout::rows, "rows cannot become columns without all of the matrix on every rank");
  return from == Layout::columns ? Conjugate::none : Conjugate::scatter_columns;
}

Conjugate columns_conjugate(Layout to) {
  expect(to != Layout::rows, "columns cannot become rows without all of the matrix on every rank");
  return to == Layout::columns ? Conjugate::none : Conjugate::gather_columns;
}

Conjugate partial_sum_conjugate(Layout to) {
  expect(to != Layout::columns, "partial sums are summed whole or by rows");
  return to == Layout::rows ? Conjugate::scatter_rows : Conjugate::reduce;
}

Tensor LayerEnd::forward(const Tensor& x) const {
  switch (conjugate_) {
    case Conjugate::reduce:
      group_.all_reduce(x);
      return x;
    case Conjugate::gather_rows:
    case Conjugate::whole_rows:
      return all_gather_rows(group_, x);
    case Conjugate::scatter_rows:
      return reduce_scatter_rows(group_, x);
    case Conjugate::own_rows:
      return own_rows(group_, x);
    case Conjugate::gather_columns:
      return all_gather_columns(group_, x, features_);
    case Conjugate::scatter_columns:
      return own_columns(group_, x);
    case Conjugate::none:
    case Conjugate::copy:
      break;
  }
  return x;
}

Pending LayerEnd::start_forward(const Tensor& x, Tensor& y) const {
  if (conjugate_ != Conjugate::gather_rows) {
    y = forward(x);
    return {};
  }
  y = Tensor::empty(x.device(), {x.dim(0) * group_.size(), x.dim(1)}, x.dtype());
  return group_.start_all_gather(y, x);
}

Tensor LayerEnd::backward(const Tensor& dy) const {
  switch (conjugate_) {
    case Conjugate::copy:
      group_.all_reduce(dy);
      return dy;
    case Conjugate::gather_rows:
      return reduce_scatter_rows(group_, dy);
    case Conjugate::scatter_rows:
    case Conjugate::own_rows:
      return all_gather_rows(group_, dy);
    case Conjugate::whole_rows:
      return own_rows(group_, dy);
    case Conjugate::gather_columns:
      return own_columns(group_, dy);
    case Conjugate::scatter_columns:
      return all_gather_columns(group_, dy, features_);
    case Conjugate::none:
    case Conjugate::reduce:
      break;
  }
  return dy;
}

Tensor all_gather_rows(const Group& group, const Tensor& x) {
  const Tensor whole = Tensor::empty(x.device(), {x.dim(0) * group.size(), x.dim(1)}, x.dtype());
  group.all_gather(whole, x);
  return whole;
}

Tensor reduce_scatter_rows(const Group& group, const Tensor& x) {
  expect(x.dim(0) % group.size() == 0, "{} rows do not divide by {} ranks", x.dim(0), group.size());
  const Tensor part = Tensor::empty(x.device(), {x.dim(0) / group.size(), x.dim(1)}, x.dtype());
  group.reduce_scatter(part, x);
  return part;
}

Tensor own_rows(const Group& group, const Tensor& x) {
  expect(x.dim(0) % group.size() == 0, "{} rows do not divide by {} ranks", x.dim(0), group.size());
  const int64_t rows = x.dim(0) / group.size();
  Tensor own = Tensor::empty(x.device(), {rows, x.dim(1)}, x.dtype());
  ops::copy_(own, x.rows(group.rank() * rows, (group.rank() + 1) * rows));
  return own;
}

Tensor all_gather_columns(const Group& group, const Tensor& x, int64_t features) {
  const int64_t rows = x.dim(0), width = x.dim(1);
  const Tensor stacked = all_gather_rows(group, x);
  Tensor whole = Tensor::empty(x.device(), {rows, features}, x.dtype());
  for (int64_t rank = 0; rank < group.size(); ++rank) {
    const int64_t begin = std::min(rank * width, features);
    ops::copy_columns_(whole, begin, stacked.rows(rank * rows, (rank + 1) * rows), 0,
                       std::min(width, features - begin));
  }
  return whole;
}

OwnColumns own_columns(const Group& group, int64_t features) {
  const int64_t width = (features + group.size() - 1) / group.size();
  const int64_t first = std::min(group.rank() * width, features);
  return {.first = first, .count = std::min(width, features - first), .width = width};
}

Tensor own_columns(const Group& group, const Tensor& x) {
  const auto [begin, count, width] = own_columns(group, x.dim(1));
  Tensor own = Tensor::empty(x.device(), {x.dim(0), width}, x.dtype());
  if (count < width) ops::fill_(own, 0);
  ops::copy_columns_(own, 0, x, begin, count);
  return own;
}

}  // namespace ninefold
