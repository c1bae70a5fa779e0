#include "common/base/nearest.h"

#include <algorithm>
#include <limits>
#include <numeric>

namespace ninefold {

int edit_distance(std::string_view a, std::string_view b) {
  // distance[j] is that of a's first i letters to b's first j; two rows back are needed for swaps.
  std::vector<int> two_back(b.size() + 1), one_back(b.size() + 1), distance(b.size() + 1);
  std::iota(distance.begin(), distance.end(), 0);
  for (size_t i = 1; i <= a.size(); ++i) {
    two_back.swap(one_back);
    one_back.swap(distance);
    distance[0] = static_cast<int>(i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const int replaced = one_back[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      distance[j] = std::min({one_back[j] + 1, distance[j - 1] + 1, replaced});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) distance[j] = std::min(distance[j], two_back[j - 2] + 1);
    }
  }
  return distance.back();
}

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  std::string best;
  int smallest = std::numeric_limits<int>::max();
  for (const std::string& candidate : candidates) {
    if (const int distance = edit_distance(word, candidate); distance < smallest) {
      smallest = distance;
      best = candidate;
    }
  }
  return best;
}

}  // namespace ninefold
