// A model in one file, written from shards.
#include <gtest/gtest.h>

#include "common/comm/control.h"
#include "common/train/tensor_files.h"
#include "tests/support/safetensors.h"
#include "tests/support/temporary_folder.h"

namespace ninefold {
namespace {

TEST(SafetensorsHeader, GivesEveryTensorItsPlace) {
  const std::string header = safetensors_header({{"b", Dtype::f32, {2, 3}}, {"a", Dtype::bf16, {5}}});
  EXPECT_EQ(header.size() % 8, 0u);
  uint64_t length = 0;
  std::memcpy(&length, header.data(), sizeof length);
  ASSERT_EQ(length, header.size() - sizeof length);
  EXPECT_EQ(header.substr(8, header.find_last_not_of(' ') - 7),
            R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
            R"("a":{"dtype":"BF16","shape":[5],"data_offsets":[24,34]}})");
}

// Three parameters of which each rank owns a part, none of the same length; the last one is whole everywhere.
TEST(SaveSafetensors, JoinsTheParts) {
  const TemporaryFolder folder;
  World world({.device = make_cpu_device()}, mpi_collectives());
  const Mesh mesh(world, {{"dp_shard", 0}});
  std::vector<Parameter> parameters;
  for (const Shape& shape : {Shape{7, 3}, Shape{40}, Shape{5}}) {
    Parameter& parameter = parameters.emplace_back(shape, ops::Distribution{.kind = ops::Distribution::Kind::normal});
    parameter.name = fmt::format("parameter{}", parameters.size());
    const int64_t size = parameter.size(), begin = size * world.rank() / world.size();
    const int64_t end = size * (world.rank() + 1) / world.size();
    if (shape.front() != 5) parameter.placement.flat = {begin, end - begin, {"dp_shard"}};
    parameter.owned.value = Tensor::empty(world.device(), parameter.local_shape(), Dtype::f32);
    parameter.initialise(parameter.owned.value, 3);
  }
  std::vector<Parameter*> all;
  for (Parameter& parameter : parameters) all.push_back(&parameter);
  const std::string path = control::broadcast_bytes(world.group(), folder.path("model.safetensors"));
  save_safetensors(path, mesh, all);
  if (world.rank() != 0) return;
  EXPECT_EQ(folder.files(), 1);
  const GoldenFile file = read_safetensors(path);
  EXPECT_EQ(file.metadata.at("format"), "pt");
  ASSERT_EQ(file.tensors.size(), 3u);
  for (Parameter& parameter : parameters) {
    parameter.placement = {};
    const Tensor whole = Tensor::empty(world.device(), parameter.shape, Dtype::f32);
    parameter.initialise(whole, 3);
    EXPECT_EQ(file[parameter.name].shape, parameter.shape);
    EXPECT_EQ(file[parameter.name].floats, whole.to_vector<float>()) << parameter.name;
  }
}

}  // namespace
}  // namespace ninefold
