// How close a parallel run keeps to the serial one. A technique states its class, and the check holds it to it.
#pragma once

#include <string_view>

namespace ninefold {

enum class Numerics {
  // Within the bounds of common/train/oracle.h: a sum is grouped otherwise, or a matmul is cut in pieces.
  bounded,
  // The same kernels on the same shapes, and partial sums added as the serial run adds them, rank 0 first: the same
  // bits in losses, gradients and parameters.
  bit_identical
};

inline std::string_view name_of(Numerics numerics) {
  return numerics == Numerics::bit_identical ? "bit-identical" : "bounded";
}

}  // namespace ninefold
