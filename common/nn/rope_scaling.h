// How Llama 3.1 stretches rotary positions to sequences longer than those a model was first trained on (Llama Team
// 2024, arXiv 2407.21783; `rope_type` "llama3" in transformers).
#pragma once

#include <cstdint>
#include <vector>

namespace ninefold {

// A pair that makes at least high_freq_factor whole turns within original_length positions turns as before; one that
// makes at most low_freq_factor turns slower by `factor`; frequencies between are interpolated linearly in the turns.
struct RopeScaling {
  double factor = 1;  // 1: nothing is scaled
  double low_freq_factor = 1, high_freq_factor = 4;
  int64_t original_length = 8192;

  // Of ops::rope_frequencies.
  std::vector<double> scaled(std::vector<double> frequencies) const;
  // Throws UserError.
  void validate() const;
};

}  // namespace ninefold
