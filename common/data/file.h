// Whole files in memory, gzip or plain; what is wrong with one is told in a sentence.
#pragma once

#include <string>
#include <string_view>

namespace ninefold {

// The file's bytes, unpacked if it begins with gzip's magic. Throws UserError for a file that is missing, empty, a
// folder, not readable, or a gzip that is cut or damaged.
std::string read_file(const std::string& path);

// The content of a file as it is, or unpacked if it is a gzip. `name` stands for the file in sentences.
std::string unpacked(std::string content, std::string_view name);

}  // namespace ninefold
