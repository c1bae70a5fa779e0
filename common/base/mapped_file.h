// A file's bytes in memory without reading them first: the system brings the pages that are looked at.
#pragma once

#include <string>
#include <string_view>

namespace ninefold {

class MappedFile {
 public:
  // Throws UserError for a file that is missing, empty, a folder, or not readable.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  // Valid as long as this lives, and the file is not made shorter.
  std::string_view bytes() const { return bytes_; }

 private:
  std::string_view bytes_;
};

}  // namespace ninefold
