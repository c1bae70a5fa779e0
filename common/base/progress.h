// A progress bar on standard error for long work: a bar on a terminal, a line every half minute elsewhere.
#pragma once

#include <cstdint>
#include <string>

#include "common/base/stopwatch.h"

namespace ninefold {

class Progress {
 public:
  // `visible`: false on all ranks but 0, where nothing is shown.
  Progress(std::string label, int64_t total, bool visible);
  // Removes the bar, so that what follows starts on a clean line.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `done` of `total` are done. Cheap enough to be called in every step.
  void update(int64_t done);
  // Removes the bar until the next update; to be called before other output on the same terminal.
  void clear();

 private:
  std::string line(int64_t done) const;

  std::string label_;
  int64_t total_;
  bool visible_;
  bool terminal_;
  bool drawn_ = false;
  Stopwatch since_start_, since_drawn_;
};

}  // namespace ninefold
