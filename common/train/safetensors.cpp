#include "common/train/safetensors.h"

#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>

#include "common/base/report.h"
#include "common/train/gather.h"

namespace ninefold {
namespace {

std::string_view format_name(Dtype dtype) {
  constexpr std::string_view names[] = {"F32", "BF16", "F16", "I32", "F8_E4M3", "F8_E5M2"};
  return names[static_cast<int>(dtype)];
}

}  // namespace

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
  std::memcpy(beginning.data(), &length, sizeof length);  // little-endian, as every processor here
  return beginning + header;
}

void save_safetensors(const std::string& path, const World& world, const std::vector<Parameter*>& parameters) {
  std::vector<TensorEntry> entries;
  for (const Parameter* parameter : parameters) {
    entries.push_back({parameter->name, parameter->owned.value.dtype(), parameter->shape});
  }
  std::optional<AtomicFile> file;
  if (world.rank() == 0) file.emplace(path).write(safetensors_header(entries));
  for (const Parameter* parameter : parameters) {
    const std::string bytes = gather_global(world, *parameter, parameter->owned.value);
    if (file) file->write(bytes);
  }
  if (file) file->commit();
}

}  // namespace ninefold
