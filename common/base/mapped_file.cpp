#include "common/base/mapped_file.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "common/base/check.h"
#include "common/base/open_file.h"

namespace ninefold {

MappedFile::MappedFile(const std::string& path) {
  std::error_code ignored;
  require(std::filesystem::exists(path, ignored), "{} does not exist; check the path", path);
  require(!std::filesystem::is_directory(path, ignored), "{} is a folder; name a file in it", path);
  const OpenFile file(path, O_RDONLY);
  require(file.is_open(), "{} cannot be read: {}", path, std::strerror(errno));
  const auto size = std::filesystem::file_size(path, ignored);
  require(!ignored && size > 0, "{} is empty; give a file with content", path);
  void* const address = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file.descriptor(), 0);
  require(address != MAP_FAILED, "{} cannot be read: {}", path, std::strerror(errno));
  bytes_ = {static_cast<const char*>(address), size};
}

MappedFile::~MappedFile() { ::munmap(const_cast<char*>(bytes_.data()), bytes_.size()); }

}  // namespace ninefold
