#include "05_tensor_parallel/resolve.h"

#include <algorithm>

#include "05_tensor_parallel/flow.h"
#include "common/nn/embedding.h"
#include "common/nn/f8_linears.h"
#include "common/nn/linear.h"
#include "common/nn/norm.h"
#include "common/nn/replace.h"

namespace ninefold {
namespace {

using Type = PlannedLayer::Type;
using Kind = Style::Kind;

PlannedLayer describe(const std::string& path, Layer& layer) {
  if (const auto* linear = dynamic_cast<Linear*>(&layer)) return {path, Type::linear, linear->weight.shape, {}};
  if (const auto* table = dynamic_cast<Embedding*>(&layer)) return {path, Type::embedding, table->weight.shape, {}};
  if (const auto* norm = dynamic_cast<RmsNorm*>(&layer)) return {path, Type::norm, norm->weight.shape, {}};
  return {path, Type::other, {}, {}};
}

std::string with_shape(const PlannedLayer& layer) {
  return layer.weight.empty() ? layer.path : fmt::format("{} {}", layer.path, to_string(layer.weight));
}

// The pattern up to the first name that nothing matches, and the children that are there instead.
std::string nearest_children(const std::vector<PlannedLayer>& layers, const std::string& pattern) {
  std::string parent = pattern;
  std::string children;
  while (children.empty()) {
    const size_t dot = parent.rfind('.');
    parent = dot == std::string::npos ? "" : parent.substr(0, dot);
    for (const PlannedLayer& layer : layers) {
      if (!matches(parent.empty() ? "*" : parent + ".*", layer.path)) continue;
      children += (children.empty() ? "" : ", ") + with_shape(layer);
    }
    if (parent.empty()) break;
  }
  return fmt::format("the children of {} are {}", parent.empty() ? "the model" : parent, children);
}

bool can_take(Type type, Kind kind) {
  switch (kind) {
    case Kind::column_parallel:
      return type == Type::linear;
    case Kind::row_parallel:
      return type == Type::linear || type == Type::embedding;
    case Kind::sequence_parallel:
      return type == Type::norm;
    case Kind::prepare_input:
    case Kind::prepare_input_output:
      return true;
  }
  return false;
}

std::string_view takers_of(Kind kind) {
  return kind == Kind::column_parallel ? "linear layers"
         : kind == Kind::row_parallel  ? "linear layers and embeddings"
                                       : "norms";
}

// Whether the style's layouts are ones that its layer can be given and can give.
bool has_layouts(Type type, const Style& style) {
  const Layout rows = Layout::rows, columns = Layout::columns;
  switch (style.kind) {
    case Kind::column_parallel:
      return style.input != columns && style.output != rows;
    case Kind::row_parallel:
      return style.input != rows && style.output != columns && (type == Type::linear || style.input != columns);
    case Kind::sequence_parallel:
      return style.input == rows && style.output == rows;
    case Kind::prepare_input:
      return style.input != columns && style.output == Layout::replicate;
    case Kind::prepare_input_output:
      return style.input != columns && style.output == style.input;
  }
  return false;
}

void give_style(PlannedLayer& layer, const Style& style) {
  require(!layer.style || *layer.style == style, "{} has two styles in the plan, {} and {}; leave one", layer.path,
          name_of(layer.style ? layer.style->kind : style.kind), name_of(style.kind));
  require(can_take(layer.type, style.kind), "{} cannot be {}: that is for {}", layer.path, name_of(style.kind),
          takers_of(style.kind));
  require(has_layouts(layer.type, style), "{} cannot be {} from {} to {}", layer.path, name_of(style.kind),
          name_of(style.input), name_of(style.output));
  layer.style = style;
}

// What must not be padded: features that the next layer takes as they are cut.
void check_division(const PlannedLayer& layer, int ranks, const std::string& group, bool is_last) {
  if (!layer.style) return;
  const Style& style = *layer.style;
  if (style.kind == Kind::column_parallel && style.parts > 0) {
    require(style.parts % ranks == 0 || ranks % style.parts == 0,
            "the {} heads of {} must be divisible by {} ({}), or divide it", style.parts, layer.path, group, ranks);
  } else if (style.kind == Kind::column_parallel && style.output == Layout::columns && !is_last) {
    require(layer.weight[0] % ranks == 0, "the {} output features of {} must be divisible by {} ({})", layer.weight[0],
            layer.path, group, ranks);
  } else if (style.kind == Kind::row_parallel && layer.type == Type::linear) {
    require(layer.weight[1] % ranks == 0, "the {} input features of {} must be divisible by {} ({})", layer.weight[1],
            layer.path, group, ranks);
  }
}

// The layers below one that prepares its input share it, as it is or in 8 bits.
void find_preparers(std::vector<PlannedLayer>& layers) {
  PlannedLayer *preparer = nullptr, *first = nullptr;
  for (PlannedLayer& layer : layers) {
    if (layer.style && layer.style->kind == Kind::prepare_input) {
      preparer = &layer;
      first = nullptr;
    } else if (preparer && layer.path.starts_with(preparer->path + ".") && layer.style &&
               layer.style->kind == Kind::column_parallel) {
      layer.prepared_by = preparer->path;
      if (!first) first = &layer;
      require(layer.in_f8 == first->in_f8, "{} multiplies in f8 and {} does not, but they share one input: take both",
              (first->in_f8 ? first : &layer)->path, (first->in_f8 ? &layer : first)->path);
      preparer->in_f8 = layer.in_f8;
    }
  }
}

void mark_f8(std::vector<PlannedLayer>& layers, const std::string& pattern) {
  for (PlannedLayer& layer : layers) {
    layer.in_f8 = !pattern.empty() && layer.type == Type::linear && is_at_or_below(pattern, layer.path);
  }
}

// What the style means on so many ranks.
void settle(PlannedLayer& layer, int64_t ranks) {
  if (!layer.style) return;
  const Style& style = *layer.style;
  if (style.kind == Kind::prepare_input) layer.input = whole_input_conjugate(style.input);
  if (style.kind == Kind::prepare_input_output && style.input == Layout::rows) {
    layer.input = Conjugate::whole_rows;
    layer.output = Conjugate::own_rows;
  }
  if (style.kind == Kind::column_parallel) {
    const int64_t count = style.parts > 0 ? std::min(style.parts, ranks) : ranks;
    layer.cut = {.dim = 0, .count = count, .copies = ranks / count};
    if (layer.prepared_by.empty()) layer.input = whole_input_conjugate(style.input);
    layer.output = columns_conjugate(style.output);
  }
  if (style.kind == Kind::row_parallel) {
    const bool is_linear = layer.type == Type::linear;
    layer.cut = {.dim = is_linear ? 1 : 0, .count = ranks, .copies = 1};
    if (is_linear) layer.input = columns_input_conjugate(style.input);
    layer.output = partial_sum_conjugate(style.output);
  }
}

}  // namespace

ResolvedPlan resolve(Model& model, const Plan& plan, int ranks, const std::string& group) {
  ResolvedPlan resolved;
  std::vector<PlannedLayer>& layers = resolved.layers;
  for_each_layer(model, [&](const std::string& path, Layer& layer) { layers.push_back(describe(path, layer)); });
  for (const auto& [pattern, style] : plan.entries) {
    bool found = false;
    for (PlannedLayer& layer : layers) {
      if (!matches(pattern, layer.path)) continue;
      give_style(layer, style);
      found = true;
    }
    if (found) continue;
    const std::string sentence =
        fmt::format("the plan's key {} matches no layer; {}", pattern, nearest_children(layers, pattern));
    require(!plan.strict, "{}", sentence);
    resolved.warnings.push_back(sentence + "; skipping this plan entry");
  }
  for (const PlannedLayer& layer : layers) check_division(layer, ranks, group, &layer == &layers.back());
  check_flow(layers, plan.loss_parallel);
  mark_f8(layers, plan.f8_linears);
  find_preparers(layers);
  if (ranks == 1) return resolved;
  for (PlannedLayer& layer : layers) settle(layer, ranks);
  return resolved;
}

}  // namespace ninefold
