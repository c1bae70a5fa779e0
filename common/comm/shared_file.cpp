#include "common/comm/shared_file.h"

#include <cstring>

#include "common/base/check.h"
#include "common/base/open_file.h"

namespace ninefold {
namespace {

void require_success(bool success, const std::string& path, int error) {
  require(success, "{} cannot be written: {}; make room or choose another place", path, std::strerror(error));
}

}  // namespace

void create_shared_file(const std::string& path, std::string_view beginning, int64_t bytes) {
  OpenFile file(path, O_WRONLY | O_CREAT | O_TRUNC);
  require_success(file.is_open(), path, errno);
  const int error = ::posix_fallocate(file.descriptor(), 0, bytes);
  require_success(error == 0, path, error);
  require_success(file.write(beginning), path, errno);
}

void write_alone(const std::string& path, const std::vector<FilePart>& parts) {
  OpenFile file(path, O_WRONLY);
  require_success(file.is_open(), path, errno);
  for (const FilePart& part : parts) {
    require_success(file.write_at(part.offset, {part.data, static_cast<size_t>(part.bytes)}), path, errno);
  }
  require_success(file.flush(), path, errno);
}

}  // namespace ninefold
