// A data set in MNIST's files that is as small as a test wants it: black images, not packed.
#pragma once

#include <string>

#include "tests/support/temporary_folder.h"

namespace ninefold {

// `split` is "train" or "t10k".
inline void write_black_images(const TemporaryFolder& folder, const std::string& split, uint8_t images) {
  const std::string count = {'\0', '\0', '\0', static_cast<char>(images)};
  const std::string side = {'\0', '\0', '\0', 28};
  folder.write(split + "-images-idx3-ubyte",
               std::string("\0\0\x08\x03", 4) + count + side + side + std::string(images * 28 * 28, '\0'));
  folder.write(split + "-labels-idx1-ubyte", std::string("\0\0\x08\x01", 4) + count + std::string(images, '\7'));
}

}  // namespace ninefold
