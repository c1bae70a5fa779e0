// Text from a model, one token after the other.
#pragma once

#include <cstdint>
#include <vector>

#include "common/base/random.h"
#include "common/nn/llama.h"

namespace ninefold {

struct Sampling {
  double temperature = 1;  // the scores are divided by it; 0: always the token with the highest score
  int64_t top_k = 0;       // only so many with the highest scores are drawn from; 0: all
};

// Draws from softmax(scores / temperature). `scores`: of one row, of any float type.
int32_t choose_token(const Tensor& scores, const Sampling& sampling, RandomStream& random);

// A Llama that remembers the tokens it was given. Puts attention with a cache in place of each layer's core.
class Generator {
 public:
  // The model is materialised, whole or divided over tensor-parallel ranks that all give it the same tokens; it
  // outlives the generator.
  Generator(Model& model, const LlamaConfig& config, const DeviceHandle& device);

  // The scores [1, vocabulary] of what follows after these tokens and all before.
  Tensor feed(const std::vector<int32_t>& tokens);

 private:
  Model& model_;
  DeviceHandle device_;
  int64_t length_ = 0;  // tokens fed
};

}  // namespace ninefold
