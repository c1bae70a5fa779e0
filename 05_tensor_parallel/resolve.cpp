#include "05_tensor_parallel/resolve.h"

#include <algorithm>

#include "common/nn/embedding.h"
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
    case Kind::column_parallel: return type == Type::linear;
    case Kind::row_parallel: return type == Type::linear || type == Type::embedding;
    case Kind::sequence_parallel: return type == Type::norm;
    case Kind::prepare_input: return true;
  }
  return false;
}

std::string_view takers_of(Kind kind) {
  return kind == Kind::column_parallel ? "linear layers" : kind == Kind::row_parallel ? "linear layers and embeddings"
                                                                                      : "norms";
}

void give_style(PlannedLayer& layer, const Style& style) {
  require(!layer.style || *layer.style == style, "{} has two styles in the plan, {} and {}; leave one", layer.path,
          name_of(layer.style ? layer.style->kind : style.kind), name_of(style.kind));
  require(can_take(layer.type, style.kind), "{} cannot be {}: that is for {}", layer.path, name_of(style.kind),
          takers_of(style.kind));
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

// Follows activations through the layers: the stream from block to block, and the columns inside a block.
class Flow {
 public:
  void pass(const PlannedLayer& layer) {
    if (layer.style && layer.style->kind == Kind::prepare_input) return prepare(layer);
    if (!prepared_.empty() && !layer.path.starts_with(prepared_ + ".")) leave_prepared(layer);
    if (layer.type == Type::norm) norm(layer);
    if (layer.type == Type::linear || layer.type == Type::embedding) weight(layer);
  }

  void finish(bool loss_parallel) const {
    require(columns_from_.empty() || loss_parallel,
            "{} gives Shard(1), columns of the scores, but the loss takes all of them: make the loss parallel or its "
            "output Replicate",
            columns_from_);
    require(!columns_from_.empty() || !loss_parallel, "the loss is parallel, but {} gives {}, not Shard(1)",
            stream_from_, name_of(stream_));
    require(loss_parallel || stream_ == Layout::replicate, "{} gives {}, but the loss takes Replicate", stream_from_,
            name_of(stream_));
  }

 private:
  void prepare(const PlannedLayer& layer) {
    leave_prepared(layer);
    takes(layer.path, layer.style->input);
    prepared_ = layer.path;
  }

  // Nothing is left inside the block before, which `next` follows.
  void leave_prepared(const PlannedLayer& next) {
    require(columns_from_.empty(), "{} gives Shard(1), but {} takes {}", columns_from_, next.path, name_of(stream_));
    prepared_.clear();
    whole_from_.clear();
  }

  void takes(const std::string& path, Layout input) const {
    require(columns_from_.empty(), "{} gives Shard(1), but {} takes {}", columns_from_, path, name_of(input));
    require(input == stream_, "{} gives {}, but {} takes {}", stream_from_, name_of(stream_), path, name_of(input));
  }

  void norm(const PlannedLayer& layer) const {
    require(columns_from_.empty(), "{} gives Shard(1), but {} takes whole features", columns_from_, layer.path);
    takes(layer.path, layer.style ? Layout::rows : Layout::replicate);
  }

  void weight(const PlannedLayer& layer) {
    const Style style = layer.style.value_or(Style{.kind = Kind::column_parallel, .output = Layout::replicate});
    if (layer.type == Type::linear && style.input == Layout::columns) {
      take_columns(layer);
    } else if (!prepared_.empty()) {
      require(layer.style && style.input == Layout::replicate,
              "{} takes {} and {} a style of its own, but {} prepares its input for parallel layers", layer.path,
              name_of(style.input), layer.style ? "has" : "has not", prepared_);
    } else {
      takes(layer.path, style.input);
    }
    give(layer.path, style.output);
  }

  void take_columns(const PlannedLayer& layer) {
    require(!columns_from_.empty(), "{} gives {}, but {} takes Shard(1)",
            whole_from_.empty() ? stream_from_ : whole_from_, name_of(whole_from_.empty() ? stream_ : Layout::replicate),
            layer.path);
    require(whole_from_.empty(), "{} gives Replicate, but {} takes Shard(1)", whole_from_, layer.path);
    columns_from_.clear();
  }

  void give(const std::string& path, Layout output) {
    if (output == Layout::columns) {
      columns_from_ = path;
    } else if (!prepared_.empty() && !columns_from_.empty()) {
      whole_from_ = path;  // beside the columns of its neighbours
    } else if (!prepared_.empty()) {
      require(output == stream_, "{} gives {}, but {}, to which it is added, gives {}", path, name_of(output),
              stream_from_, name_of(stream_));
    } else {
      stream_ = output;
      stream_from_ = path;
    }
  }

  Layout stream_ = Layout::replicate;
  std::string stream_from_ = "the input";
  std::string prepared_;                  // the layer whose input was prepared last, while inside it
  std::string columns_from_, whole_from_;  // inside a block: who gave what last
};

}  // namespace

void check_flow(const std::vector<PlannedLayer>& layers, bool loss_parallel) {
  Flow flow;
  for (const PlannedLayer& layer : layers) flow.pass(layer);
  flow.finish(loss_parallel);
}

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
  return resolved;
}

}  // namespace ninefold
