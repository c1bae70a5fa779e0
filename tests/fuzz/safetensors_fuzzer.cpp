// Feeds the reader of safetensors: it throws UserError, or gives tensors that cover the file.
#include <cstdlib>
#include <cstring>

#include "common/tensor/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    // The length is right, or the fuzzer would have to guess it.
    std::string content(reinterpret_cast<const char*>(data), size);
    const size_t brace = content.rfind('}');
    if (size >= 8 && data[0] % 8 != 0 && brace != std::string::npos && brace >= 8) {
      const uint64_t length = brace + 1 - 8;
      std::memcpy(content.data(), &length, sizeof length);
    }
    size_t covered = 0;
    const ninefold::StoredTensors stored = ninefold::parse_safetensors(content, "file");
    for (const auto& [name, tensor] : stored.tensors) {
      covered += tensor.bytes.size();
      if (tensor.dtype && ninefold::elements(tensor.shape) * ninefold::size_of(*tensor.dtype) !=
                              static_cast<int64_t>(tensor.bytes.size())) {
        std::abort();
      }
    }
    if (covered > content.size()) std::abort();
  } catch (const ninefold::UserError&) {
  }
  return 0;
}
