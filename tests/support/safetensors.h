// Reads golden values from safetensors files (https://huggingface.co/docs/safetensors): strict, whole file at once.
#pragma once

#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/base/check.h"
#include "common/tensor/tensor.h"

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

namespace detail {

inline GoldenTensor golden_tensor(const std::string& dtype, Shape shape, const char* bytes, size_t length) {
  GoldenTensor tensor{std::move(shape), {}, {}};
  const auto count = static_cast<size_t>(elements(tensor.shape));
  const bool narrow = dtype == "BF16" || dtype == "F16";
  require(narrow || dtype == "F32" || dtype == "I32", "type {} is not F32, BF16, F16 or I32", dtype);
  require(length == count * (narrow ? 2 : 4), "{} bytes do not hold {} of {}", length, count, dtype);
  if (dtype == "I32") {
    tensor.ints.resize(count);
    std::memcpy(tensor.ints.data(), bytes, length);
  } else if (dtype == "F32") {
    tensor.floats.resize(count);
    std::memcpy(tensor.floats.data(), bytes, length);
  } else {
    const auto widen = [&](auto zero) {
      std::vector<decltype(zero)> rounded(count);
      std::memcpy(static_cast<void*>(rounded.data()), bytes, length);
      for (const auto value : rounded) tensor.floats.push_back(static_cast<float>(value));
    };
    dtype == "BF16" ? widen(bf16()) : widen(f16());
  }
  return tensor;
}

}  // namespace detail

// Throws UserError when the file is missing, truncated, or holds bytes that no tensor covers.
inline GoldenFile read_safetensors(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  require(stream.good(), "cannot open {}", path);
  const std::string file{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  uint64_t header_bytes = 0;
  require(file.size() >= sizeof header_bytes, "{} is too short for a header", path);
  std::memcpy(&header_bytes, file.data(), sizeof header_bytes);
  require(header_bytes <= file.size() - sizeof header_bytes, "{} ends within its header", path);
  const auto header = nlohmann::json::parse(file.substr(sizeof header_bytes, header_bytes));
  const size_t data = sizeof header_bytes + header_bytes;

  GoldenFile result;
  size_t covered = 0;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      result.metadata = entry.get<std::map<std::string, std::string>>();
      continue;
    }
    const auto [begin, end] = entry.at("data_offsets").get<std::pair<size_t, size_t>>();
    require(begin <= end && end <= file.size() - data, "{}: {} lies outside the file", path, name);
    result.tensors[name] = detail::golden_tensor(entry.at("dtype"), entry.at("shape").get<Shape>(),
                                                 file.data() + data + begin, end - begin);
    covered += end - begin;
  }
  require(covered == file.size() - data, "{}: tensors cover {} of {} bytes", path, covered, file.size() - data);
  return result;
}

}  // namespace ninefold
