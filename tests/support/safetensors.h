// Golden values from safetensors files, as vectors.
#pragma once

#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "common/tensor/safetensors.h"

namespace ninefold {

// One of `floats` (F32, BF16, F16) and `ints` (I32) holds the elements.
struct GoldenTensor {
  Shape shape;
  std::vector<float> floats;
  std::vector<int32_t> ints;

  Tensor on(const DeviceHandle& device) const {
    return ints.empty() ? Tensor::from(device, shape, floats) : Tensor::from(device, shape, ints);
  }
};

struct GoldenFile {
  std::map<std::string, GoldenTensor> tensors;
  std::map<std::string, std::string> metadata;

  const GoldenTensor& operator[](const std::string& name) const {
    require(tensors.contains(name), "no tensor is called {}", name);
    return tensors.at(name);
  }
};

// Throws UserError as SafetensorsFile does.
inline GoldenFile read_safetensors(const std::string& path) {
  const SafetensorsFile file(path);
  GoldenFile result{{}, file.metadata()};
  for (const auto& [name, stored] : file.tensors()) {
    GoldenTensor tensor{stored.shape, {}, {}};
    const auto read = [&](auto zero) {
      std::vector<decltype(zero)> values(static_cast<size_t>(elements(stored.shape)));
      if (!values.empty()) std::memcpy(static_cast<void*>(values.data()), stored.bytes.data(), stored.bytes.size());
      return values;
    };
    const auto widened = [](const auto& narrow) { return std::vector<float>(narrow.begin(), narrow.end()); };
    if (stored.dtype == Dtype::i32) tensor.ints = read(int32_t{});
    if (stored.dtype == Dtype::f32) tensor.floats = read(0.f);
    if (stored.dtype == Dtype::bf16) tensor.floats = widened(read(bf16()));
    if (stored.dtype == Dtype::f16) tensor.floats = widened(read(f16()));
    result.tensors[name] = std::move(tensor);
  }
  return result;
}

}  // namespace ninefold
