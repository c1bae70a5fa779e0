#include "common/base/open_file.h"

#include <cstdio>
#include <filesystem>

namespace ninefold {

bool rename_on_disk(const std::string& from, const std::string& to) {
  if (std::rename(from.c_str(), to.c_str()) != 0) return false;
  // A name is on the disk only when its folder is. Some file systems refuse; what was renamed is whole anyway.
  const std::string folder = std::filesystem::path(to).parent_path().string();
  OpenFile parent(folder.empty() ? "." : folder, O_RDONLY | O_DIRECTORY);
  if (parent.is_open()) parent.flush();
  return true;
}

}  // namespace ninefold
