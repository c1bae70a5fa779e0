// Cutting text into its parts. Results are views into the argument.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace ninefold {

// Without spaces, tabs and ends of lines at both ends.
std::string_view trimmed(std::string_view text);

// The parts between the separators, empty ones included: one more than there are separators.
std::vector<std::string_view> split(std::string_view text, char separator);

// "1GB", "500 MB", "64kB", "100B": decimal units. Throws UserError that names `option`.
int64_t parse_bytes(std::string_view option, std::string_view text);

}  // namespace ninefold
