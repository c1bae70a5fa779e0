// The MNIST program of chapter 03 as a user starts it: the test after each epoch, and the file of --save-model.
#include <cstring>
#include <nlohmann/json.hpp>

#include "tests/support/black_images.h"
#include "tests/support/command.h"

namespace ninefold {
namespace {

// Runs 03/mnist in the folder; what it saved lies there.
std::string run(const TemporaryFolder& folder, int ranks, const std::string& options) {
  const std::string line = fmt::format("sh -c 'cd {} && exec {} --no-measure-peak --collectives ordered {}'",
                                       folder.path(""), NINEFOLD_03_MNIST, options);
  Command command(ranks, line);
  EXPECT_EQ(command.finish(), 0) << command.output();
  return command.output();
}

// One rank that adds up two micro-batches adds what two ranks add.
TEST(Mnist, TwoRanksSaveTheModelOfOneToTheBit) {
  const TemporaryFolder one, two;
  const std::string options = "--steps 12 --batch-size 32 --save-model";
  run(one, 1, options + " --micro-batches 2 --reduce-each-micro-batch");
  run(two, 2, options);
  const std::string saved = two.read("mnist_cnn.safetensors");
  EXPECT_TRUE(saved == one.read("mnist_cnn.safetensors"));
  EXPECT_EQ(two.files(), 1);
  uint64_t length = 0;
  ASSERT_GT(saved.size(), sizeof length);
  std::memcpy(&length, saved.data(), sizeof length);
  const auto header = nlohmann::json::parse(saved.substr(sizeof length, length));
  EXPECT_EQ(header.size(), 9u) << "eight tensors and the metadata";
  EXPECT_EQ(header["fc1.weight"]["shape"], nlohmann::json({128, 9216}));
  EXPECT_EQ(header["fc2.weight"]["data_offsets"][1], saved.size() - sizeof length - length)
      << "the last one ends the file";
}

// In two forwards, of 30 images and of 7.
TEST(Mnist, IsTestedOnAllImagesAfterEachEpoch) {
  const TemporaryFolder folder, data;
  write_black_images(data, "train", 50);
  write_black_images(data, "t10k", 37);
  const std::string output =
      run(folder, 2,
          fmt::format("--data {} --epochs 2 --batch-size 20 --test-batch-size 30 --lr 0.5 --gamma 0.5 --stage 2",
                      data.path("")));
  const auto tests = lines_of(output, "after ");
  ASSERT_EQ(tests.size(), 2u) << output;
  EXPECT_TRUE(tests[0].starts_with("after 2 steps: evaluation loss ")) << tests[0];
  EXPECT_TRUE(tests[1].starts_with("after 4 steps: evaluation loss ")) << tests[1];
  EXPECT_TRUE(tests[1].ends_with(" % of 37 images")) << tests[1];
  EXPECT_NE(output.find("books balanced"), std::string::npos) << output;
  EXPECT_EQ(folder.files(), 0);
}

}  // namespace
}  // namespace ninefold
