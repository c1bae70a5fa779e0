#include "common/base/check.h"

#include <string_view>

namespace ninefold::detail {

void throw_error(std::string sentence, const char* file, int line) {
  std::string_view path(file);
  for (std::string_view root : {"common/", "0", "tests/", "benchmarks/"}) {
    if (const size_t at = path.rfind(fmt::format("/{}", root)); at != path.npos) {
      path.remove_prefix(at + 1);
      break;
    }
  }
  throw Error(fmt::format("{} ({}:{})", sentence, path, line));
}

}  // namespace ninefold::detail
