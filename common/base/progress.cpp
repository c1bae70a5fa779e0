#include "common/base/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "common/base/report.h"

namespace ninefold {
namespace {

constexpr double seconds_between_redraws = 0.1;
constexpr double seconds_between_lines = 30;

}  // namespace

Progress::Progress(std::string label, int64_t total, bool visible)
    : label_(std::move(label)), total_(total), visible_(visible), terminal_(::isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() { clear(); }

void Progress::update(int64_t done) {
  if (!visible_ || since_drawn_.seconds() < (terminal_ ? seconds_between_redraws : seconds_between_lines)) return;
  since_drawn_.restart();
  if (terminal_) {
    fmt::print(stderr, "\r\033[K{}", line(done));  // to the line's beginning, erase, draw
    drawn_ = true;
  } else {
    fmt::print(stderr, "{}\n", line(done));
  }
  std::fflush(stderr);
}

void Progress::clear() {
  if (!drawn_) return;
  fmt::print(stderr, "\r\033[K");
  std::fflush(stderr);
  drawn_ = false;
}

std::string Progress::line(int64_t done) const {
  constexpr int width = 24;
  const double fraction = total_ > 0 ? std::clamp(static_cast<double>(done) / total_, 0.0, 1.0) : 1.0;
  const int filled = static_cast<int>(fraction * width);
  const double remaining = fraction > 0 ? since_start_.seconds() * (1 - fraction) / fraction : 0;
  return fmt::format("{} [{}{}] {}/{}  {} left", label_, std::string(filled, '#'), std::string(width - filled, '.'),
                     done, total_, human_seconds(remaining));
}

}  // namespace ninefold
