#include "common/train/peak.h"

#include <algorithm>

#include "common/tensor/ops.h"

namespace ninefold {
namespace {

double measure(const DeviceHandle& device, Dtype dtype, const MatmulShape& shape, Clock clock) {
  const Tensor a = Tensor::empty(device, {shape.m, shape.k}, dtype);
  const Tensor b = Tensor::empty(device, {shape.n, shape.k}, dtype);
  const Tensor out = Tensor::empty(device, {shape.m, shape.n}, dtype);
  ops::fill_(a, 1);
  ops::fill_(b, 1);
  ops::matmul_into(out, a, b, {.transpose_b = true});
  device->host_access().synchronize();
  // All calls together, and long enough that ranks which share a core all have their turn.
  constexpr double enough_seconds = 0.05;
  constexpr int fewest_calls = 5;
  const Stopwatch stopwatch(clock);
  int calls = 0;
  while (calls < fewest_calls || stopwatch.seconds() < enough_seconds) {
    ops::matmul_into(out, a, b, {.transpose_b = true});
    ++calls;
  }
  device->host_access().synchronize();
  return calls * 2.0 * static_cast<double>(shape.m * shape.n * shape.k) / stopwatch.seconds();
}

}  // namespace

double measure_matmul_peak(const DeviceHandle& device, Dtype dtype, std::vector<MatmulShape> shapes, Clock clock) {
  shapes.insert(shapes.end(), {{1024, 1024, 1024}, {2048, 2048, 2048}});
  if (device->type() == DeviceType::cuda) shapes.push_back({8192, 8192, 8192});  // what fills a GPU
  double best = 0;
  for (const MatmulShape& shape : shapes) best = std::max(best, measure(device, dtype, shape, clock));
  return best;
}

}  // namespace ninefold
