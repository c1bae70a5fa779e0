// Cutting text into its parts. Results are views into the argument.
#pragma once

#include <string_view>
#include <vector>

namespace ninefold {

// Without spaces, tabs and carriage returns at both ends.
std::string_view trimmed(std::string_view text);

// The parts between the separators, empty ones included: one more than there are separators.
std::vector<std::string_view> split(std::string_view text, char separator);

}  // namespace ninefold
