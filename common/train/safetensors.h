// A model's parameters in one file of the safetensors format (https://huggingface.co/docs/safetensors): eight bytes
// that give the length of a header, the header in JSON (every tensor's type, shape and place), and the tensors' bytes
// one after the other.
#pragma once

#include <string>
#include <vector>

#include "common/comm/world.h"
#include "common/nn/parameter.h"

namespace ninefold {

// What a file tells of one tensor.
struct TensorEntry {
  std::string name;
  Dtype dtype;
  Shape shape;
  int64_t bytes() const { return elements(shape) * size_of(dtype); }
};

// The beginning of a file that holds these tensors in this order: length and header, filled up with spaces to a
// multiple of 8 bytes.
std::string safetensors_header(const std::vector<TensorEntry>& tensors);

// Writes the whole tensors of which the ranks own parts, under the parameters' names and in the type in which they are
// owned. They pass through rank 0 one by one, so that no rank ever holds more than one of them. All ranks call it.
// Throws UserError on rank 0 where the file cannot be written; then the old one is still there.
void save_safetensors(const std::string& path, const World& world, const std::vector<Parameter*>& parameters);

}  // namespace ninefold
