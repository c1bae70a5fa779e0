// A file descriptor that closes itself. Whoever uses it says what went wrong, from errno.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <string_view>

namespace ninefold {

class OpenFile {
 public:
  OpenFile(const std::string& path, int flags) : descriptor_(::open(path.c_str(), flags | O_CLOEXEC, 0666)) {}
  ~OpenFile() {
    if (is_open()) ::close(descriptor_);
  }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  bool is_open() const { return descriptor_ >= 0; }
  int descriptor() const { return descriptor_; }
  // Returns when what was written, by whomever, is on the disk.
  bool flush() { return ::fsync(descriptor_) == 0; }
  // Where the last write ended.
  bool write(std::string_view content) {
    return repeat(content, [&](std::string_view rest) { return ::write(descriptor_, rest.data(), rest.size()); });
  }
  bool write_at(int64_t offset, std::string_view content) {
    return repeat(content, [&](std::string_view rest) {
      const auto done = static_cast<int64_t>(content.size() - rest.size());
      return ::pwrite(descriptor_, rest.data(), rest.size(), offset + done);
    });
  }

 private:
  // The system may write less than it was asked for.
  template <typename Write>
  static bool repeat(std::string_view content, const Write& write) {
    while (!content.empty()) {
      const ssize_t written = write(content);
      if (written < 0 && errno != EINTR) return false;
      content.remove_prefix(static_cast<size_t>(std::max<ssize_t>(written, 0)));
    }
    return true;
  }

  int descriptor_;
};

// Renames a file or folder; its new name is on the disk, too, when it returns. False: errno says why not.
bool rename_on_disk(const std::string& from, const std::string& to);

}  // namespace ninefold
