#include "common/train/safetensors.h"

#include <optional>

#include "common/base/report.h"
#include "common/tensor/safetensors.h"
#include "common/train/gather.h"

namespace ninefold {

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
