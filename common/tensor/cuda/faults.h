// What kernels find wrong with their arguments. They cannot throw: they leave a note, which the host reads when it next
// waits for the device.
#pragma once

#include <cstdint>
#include <utility>

#include "common/base/check.h"

namespace ninefold {

// A row and its value: 0 where nothing is wrong, else 2^32 * (row + 1) + the value's bits. Of several any one stays.
struct Faults {
  unsigned long long token = 0;   // not in the vocabulary
  unsigned long long target = 0;  // not one of the classes
};

constexpr unsigned long long fault_of(int64_t row, int32_t value) {
  return static_cast<unsigned long long>(row + 1) << 32 | static_cast<uint32_t>(value);
}

// Throws Error with what is wrong, if anything is, and forgets it.
inline void throw_faults(Faults& faults) {
  const Faults found = std::exchange(faults, Faults{});
  const auto value = [](unsigned long long fault) { return static_cast<int32_t>(fault); };
  expect(found.token == 0, "token {} at {} is not in its vocabulary", value(found.token), (found.token >> 32) - 1);
  expect(found.target == 0, "target {} of row {} is not one of the classes", value(found.target),
         (found.target >> 32) - 1);
}

}  // namespace ninefold
