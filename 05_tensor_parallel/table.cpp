#include "05_tensor_parallel/table.h"

#include <algorithm>
#include <cctype>

#include "common/base/report.h"
#include "common/base/text.h"

namespace ninefold {
namespace {

using Kind = Style::Kind;
using Row = std::vector<std::string>;

std::string without_numbers(const std::string& path) {
  std::string pattern;
  for (const std::string_view name : split(path, '.')) {
    const bool is_number = std::all_of(name.begin(), name.end(), [](unsigned char c) { return std::isdigit(c); });
    pattern += fmt::format("{}{}", pattern.empty() ? "" : ".", is_number ? "*" : name);
  }
  return pattern;
}

std::string local_shape(const PlannedLayer& layer) {
  if (!layer.cut) return to_string(layer.weight);
  const auto& [dim, count, copies] = *layer.cut;
  const int64_t whole = layer.weight[dim], width = (whole + count - 1) / count;
  Shape local = layer.weight;
  local[dim] = width;
  const std::string shape = to_string(local);
  if (copies > 1) return fmt::format("{} on {} ranks each", shape, copies);
  return whole == count * width ? shape : fmt::format("{}, {} padded to {}", shape, whole, count * width);
}

std::string joined(const std::vector<std::string_view>& operations) {
  std::string text;
  for (const std::string_view operation : operations) {
    if (!operation.empty()) text += fmt::format("{}{}", text.empty() ? "" : ", ", operation);
  }
  return text.empty() ? "-" : text;
}

// Rows that are gathered to be multiplied in 8 bits travel so.
std::string_view gathered(const PlannedLayer& layer, std::string_view operation) {
  return layer.in_f8 && operation == "all_gather" ? "all_gather in f8" : operation;
}

std::string forward_of(const PlannedLayer& layer) {
  return joined({gathered(layer, operations_of(layer.input).forward), operations_of(layer.output).forward});
}

std::string style_of(const PlannedLayer& layer) {
  if (!layer.style) return layer.in_f8 ? "f8" : "-";
  return fmt::format("{}{}", name_of(layer.style->kind), layer.in_f8 ? ", f8" : "");
}

// Column-parallel layers keep their input as it came, and gather it again.
std::string backward_of(const PlannedLayer& layer) {
  const auto input = operations_of(layer.input);
  const bool again = layer.input == Conjugate::gather_rows;
  std::string text = joined({gathered(layer, operations_of(layer.output).backward),
                             again ? gathered(layer, input.forward) : "", input.backward});
  const bool sums_gradient =
      (layer.style && layer.style->kind == Kind::sequence_parallel) || (layer.cut && layer.cut->copies > 1);
  return sums_gradient ? (text == "-" ? "" : text + ", ") + "all_reduce of its gradient, once a step" : text;
}

}  // namespace

std::string plan_table(const std::vector<PlannedLayer>& layers, bool loss_parallel, int ranks) {
  std::vector<Row> rows;
  for (const PlannedLayer& layer : layers) {
    if (!layer.style && layer.weight.empty()) continue;
    const bool has_weight = !layer.weight.empty();
    const Row row = {without_numbers(layer.path),
                     style_of(layer),
                     has_weight ? to_string(layer.weight) : "-",
                     has_weight ? local_shape(layer) : "-",
                     ranks > 1 ? forward_of(layer) : "-",
                     ranks > 1 ? backward_of(layer) : "-"};
    if (std::find(rows.begin(), rows.end(), row) == rows.end()) rows.push_back(row);
  }
  if (loss_parallel) rows.push_back({"loss", "loss_parallel", "-", "-", ranks > 1 ? "3 x all_reduce" : "-", "-"});
  Table table({"layer", "style", "weight", "on a rank", "forward", "backward"});
  for (const Row& row : rows) table.add_row(row);
  return table.text();
}

}  // namespace ninefold
