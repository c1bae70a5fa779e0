// Feeds the reader of token files in all layouts: it throws UserError or gives tokens below the vocabulary.
#include <cstdlib>

#include "common/data/file.h"
#include "common/data/tokens.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  constexpr int64_t vocabulary = 60'000;
  const std::string name = data[0] % 4 == 0 ? "file.txt" : "file.bin";
  try {
    const std::string content(reinterpret_cast<const char*>(data + 1), size - 1);
    const auto tokens = ninefold::Tokens::parse(ninefold::unpacked(content, name), name, vocabulary);
    for (int64_t i = 0; i < tokens.size(); ++i) {
      if (tokens[i] < 0 || tokens[i] >= vocabulary) std::abort();
    }
  } catch (const ninefold::UserError&) {
  }
  return 0;
}
