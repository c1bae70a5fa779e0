// Which stages of the model a rank holds, in the three orders that schedules use.
#pragma once

#include "common/base/check.h"

namespace ninefold::pipeline {

//              4 ranks, 2 stages each    who uses it
//   loop       0 4 | 1 5 | 2 6 | 3 7     GPipe, 1F1B (one stage a rank), interleaved 1F1B
//   v          0 7 | 1 6 | 2 5 | 3 4     ZB-V: the first and the last stage share a rank
//   twins      0 3 | 1 2 | 2 1 | 3 0     DualPipe: two copies of every stage, one for each direction
enum class Placement { loop, v, twins };

// The stage that a rank holds as its chunk 0, 1, …
constexpr int stage_at(Placement placement, int rank, int chunk, int ranks) {
  const int mirrored = ranks - 1 - rank;
  if (chunk % 2 == 0 || placement == Placement::loop) return (placement == Placement::twins ? 0 : chunk) * ranks + rank;
  return placement == Placement::v ? chunk * ranks + mirrored : mirrored;
}

}  // namespace ninefold::pipeline
