// Parameters, and where their elements live. One function, Placement::pieces, tells which part of the global tensor a
// rank holds; initialisation, checkpoints, the oracle, clipping and the printout use nothing else.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/tensor/ops.h"

namespace ninefold {

// `length` consecutive elements: at `global_offset` of the global tensor, at `local_offset` of what this rank holds.
struct Piece {
  int64_t global_offset, local_offset, length;
  bool operator==(const Piece&) const = default;
};

// How a parameter is split over the mesh, from this rank's point of view: first the shards along tensor dimensions in
// the order they were applied, then a flat range of what they left. Dimensions of the mesh that are not named hold
// copies.
struct Placement {
  // This rank holds part `index` of `count` equal parts along `dim`, split over a mesh dimension. Where `count` does
  // not divide it, the last parts are as long as the others and end in padding, which is no element of the parameter.
  // With `copies` above 1 so many neighbours along the mesh dimension hold the same part.
  struct Shard {
    std::string mesh_dimension;
    int dim;
    int64_t index, count, copies = 1;
  };
  // This rank holds elements [offset, offset + length) of the row-major order that the shards left; the ranks along
  // these mesh dimensions hold the others.
  struct Flat {
    int64_t offset, length;
    std::vector<std::string> mesh_dimensions{};
  };

  // Along this mesh dimension only the ranks with these coordinates hold the parameter, the others nothing of it. Where
  // several do, they hold copies, and its gradient is the sum of theirs.
  struct Holders {
    std::string mesh_dimension;
    std::vector<int> coordinates;  // ascending
    int own;                       // this rank's coordinate
  };

  std::vector<Shard> shards;
  std::optional<Flat> flat;
  // Mesh dimensions over which the gradient is still a sum to be made.
  std::vector<std::string> partial;
  std::optional<Holders> replicated_over{};

  // Whether a rank's elements need not be all of them.
  bool is_divided() const { return flat || !shards.empty() || replicated_over; }
  // Whether this rank is one of those that hold the parameter, or their part of it.
  bool is_held() const;
  // Whether, of the ranks along this mesh dimension that hold the same elements, the one at `coordinate` is the first.
  bool is_first_copy(std::string_view mesh_dimension, int coordinate) const;

  // The shape that the shards leave of `global`, padding included.
  Shape sharded_shape(const Shape& global) const;
  // The shape of what this rank owns: sharded_shape, or [length] under a flat range, or [0] where it is not held.
  Shape local_shape(const Shape& global) const;
  // This rank's elements as maximal consecutive runs, in local order; together they cover the local tensor, but for
  // padding, once.
  std::vector<Piece> pieces(const Shape& global) const;
};

// One trainable tensor of a model. Built without storage; `materialize` gives it some.
class Parameter {
 public:
  Parameter(Shape global_shape, ops::Distribution initial) : shape(std::move(global_shape)), initial(initial) {}

  std::string name;  // full path, "layers.0.attention.wq.weight"; the same whatever wraps the layer
  Shape shape;       // global
  ops::Distribution initial;
  Placement placement;
  int64_t users = 1;  // layers that add to its gradient

  // What layers compute with, of shape layer_shape(). Undefined until materialised, and while a technique that shards
  // the parameter has it gathered nowhere.
  Tensor value;
  // Where layers put the gradient, f32 or the compute type; while it is undefined, on_gradient_needed provides it.
  Tensor gradient;
  // What this rank owns and updates, of shape local_shape(): the same tensors, or, under a flat range, a part of them
  // or tensors of their own.
  struct Owned {
    Tensor value, gradient;
  } owned;
  // Of the values as 8-bit floats, the same on all ranks that hold parts of them; 0 until somebody shares it.
  float f8_scale = 0;

  int64_t size() const { return elements(shape); }
  Shape layer_shape() const { return placement.sharded_shape(shape); }
  Shape local_shape() const { return placement.local_shape(shape); }

  // A step begins: the gradient counts as zero from here on, without a pass over its memory. `contributions` is how
  // often it will be written before it is complete: once for every micro-batch and user.
  void zero_gradient(int64_t contributions = 1);
  // For work that can either assign or add: calls write(gradient, accumulate).
  void write_gradient(const std::function<void(const Tensor& gradient, bool accumulate)>& write);
  // For work that only adds: the gradient is zeroed first where nothing was added since zero_gradient().
  void add_gradient(const std::function<void(const Tensor& gradient)>& add);
  // Contributions that are still to come.
  int64_t missing() const { return missing_; }
  // So many were made by a device that repeats such work by itself. Negative: takes back what was counted as it was
  // noted.
  void contributed(int64_t contributions);
  // The step's last backward is done: a gradient that is not complete by now (its layer was not used) is declared so,
  // and becomes zeros where it received nothing.
  void complete_gradient();
  // Called when a step's last contribution is in. Reductions that overlap with the backward listen to it.
  std::function<void()> on_gradient_complete;
  // Called before the first write while `gradient` is undefined: provides it.
  std::function<void()> on_gradient_needed;

  // Fills `target` (what this rank owns, or all that its layers use; any float type) with the initial values that
  // `seed` gives the global tensor; padding with zeros.
  void initialise(const Tensor& target, uint64_t seed) const;

 private:
  bool has_gradient_ = false;
  int64_t missing_ = 0;  // contributions
};

// A tensor of a model that is not trained, but carried from step to step, alike on all ranks. f32, from 0; built
// without storage, which `materialize` gives it.
struct Buffer {
  Shape shape;
  std::string name{};  // full path, as a parameter's
  Tensor value{};
};

}  // namespace ninefold
