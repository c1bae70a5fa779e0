// What a run of programs tells on standard error while it works: one line a run, "[ 3/26] ZeRO-1 … 12.3 k tokens/s".
#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <string>

#include "09_combined_3d/comparison/results.h"
#include "common/base/report.h"
#include "common/base/stopwatch.h"

namespace ninefold::comparison {

class ProgressLine {
 public:
  ProgressLine(size_t number, size_t count, const std::string& name) {
    fmt::print(stderr, "[{:>2}/{}] {:<34} ", number, count, name);
    std::fflush(stderr);
  }
  // The speed, or why there is none.
  void end(const std::optional<Figures>& figures, const std::string& failure) const {
    const std::string speed = figures ? human_count(figures->speed.tokens_per_second) + " tokens/s" : "";
    fmt::print(stderr, "{} ({})\n", failure.empty() ? speed : "failed: " + failure,
               human_seconds(stopwatch_.seconds()));
  }

 private:
  Stopwatch stopwatch_;
};

}  // namespace ninefold::comparison
