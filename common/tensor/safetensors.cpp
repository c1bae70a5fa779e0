#include "common/tensor/safetensors.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

namespace ninefold {
namespace {

constexpr std::string_view format_names[] = {"F32", "BF16", "F16", "I32", "F8_E4M3", "F8_E5M2"};  // by Dtype

// Every type of the format.
struct FormatType {
  std::string_view name;
  uint64_t bits;
};
constexpr FormatType format_types[] = {{"BOOL", 8}, {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
                                       {"I8", 8},   {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"I16", 16},
                                       {"U16", 16}, {"F16", 16},    {"BF16", 16},   {"I32", 32},    {"U32", 32},
                                       {"F32", 32}, {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64}};
constexpr uint64_t fewest_bits = 4;

constexpr uint64_t length_bytes = sizeof(uint64_t);
constexpr uint64_t longest_header = 100'000'000;  // as the format's own library

std::optional<Dtype> dtype_of(std::string_view name) {
  const auto* const found = std::find(std::begin(format_names), std::end(format_names), name);
  if (found == std::end(format_names)) return std::nullopt;
  return static_cast<Dtype>(found - std::begin(format_names));
}

// The header alone. It ends where the tensors begin.
std::string_view header_of(std::string_view content, const std::string& name) {
  require(content.size() >= length_bytes, "{} is cut: {} bytes do not hold the length of a header", name,
          content.size());
  uint64_t length = 0;
  std::memcpy(&length, content.data(), length_bytes);  // little-endian, as every processor here
  require(length <= longest_header, "{} is no safetensors file: its header would be {} bytes long, and {} is the most",
          name, length, longest_header);
  require(length <= content.size() - length_bytes, "{} is cut: its header is {} bytes long, but {} bytes follow", name,
          length, content.size() - length_bytes);
  return content.substr(length_bytes, length);
}

nlohmann::json parse_header(std::string_view header, const std::string& name) {
  std::set<std::string> keys;
  const auto refuse_twice = [&](int depth, nlohmann::json::parse_event_t event, const nlohmann::json& parsed) {
    if (depth == 1 && event == nlohmann::json::parse_event_t::key) {
      const bool is_new = keys.insert(parsed.get<std::string>()).second;
      require(is_new, "{} holds the tensor {} twice", name, parsed.get<std::string>());
    }
    return true;
  };
  nlohmann::json json;
  try {
    json = nlohmann::json::parse(header, refuse_twice);
  } catch (const nlohmann::json::exception& error) {
    require(false, "{} is no safetensors file: its header is no JSON ({})", name, error.what());
  }
  require(json.is_object(), "{} is no safetensors file: its header is not a list of named tensors", name);
  return json;
}

// Numbers of 2^48 and more belong to no file.
uint64_t size_in(const nlohmann::json& json, const std::string& name, const std::string& tensor) {
  constexpr uint64_t limit = uint64_t{1} << 48;
  require(json.is_number_unsigned() && json.get<uint64_t>() < limit, "{}: {} has {} where a size should be", name,
          tensor, json.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace));
  return json.get<uint64_t>();
}

uint64_t bits_of(const std::string& type, const std::string& name, const std::string& tensor) {
  const auto* const found = std::find_if(std::begin(format_types), std::end(format_types),
                                         [&](const FormatType& known) { return known.name == type; });
  require(found != std::end(format_types), "{}: the tensor {} is of type {}, which the format does not have", name,
          tensor, type);
  return found->bits;
}

// Not more than `most` elements, so that the product cannot overflow.
Shape shape_of(const nlohmann::json& json, uint64_t most, const std::string& name, const std::string& tensor) {
  require(json.is_array(), "{}: the tensor {} has no shape", name, tensor);
  Shape shape;
  uint64_t count = 1;
  bool is_empty = false;
  for (const auto& extent : json) {
    const uint64_t size = size_in(extent, name, tensor);
    shape.push_back(static_cast<int64_t>(size));
    if (size == 0) is_empty = true;
    if (size > 0) {
      require(count <= most / size, "{}: the tensor {} is larger than the file", name, tensor);
      count *= size;
    }
  }
  expect(is_empty || static_cast<uint64_t>(elements(shape)) == count, "the shape {} overflowed", to_string(shape));
  return shape;
}

StoredTensor tensor_in(const nlohmann::json& json, std::string_view data, const std::string& name,
                       const std::string& tensor) {
  const bool is_whole = json.is_object() && json.contains("dtype") && json["dtype"].is_string() &&
                        json.contains("shape") && json.contains("data_offsets") && json["data_offsets"].is_array() &&
                        json["data_offsets"].size() == 2;
  require(is_whole, "{}: the tensor {} needs dtype, shape and two data_offsets", name, tensor);
  const std::string type = json["dtype"];
  const uint64_t bits = bits_of(type, name, tensor);
  const uint64_t most = data.size() * 8 / fewest_bits;
  StoredTensor stored{type, dtype_of(type), shape_of(json["shape"], most, name, tensor), {}};
  const uint64_t begin = size_in(json["data_offsets"][0], name, tensor);
  const uint64_t end = size_in(json["data_offsets"][1], name, tensor);
  require(begin <= end && end <= data.size(), "{}: the tensor {} lies at [{}, {}), but the tensors have {} bytes", name,
          tensor, begin, end, data.size());
  const uint64_t needed = static_cast<uint64_t>(elements(stored.shape)) * bits;
  require(needed % 8 == 0, "{}: the tensor {} of type {} and the shape {} does not end with a whole byte", name, tensor,
          type, to_string(stored.shape));
  const uint64_t bytes = needed / 8;
  require(end - begin == bytes, "{}: the tensor {} has {} bytes, but {} of type {} need {}", name, tensor, end - begin,
          to_string(stored.shape), type, bytes);
  stored.bytes = data.substr(begin, bytes);
  return stored;
}

// No byte belongs to two tensors or to none.
void require_cover(const std::map<std::string, StoredTensor>& tensors, std::string_view data, const std::string& name) {
  std::vector<std::pair<const char*, const std::string*>> begins;
  for (const auto& [tensor, stored] : tensors) begins.emplace_back(stored.bytes.data(), &tensor);
  // Empty tensors begin where the next one does.
  std::sort(begins.begin(), begins.end(), [&](const auto& a, const auto& b) {
    return std::pair(a.first, tensors.at(*a.second).bytes.size()) <
           std::pair(b.first, tensors.at(*b.second).bytes.size());
  });
  const char* reached = data.data();
  for (const auto& [begin, tensor] : begins) {
    require(begin >= reached, "{}: the tensor {} overlaps another", name, *tensor);
    require(begin == reached, "{}: {} bytes before the tensor {} belong to no tensor", name, begin - reached, *tensor);
    reached = begin + tensors.at(*tensor).bytes.size();
  }
  require(reached == data.data() + data.size(), "{}: {} bytes at its end belong to no tensor", name,
          data.data() + data.size() - reached);
}

}  // namespace

std::string_view format_name(Dtype dtype) { return format_names[static_cast<int>(dtype)]; }

std::string safetensors_header(const std::vector<TensorEntry>& tensors) {
  nlohmann::ordered_json json;
  json["__metadata__"] = {{"format", "pt"}};  // transformers asks for it
  int64_t offset = 0;
  for (const TensorEntry& tensor : tensors) {
    const int64_t end = offset + tensor.bytes();
    json[tensor.name] = {
        {"dtype", format_name(tensor.dtype)}, {"shape", tensor.shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string header = json.dump();
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const uint64_t length = header.size();
  std::string beginning(sizeof length, '\0');
  std::memcpy(beginning.data(), &length, sizeof length);
  return beginning + header;
}

StoredTensors parse_safetensors(std::string_view content, const std::string& name) {
  const std::string_view header = header_of(content, name);
  const std::string_view data = content.substr(length_bytes + header.size());
  StoredTensors stored;
  const nlohmann::json json = parse_header(header, name);
  for (const auto& [tensor, entry] : json.items()) {
    if (tensor != "__metadata__") {
      stored.tensors.emplace(tensor, tensor_in(entry, data, name, tensor));
      continue;
    }
    require(entry.is_object(), "{}: its __metadata__ is no list of named texts", name);
    for (const auto& [key, value] : entry.items()) {
      require(value.is_string(), "{}: {} of its __metadata__ is no text", name, key);
      stored.metadata[key] = value;
    }
  }
  require_cover(stored.tensors, data, name);
  return stored;
}

}  // namespace ninefold
