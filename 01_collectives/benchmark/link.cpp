#include "01_collectives/benchmark/link.h"

#include <algorithm>
#include <cmath>

#include "common/base/stopwatch.h"
#include "common/comm/world.h"

namespace ninefold::collectives {
namespace {

// seconds = latency + per_byte * bytes
struct Line {
  double latency = 0, per_byte = 0;
  double at(int64_t bytes) const { return latency + per_byte * static_cast<double>(bytes); }
};

// The least sum of weighted squares; a latency is not negative.
Line least_squares(const std::vector<MessageTime>& times, const std::vector<double>& weights) {
  double w = 0, x = 0, y = 0, xx = 0, xy = 0;
  for (size_t i = 0; i < times.size(); ++i) {
    const double bytes = static_cast<double>(times[i].bytes);
    w += weights[i];
    x += weights[i] * bytes;
    y += weights[i] * times[i].seconds;
    xx += weights[i] * bytes * bytes;
    xy += weights[i] * bytes * times[i].seconds;
  }
  const double per_byte = (w * xy - x * y) / (w * xx - x * x);
  const double latency = (y - per_byte * x) / w;
  return latency >= 0 ? Line{latency, per_byte} : Line{0, xy / xx};
}

double half_round_trip(const Group& group, const Tensor& tensor, int trips) {
  const Stopwatch stopwatch;
  for (int trip = 0; trip < trips; ++trip) {
    if (group.rank() == 0) group.send(tensor, 1);
    group.rank() == 0 ? group.recv(tensor, 1) : group.recv(tensor, 0);
    if (group.rank() == 1) group.send(tensor, 0);
  }
  return stopwatch.seconds() / (2 * trips);
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

}  // namespace

Link fit_link(const std::vector<MessageTime>& times) {
  expect(times.size() >= 2, "a line needs two points");
  // Squares over their root are sizes: each round weighs by what the errors of the last one were.
  constexpr int rounds = 200;
  constexpr double exact = 1e-9;  // relative error that counts as none
  std::vector<double> weights;
  for (const MessageTime& time : times) weights.push_back(1 / (time.seconds * time.seconds));
  Line line;
  for (int round = 0; round < rounds; ++round) {
    line = least_squares(times, weights);
    for (size_t i = 0; i < times.size(); ++i) {
      const double error = std::abs(times[i].seconds - line.at(times[i].bytes));
      weights[i] = 1 / (times[i].seconds * std::max(error, exact * times[i].seconds));
    }
  }
  require(line.per_byte > 0, "--fit: messages of {} bytes take no longer than those of {}; give a larger -e",
          times.back().bytes, times.front().bytes);
  return {.bandwidth = 1 / line.per_byte, .latency = line.latency};
}

std::vector<MessageTime> measure_messages(const Group& group, const std::vector<int64_t>& sizes, int rounds) {
  std::vector<MessageTime> times;
  for (const int64_t bytes : sizes) {
    const Tensor tensor = Tensor::zeros(group.world().device(), {(bytes + 3) / 4}, Dtype::f32);
    const int trips = static_cast<int>(std::clamp<int64_t>((int64_t{1} << 22) / bytes, 1, 100));
    half_round_trip(group, tensor, trips);  // warms up
    std::vector<double> seconds;
    for (int round = 0; round < rounds; ++round) seconds.push_back(half_round_trip(group, tensor, trips));
    times.push_back({tensor.bytes(), median(seconds)});
  }
  return times;
}

std::string description_of(const std::string& dimension, const Link& link) {
  return fmt::format("{}={:.4g}GB/s,{:.4g}us", dimension, link.bandwidth * 1e-9, link.latency * 1e6);
}

}  // namespace ninefold::collectives
