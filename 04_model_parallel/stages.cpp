#include "04_model_parallel/stages.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <limits>

#include "common/base/check.h"
#include "common/base/report.h"
#include "common/base/text.h"

namespace ninefold {
namespace {

Stage joined(const std::vector<Stage>& layers, size_t begin, size_t end) {
  Stage stage{.children = {layers[begin].children.begin, layers[end - 1].children.end}};
  for (size_t i = begin; i < end; ++i) {
    stage.layers += layers[i].layers;
    stage.flops += layers[i].flops;
  }
  return stage;
}

int64_t parse_count(std::string_view word, const std::string& list) {
  int64_t count = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), count);
  require(error == std::errc() && end == word.data() + word.size() && count > 0,
          "--layers-per-stage {}: '{}' is no number of layers; write one from 1 for each stage, like 2,3,3", list,
          word);
  return count;
}

std::string name_of(const Stage& stage, const std::vector<ChildOnPaper>& model) {
  const std::string& first = model[stage.children.begin].name;
  const std::string& last = model[stage.children.end - 1].name;
  return first == last ? first : fmt::format("{} … {}", first, last);
}

}  // namespace

std::vector<Stage> layers_of(const std::vector<ChildOnPaper>& model) {
  const auto is_block = [](const ChildOnPaper& child) { return child.name.starts_with("layers."); };
  const bool has_blocks = std::any_of(model.begin(), model.end(), is_block);
  std::vector<Stage> layers;
  bool has_layer = false;  // the last of `layers`; not while it holds only what comes before the first one
  for (size_t i = 0; i < model.size(); ++i) {
    const bool is_layer = has_blocks ? is_block(model[i]) : model[i].has_parameters;
    if (layers.empty() || (is_layer && has_layer)) layers.push_back({.children = {i, i}, .layers = 1});
    has_layer |= is_layer;
    layers.back().children.end = i + 1;
    layers.back().flops += model[i].flops;
  }
  return layers;
}

// best[s][n]: the smallest maximum, and then the smallest sum of squares, over cuts of the first n layers into s
// stages.
std::vector<Stage> cut_evenly(const std::vector<Stage>& layers, int stages) {
  const size_t count = layers.size(), parts = static_cast<size_t>(stages);
  require(parts <= count, "the model has {} layers, too few for {} stages; a stage needs at least one", count, stages);
  struct Cut {
    double largest = std::numeric_limits<double>::infinity(), squares = 0;
    size_t begin = 0;  // of its last stage
    bool operator<(const Cut& other) const {
      return largest != other.largest ? largest < other.largest : squares < other.squares;
    }
  };
  std::vector<std::vector<Cut>> best(parts + 1, std::vector<Cut>(count + 1));
  best[0][0].largest = 0;
  for (size_t stage = 1; stage <= parts; ++stage) {
    for (size_t end = stage; end <= count; ++end) {
      for (size_t begin = stage - 1; begin < end; ++begin) {
        const Cut& before = best[stage - 1][begin];
        const double flops = joined(layers, begin, end).flops;
        best[stage][end] =
            std::min(best[stage][end], Cut{std::max(before.largest, flops), before.squares + flops * flops, begin});
      }
    }
  }
  std::vector<Stage> cut;
  for (size_t stage = parts, end = count; stage > 0; end = best[stage--][end].begin) {
    cut.insert(cut.begin(), joined(layers, best[stage][end].begin, end));
  }
  return cut;
}

std::vector<Stage> cut_as(const std::vector<Stage>& layers, int stages, const std::string& layers_per_stage) {
  std::vector<Stage> cut;
  size_t begin = 0;
  for (const std::string_view word : split(layers_per_stage, ',')) {
    const int64_t count = parse_count(word, layers_per_stage);
    const size_t end = begin + static_cast<size_t>(count);
    require(end <= layers.size(), "--layers-per-stage {} counts more than the {} layers of the model", layers_per_stage,
            layers.size());
    cut.push_back(joined(layers, begin, end));
    begin = end;
  }
  require(begin == layers.size(), "--layers-per-stage {} counts {} layers, but the model has {}", layers_per_stage,
          begin, layers.size());
  require(static_cast<int>(cut.size()) == stages, "--layers-per-stage {} is for {} stages, but there are {}",
          layers_per_stage, cut.size(), stages);
  return cut;
}

std::vector<Stage> cut(const std::vector<Stage>& layers, int stages, const std::string& layers_per_stage) {
  return layers_per_stage.empty() ? cut_evenly(layers, stages) : cut_as(layers, stages, layers_per_stage);
}

double imbalance(const std::vector<Stage>& stages) {
  double largest = 0, sum = 0;
  for (const Stage& stage : stages) {
    largest = std::max(largest, stage.flops);
    sum += stage.flops;
  }
  return largest * static_cast<double>(stages.size()) / sum;
}

std::string description(const std::vector<Stage>& stages, const std::vector<ChildOnPaper>& model,
                        const std::vector<std::vector<int>>& ranks_of) {
  double sum = 0;
  for (const Stage& stage : stages) sum += stage.flops;
  Table table({"stage", "rank", "layers", "FLOPs", "from … to"});
  for (size_t i = 0; i < stages.size(); ++i) {
    table.add_row({fmt::format("{}", i), fmt::format("{}", fmt::join(ranks_of[i], " and ")),
                   fmt::format("{}", stages[i].layers), fmt::format("{:.1f} %", 100 * stages[i].flops / sum),
                   name_of(stages[i], model)});
  }
  return fmt::format("{}the largest stage has {:.3f} times the mean\n", table.text(), imbalance(stages));
}

}  // namespace ninefold
