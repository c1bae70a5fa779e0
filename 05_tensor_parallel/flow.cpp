#include "05_tensor_parallel/flow.h"

namespace ninefold {
namespace {

using Type = PlannedLayer::Type;
using Kind = Style::Kind;

// The stream from block to block, and the columns inside a block.
class Flow {
 public:
  void pass(const PlannedLayer& layer) {
    if (is_inside(whole_, layer)) return compute_whole(layer);
    if (layer.style && layer.style->kind == Kind::prepare_input) return prepare(layer);
    if (layer.style && layer.style->kind == Kind::prepare_input_output) {
      leave_prepared(layer);
      takes(layer.path, layer.style->input);
      whole_ = layer.path;
    }
    if (!prepared_.empty() && !is_inside(prepared_, layer)) leave_prepared(layer);
    if (layer.type == Type::norm) takes(layer.path, layer.style ? Layout::rows : Layout::replicate);
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
  static bool is_inside(const std::string& path, const PlannedLayer& layer) {
    return !path.empty() && layer.path.starts_with(path + ".");
  }

  void compute_whole(const PlannedLayer& layer) const {
    require(!layer.style, "{} has a style of its own, but {} is computed whole on every rank", layer.path, whole_);
  }

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
    require(whole_from_.empty(), "{} gives Replicate, but {} takes Shard(1)", whole_from_, layer.path);
    require(!columns_from_.empty(), "{} gives {}, but {} takes Shard(1)", stream_from_, name_of(stream_), layer.path);
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
  std::string prepared_;                   // the layer whose input was prepared last, while inside it
  std::string whole_;                      // the last layer that every rank computes alike
  std::string columns_from_, whole_from_;  // inside a block: who gave what last
};

}  // namespace

void check_flow(const std::vector<PlannedLayer>& layers, bool loss_parallel) {
  Flow flow;
  for (const PlannedLayer& layer : layers) flow.pass(layer);
  flow.finish(loss_parallel);
}

}  // namespace ninefold
