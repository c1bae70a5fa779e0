// Feeds the reader of IDX files, packed or not: it throws UserError or returns what its header announces.
#include <cstdlib>

#include "common/data/file.h"
#include "common/data/mnist.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const int rank = data[0] % 2 == 0 ? 3 : 1;
  try {
    const std::string content(reinterpret_cast<const char*>(data + 1), size - 1);
    const ninefold::Idx idx = ninefold::parse_idx(ninefold::unpacked(content, "file"), rank, "file");
    if (ninefold::elements(idx.shape) != static_cast<int64_t>(idx.values.size())) std::abort();
  } catch (const ninefold::UserError&) {
  }
  return 0;
}
