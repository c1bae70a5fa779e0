// Configuration files: one option a line, as "key = value". The part of TOML and INI that a list of options needs.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace ninefold {

struct ConfigLine {
  int number;  // of the line, from 1
  std::string key;
  std::string value;
};

// Reads lines "key = value". A value in quotes may hold anything; "#" begins a comment; [headings] and empty lines are
// for the reader of the file. `name` stands for the file in sentences. Throws UserError, naming file and line.
std::vector<ConfigLine> parse_config(std::string_view content, std::string_view name);

// The same from a file. Throws UserError if it cannot be read.
std::vector<ConfigLine> read_config(const std::string& path);

}  // namespace ninefold
