// The main function of tests of operations, and the device it chooses.
#include "tests/support/test_device.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "common/base/check.h"
#include "common/tensor/cuda/fibres/fibre_device.h"

namespace ninefold {
namespace {

std::string chosen = "cpu";

}  // namespace

DeviceHandle make_test_device() {
  if (chosen == "cpu") return make_cpu_device();
  if (chosen == "cuda") return make_cuda_device(0);
  for (const FibreOrder order : {FibreOrder::forward, FibreOrder::reverse, FibreOrder::shuffled}) {
    constexpr std::string_view names[] = {"fibres_forward", "fibres_reverse", "fibres_shuffled"};
    if (chosen == names[static_cast<int>(order)]) return make_fibre_device(order);
  }
  throw UserError("no device is called " + chosen);
}

bool test_device_is_gpu() { return chosen == "cuda"; }

bool test_device_is_slow() { return chosen != "cuda" && chosen != "cpu"; }

std::vector<int64_t> test_shifts() {
  if (test_device_is_slow()) return {1, 2, 5, 8, 15};
  return {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
}

}  // namespace ninefold

namespace {

constexpr int skipped = 77;  // as add_operation_test says

// Why there is no GPU; empty where there is one.
std::string missing_gpu() {
  try {
    ninefold::make_cuda_device(0);
    return "";
  } catch (const ninefold::UserError& error) {
    return error.what();
  }
}

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const std::string option = "--device=";
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument.substr(0, option.size()) == option) ninefold::chosen = argument.substr(option.size());
  }
  const std::string missing = ninefold::chosen == "cuda" ? missing_gpu() : "";
  if (missing.empty()) return RUN_ALL_TESTS();
  fmt::print("skipped: {}\n", missing);
  return skipped;
}
