#include "06_pipeline/schedule/schedule.h"

#include <fmt/format.h>

namespace ninefold::pipeline {

std::string text_of(const Place& place) {
  return fmt::format("row {} (rank {}), column {}", place.rank + 1, place.rank, place.column + 1);
}

}  // namespace ninefold::pipeline
