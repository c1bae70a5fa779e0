#include "01_collectives/benchmark/bytes.h"

#include <charconv>
#include <limits>

namespace ninefold::collectives {

int64_t parse_bytes(const std::string& option, const std::string& text) {
  int64_t number = 0;
  const char* const text_end = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), text_end, number);
  const std::string unit(end, text_end);
  const bool has_unit = unit == "K" || unit == "M" || unit == "G";
  require(error != std::errc::invalid_argument && (unit.empty() || has_unit),
          "{} needs a number of bytes like 8, 4K, 1M or 2G, not '{}'", option, text);
  const int shift = unit == "K" ? 10 : unit == "M" ? 20 : unit == "G" ? 30 : 0;
  require(error == std::errc() && number <= std::numeric_limits<int64_t>::max() >> shift,
          "{} ({}) is beyond what can be counted", option, text);
  require(number > 0, "{} ({}) must be at least 1 byte", option, text);
  return number << shift;
}

std::vector<std::pair<std::string, Operation>> named_collectives() {
  std::vector<std::pair<std::string, Operation>> named;
  for (const Operation operation : {Operation::all_reduce, Operation::all_gather, Operation::reduce_scatter,
                                    Operation::broadcast, Operation::reduce, Operation::all_to_all}) {
    named.emplace_back(name_of(operation), operation);
  }
  return named;
}

}  // namespace ninefold::collectives
