#include "common/train/routing.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "common/base/report.h"
#include "common/comm/control.h"
#include "common/nn/replace.h"

namespace ninefold {
namespace {

// Of each layer: the number of experts, loads, dropped tokens, the two losses.
std::vector<double> packed(const RoutingRecord& record) {
  std::vector<double> values;
  for (const RoutingRecord::Layer& layer : record.layers) {
    values.push_back(static_cast<double>(layer.load.size()));
    values.insert(values.end(), layer.load.begin(), layer.load.end());
    std::vector<int64_t> dropped = layer.dropped;
    dropped.resize(layer.load.size(), 0);
    values.insert(values.end(), dropped.begin(), dropped.end());
    values.insert(values.end(), {layer.balance_loss, layer.z_loss});
  }
  return values;
}

void add_packed(RoutingRecord& sum, const std::vector<double>& values) {
  auto value = values.begin();
  const auto add_counts = [&](std::vector<int64_t>& counts, size_t experts) {
    counts.resize(std::max(counts.size(), experts), 0);
    for (size_t e = 0; e < experts; ++e) counts[e] += static_cast<int64_t>(*value++);
  };
  for (int64_t l = 0; value != values.end(); ++l) {
    RoutingRecord::Layer& layer = sum.at(l);
    const auto experts = static_cast<size_t>(*value++);
    add_counts(layer.load, experts);
    add_counts(layer.dropped, experts);
    layer.balance_loss += *value++;
    layer.z_loss += *value++;
  }
}

}  // namespace

bool has_routers(Model& model) {
  bool found = false;
  for_each_router(model, [&](const std::string&, std::unique_ptr<Router>&) { found = true; });
  return found;
}

RoutingRecord summed(const Group& group, const RoutingRecord& record) {
  RoutingRecord sum;
  for (const std::string& bytes : control::all_gather_bytes(group, control::to_bytes(packed(record)))) {
    add_packed(sum, control::from_bytes<double>(bytes));
  }
  return sum;
}

RoutingRecord gathered_choices(const Group& group, const RoutingRecord& record) {
  std::vector<int32_t> own;  // of each: layer, sample, how many, experts, places
  for (const auto& [key, choices] : record.choices) {
    own.insert(own.end(), {static_cast<int32_t>(key.first), static_cast<int32_t>(key.second),
                           static_cast<int32_t>(choices.chosen.size())});
    own.insert(own.end(), choices.chosen.begin(), choices.chosen.end());
    own.insert(own.end(), choices.places.begin(), choices.places.end());
  }
  RoutingRecord all;
  for (const std::string& bytes : control::gather_bytes(group, control::to_bytes(own))) {
    const auto values = control::from_bytes<int32_t>(bytes);
    for (auto value = values.begin(); value != values.end();) {
      const auto chosen = value + 3, places = chosen + value[2], end = places + value[2];
      all.choices[{value[0], value[1]}] = {{chosen, places}, {places, end}};
      value = end;
    }
  }
  return all;
}

void update_router_biases(Model& model, const RoutingRecord& loads) {
  for_each_router(model, [&](const std::string&, std::unique_ptr<Router>& router) { router->update_bias(loads); });
}

std::vector<float> buffer_values(Model& model) {
  std::vector<float> values;
  for_each_buffer(model, [&](const std::string&, Buffer& buffer) {
    const std::vector<float> own = buffer.value.to_vector<float>();
    values.insert(values.end(), own.begin(), own.end());
  });
  return values;
}

void set_buffer_values(Model& model, const std::vector<float>& values) {
  auto value = values.begin();
  for_each_buffer(model, [&](const std::string&, Buffer& buffer) {
    const int64_t size = buffer.value.size();
    expect(values.end() - value >= size, "{} values do not fill the buffer {}", values.size(), buffer.name);
    ops::copy_(buffer.value,
               Tensor::from(buffer.value.device(), buffer.shape, std::vector<float>(value, value + size)));
    value += size;
  });
}

int64_t activation_bytes(const Task& task, const TrainOptions& options, const RoutingRecord& routing) {
  int64_t most = 0;
  for (const auto& [first_sample, rows] : routing.rows) {
    const int64_t bytes = task.activation_bytes(options.micro_batch, options.precision(), options.recomputation, rows);
    most = std::max(most, bytes);
  }
  return most;
}

double largest_fair_gap(Dtype compute) { return compute == Dtype::f32 ? 1e-5 : 2e-2; }

std::string differences_text(int64_t step, const std::vector<RoutingRecord::Difference>& differences) {
  std::string text;
  for (const auto& [layer, sample, position, gap] : differences) {
    text += fmt::format("step {}: sample {}, position {} is routed otherwise in layer {}: a score gap of {:.1e}\n",
                        step, sample, position, layer, gap);
  }
  return text;
}

std::string routing_heading() { return fmt::format(" {:>9} {:>9} {:>9}", "imbalance", "dropped %", "balance"); }

std::string routing_columns(const RoutingRecord& routing) {
  return fmt::format(" {:>9.3f} {:>9.2f} {:>9.4f}", routing.imbalance(), 100 * routing.dropped_share(),
                     routing.balance_loss());
}

std::string load_table(const RoutingRecord& routing) {
  std::vector<std::string> heading = {"tokens of"};
  const size_t experts = routing.layers.empty() ? 0 : routing.layers.front().load.size();
  for (size_t e = 0; e < experts; ++e) heading.push_back(fmt::format("expert {}", e));
  heading.insert(heading.end(), {"max/mean", "dropped"});
  Table table(heading);
  for (size_t l = 0; l < routing.layers.size(); ++l) {
    const RoutingRecord::Layer& layer = routing.layers[l];
    std::vector<std::string> row = {fmt::format("layer {}", l)};
    int64_t dropped = 0;
    for (const int64_t load : layer.load) row.push_back(fmt::format("{}", load));
    for (const int64_t of_expert : layer.dropped) dropped += of_expert;
    row.insert(row.end(), {fmt::format("{:.3f}", imbalance_of(layer.load)), fmt::format("{}", dropped)});
    table.add_row(row);
  }
  return table.text();
}

nlohmann::ordered_json routing_json(const RoutingRecord& routing) {
  nlohmann::ordered_json json = {{"imbalance", routing.imbalance()},
                                 {"dropped_share", routing.dropped_share()},
                                 {"balance_loss", routing.balance_loss()},
                                 {"z_loss", routing.z_loss()}};
  for (const RoutingRecord::Layer& layer : routing.layers) {
    json["load"].push_back(layer.load);
    json["dropped"].push_back(layer.dropped);
  }
  return json;
}

}  // namespace ninefold
