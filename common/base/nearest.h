// The known word nearest to a misspelt one, for "did you mean …?".
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace ninefold {

// Insertions, deletions, replacements and swaps of neighbours that turn one word into the other (Damerau 1964).
int edit_distance(std::string_view a, std::string_view b);

// The candidate at the smallest edit distance, the first of equals. Empty without candidates.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace ninefold
