// Text as tokens, cut into windows for next-token prediction.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/tensor/tensor.h"

namespace ninefold {

// The tokens of one file, in order.
class Tokens {
 public:
  // A name ending in ".bin" (or ".bin.gz") holds tokens of 16 or 32 bits, little endian: in nanoGPT's layout (uint16,
  // nothing else) or llm.c's (a header of 256 int32 - magic, version, count - then uint16 after 20240520, 1, as for
  // GPT-2, or uint32 after 20240801, 7, as for Llama 3). Any other file, gzip or not, is text whose bytes are the
  // tokens. Throws UserError for a file that breaks its layout, and for a token that is not below `vocabulary`.
  static Tokens load(const std::string& path, int64_t vocabulary);
  // The same from content in memory. `name` chooses the layout and stands for the file in sentences.
  static Tokens parse(std::string content, const std::string& name, int64_t vocabulary);

  int64_t size() const { return static_cast<int64_t>(content_.size() - offset_) / width_; }
  int32_t operator[](int64_t index) const;
  const std::string& name() const { return name_; }

 private:
  Tokens(std::string content, std::string name, size_t offset, int width);
  void require_below(int64_t vocabulary) const;

  std::string content_, name_;
  size_t offset_;  // of the first token, in bytes
  int width_;      // bytes of a token: 1, 2 or 4
};

enum class TokenSplit {
  train,       // all but the last 5 % of the tokens
  evaluation,  // the last 5 %
};

// One part of a file's tokens as windows of `length` inputs, one after the other. Window w has the inputs
// tokens[w * length … (w + 1) * length) and the same, one token later, as its targets. Does not own the tokens.
class TokenDataset {
 public:
  // Throws UserError if the part is too short for one window.
  TokenDataset(const Tokens& tokens, TokenSplit split, int64_t length);

  // Number of windows; what is left behind the last whole one is not used.
  int64_t size() const { return (end_ - begin_ - 1) / length_; }
  int64_t length() const { return length_; }

  // The windows `indices` one after the other, as new tensors booked under MemoryKind::data.
  struct Batch {
    Tensor tokens;   // i32 [n * length]
    Tensor targets;  // i32 [n * length]
  };
  Batch batch(const DeviceHandle& device, const std::vector<int64_t>& indices) const;

 private:
  const Tokens& tokens_;
  int64_t begin_, end_;
  int64_t length_;
};

}  // namespace ninefold
