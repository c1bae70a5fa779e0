// The memory that a training process really occupies is explained by the ledger: what the allocator took from the
// system, what the process had at start-up, and less than 32 MB beside.
#include <gtest/gtest.h>

#include <fstream>

#include "benchmarks/llama_training.h"

namespace ninefold {
namespace {

// The largest resident size of this process so far, in bytes.
int64_t peak_resident_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    if (word != "VmHWM:") continue;
    int64_t kibibytes = 0;
    status >> kibibytes;
    return kibibytes * 1024;
  }
  throw Error("/proc/self/status has no VmHWM");
}

// Resident bytes of the mappings for which huge pages were asked: the allocator's segments, as far as they were ever
// touched. They never go back while it lives. Zero where the kernel has no huge pages.
int64_t resident_in_huge_page_mappings() {
  std::ifstream mappings("/proc/self/smaps");
  int64_t total = 0, kibibytes = 0;
  for (std::string line; std::getline(mappings, line);) {
    if (line.rfind("Rss:", 0) == 0) kibibytes = std::stoll(line.substr(4));
    if (line.rfind("VmFlags:", 0) == 0 && line.find(" hg") != std::string::npos) total += kibibytes * 1024;
  }
  return total;
}

// Libraries load, code is generated for the first shapes.
void start_up() {
  const LlamaConfig tiny = {.dim = 32, .layers = 1, .heads = 2, .kv_heads = 2, .ffn = 64, .vocab = 64};
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) LlamaTraining({"tiny", tiny, 16, 1}, dtype).step();
}

// Trains in both types.
void expect_explained(const Configuration& configuration) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "the address sanitizer's own memory is resident too";
#endif
  start_up();
  const int64_t at_start = peak_resident_bytes();
  std::vector<std::unique_ptr<LlamaTraining>> trainings;  // kept: their memory must not go back to the system
  int64_t reserved = 0;
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
    trainings.push_back(std::make_unique<LlamaTraining>(configuration, dtype));
    for (int step = 0; step < 2; ++step) trainings.back()->step();
    reserved += trainings.back()->device().reserved();
  }
  const int64_t touched = resident_in_huge_page_mappings();
  EXPECT_LE(touched, reserved);
  const int64_t explained = at_start + (touched > 0 ? touched : reserved);
  EXPECT_LT(peak_resident_bytes() - explained, int64_t{32} << 20)
      << peak_resident_bytes() << " bytes were resident, " << explained << " are explained";
}

// Configuration b, one sequence at a time; as it is, it takes a quarter of a minute.
TEST(ResidentMemory, IsExplained) {
  Configuration configuration = configurations[1];
  configuration.batch = 1;
  expect_explained(configuration);
}

TEST(WholeProduct, ResidentMemoryIsExplained) { expect_explained(configurations[1]); }

}  // namespace
}  // namespace ninefold
