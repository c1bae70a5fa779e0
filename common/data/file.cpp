#include "common/data/file.h"

#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <utility>

#include "common/base/check.h"

namespace ninefold {
namespace {

constexpr size_t chunk = size_t{1} << 20;

bool is_gzip(std::string_view content) { return content.starts_with("\x1f\x8b"); }

std::string read_bytes(const std::string& path) {
  std::error_code ignored;
  require(std::filesystem::exists(path, ignored), "{} does not exist; check the path", path);
  require(!std::filesystem::is_directory(path, ignored), "{} is a folder; name a file in it", path);
  std::ifstream file(path, std::ios::binary);
  require(file.good(), "{} cannot be read: {}", path, std::strerror(errno));
  std::string content;
  const auto size = std::filesystem::file_size(path, ignored);
  if (!ignored) content.reserve(size + chunk);
  for (size_t have = 0; file; have += file.gcount()) {
    content.resize(have + chunk);
    file.read(content.data() + have, chunk);
    content.resize(have + file.gcount());
  }
  require(!file.bad(), "{} cannot be read to its end: {}", path, std::strerror(errno));
  return content;
}

// One decompression, ended whatever happens.
class Inflater {
 public:
  Inflater() { expect(inflateInit2(&stream_, 15 + 16) == Z_OK, "zlib cannot start"); }  // 15: largest window, 16: gzip
  ~Inflater() { inflateEnd(&stream_); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  // Unpacks one gzip member from the front of `packed` onto `out`; returns what follows it.
  std::string_view unpack(std::string_view packed, std::string& out, std::string_view name) {
    inflateReset(&stream_);
    for (int result = Z_OK; result != Z_STREAM_END;) {
      const size_t have = out.size();
      const size_t given = std::min<size_t>(packed.size(), std::numeric_limits<uInt>::max());
      out.resize(have + chunk);
      stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));  // zlib does not write there
      stream_.avail_in = static_cast<uInt>(given);
      stream_.next_out = reinterpret_cast<Bytef*>(out.data() + have);
      stream_.avail_out = chunk;
      result = inflate(&stream_, Z_NO_FLUSH);
      out.resize(have + chunk - stream_.avail_out);
      packed.remove_prefix(given - stream_.avail_in);
      require(result != Z_BUF_ERROR || !packed.empty(), "{} is a gzip file that ends in the middle; get it again",
              name);
      require(result == Z_OK || result == Z_STREAM_END, "{} is a damaged gzip file ({}); get it again", name,
              stream_.msg ? stream_.msg : zError(result));
    }
    return packed;
  }

 private:
  z_stream stream_{};
};

std::string unpack_gzip(std::string_view packed, std::string_view name) {
  Inflater inflater;
  std::string content;
  while (is_gzip(packed)) packed = inflater.unpack(packed, content, name);  // a gzip may have several members
  require(packed.empty(), "{} is a gzip file with {} bytes behind its end; get it again", name, packed.size());
  return content;
}

}  // namespace

std::string unpacked(std::string content, std::string_view name) {
  return is_gzip(content) ? unpack_gzip(content, name) : std::move(content);
}

std::string read_file(const std::string& path) {
  std::string content = unpacked(read_bytes(path), path);
  require(!content.empty(), "{} is empty; give a file with content", path);
  return content;
}

}  // namespace ninefold
