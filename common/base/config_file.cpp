#include "common/base/config_file.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "common/base/check.h"
#include "common/base/text.h"

namespace ninefold {
namespace {

std::string_view without_comment(std::string_view text) { return trimmed(text.substr(0, text.find('#'))); }

// The value that follows "=", or a UserError that begins with `place`.
std::string value_of(std::string_view text, std::string_view place) {
  const char quote = text.empty() ? '\0' : text.front();
  if (quote != '"' && quote != '\'') return std::string(without_comment(text));
  const size_t end = text.find(quote, 1);
  require(end != text.npos, "{}: the quote {} is not closed", place, quote);
  const std::string_view rest = without_comment(text.substr(end + 1));
  require(rest.empty(), "{}: '{}' follows the closing quote; a line holds one value", place, rest);
  return std::string(text.substr(1, end - 1));
}

}  // namespace

std::vector<ConfigLine> parse_config(std::string_view content, std::string_view name) {
  std::vector<ConfigLine> lines;
  for (int number = 1; !content.empty(); ++number) {
    const size_t end = content.find('\n');
    const std::string_view line = trimmed(content.substr(0, end));
    content.remove_prefix(end == content.npos ? content.size() : end + 1);
    const std::string_view bare = without_comment(line);
    if (bare.empty() || (bare.front() == '[' && bare.back() == ']')) continue;

    const std::string place = fmt::format("{}, line {}", name, number);
    const size_t equals = bare.find('=');
    require(equals != bare.npos, "{}: '{}' is not of the form key = value", place, bare);
    const std::string key(trimmed(bare.substr(0, equals)));
    require(!key.empty(), "{}: a key is missing before '='", place);
    lines.push_back({number, key, value_of(trimmed(line.substr(line.find('=') + 1)), place)});
  }
  return lines;
}

std::vector<ConfigLine> read_config(const std::string& path) {
  require(std::filesystem::exists(path), "configuration file {} does not exist; check the path", path);
  require(!std::filesystem::is_directory(path), "configuration file {} is a folder; name a file in it", path);
  std::ifstream file(path, std::ios::binary);
  require(file.good(), "configuration file {} cannot be read: {}", path, std::strerror(errno));
  return parse_config(std::string(std::istreambuf_iterator<char>(file), {}), path);
}

}  // namespace ninefold
