#include "common/base/text.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "common/base/check.h"

namespace ninefold {

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view blanks = " \t\r\n";
  const size_t begin = text.find_first_not_of(blanks);
  if (begin == text.npos) return {};
  return text.substr(begin, text.find_last_not_of(blanks) - begin + 1);
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(separator, begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

int64_t parse_bytes(std::string_view option, std::string_view text) {
  constexpr std::pair<std::string_view, double> units[] = {
      {"B", 1}, {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}};
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit = trimmed(text.substr(static_cast<size_t>(end - text.data())));
  for (const auto& [name, factor] : units) {
    if (error == std::errc() && name == unit && number * factor >= 1 && number * factor < 1e18) {
      return static_cast<int64_t>(number * factor);
    }
  }
  throw UserError(
      fmt::format("{} needs 1B or more, with one of B, kB, MB, GB, TB, such as 1GB, not '{}'", option, text));
}

}  // namespace ninefold
