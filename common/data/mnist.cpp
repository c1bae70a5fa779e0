#include "common/data/mnist.h"

#include <algorithm>
#include <filesystem>

#include "common/data/file.h"

namespace ninefold {
namespace {

constexpr int64_t pixels = Mnist::side * Mnist::side;

uint32_t big_endian(std::string_view content, size_t offset) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<uint8_t>(content[offset + i]);
  return value;
}

// `folder`/`name` with ".gz" or without, whichever is there.
std::string find_file(const std::string& folder, const std::string& name) {
  const std::string plain = (std::filesystem::path(folder) / name).string();
  const std::string packed = plain + ".gz";
  if (std::filesystem::exists(plain)) return plain;
  require(std::filesystem::exists(packed), "{} holds neither {} nor {}.gz; name the folder of the MNIST files", folder,
          name, name);
  return packed;
}

}  // namespace

Idx parse_idx(std::string_view content, int rank, std::string_view name) {
  const size_t header = 4 + 4 * static_cast<size_t>(rank);
  require(content.size() >= header,
          "{} has {} bytes, but the header of its kind of IDX file has {}; get the file again", name, content.size(),
          header);
  // Two zeros, 8 for unsigned bytes, the number of dimensions.
  const uint32_t magic = 0x800u + static_cast<uint32_t>(rank);
  require(big_endian(content, 0) == magic,
          "{} begins with {:#010x}, but an IDX file of bytes with {} dimension(s) begins with {:#010x}; check that it "
          "is the right file",
          name, big_endian(content, 0), rank, magic);
  Idx idx;
  const uint64_t present = content.size() - header;
  uint64_t announced = 1;
  for (int i = 0; i < rank; ++i) {
    const uint32_t dimension = big_endian(content, 4 + 4 * i);
    require(dimension > 0, "{} says that its dimension {} is 0; get the file again", name, i);
    // Bounded before it is multiplied, so that no header can overflow it.
    announced = announced > present ? announced : announced * dimension;
    idx.shape.push_back(dimension);
  }
  require(announced <= present,
          "{} is cut: its header {} announces more than the {} bytes that follow; get the file again", name,
          to_string(idx.shape), present);
  require(announced == present, "{} has {} bytes more than its header {} announces; get the file again", name,
          present - announced, to_string(idx.shape));
  idx.values.assign(content.begin() + header, content.end());
  return idx;
}

Mnist Mnist::load(const std::string& folder, MnistSplit split) {
  const std::string prefix = split == MnistSplit::train ? "train" : "t10k";
  const std::string images = find_file(folder, prefix + "-images-idx3-ubyte");
  const std::string labels = find_file(folder, prefix + "-labels-idx1-ubyte");
  return load_files(images, labels);
}

Mnist Mnist::load_files(const std::string& images, const std::string& labels) {
  Idx image_file = parse_idx(read_file(images), 3, images);
  Idx label_file = parse_idx(read_file(labels), 1, labels);
  const Shape& shape = image_file.shape;
  require(shape[1] == side && shape[2] == side, "{} holds images of {} x {}, but the model takes {} x {}", images,
          shape[1], shape[2], side, side);
  require(shape[0] == label_file.shape[0], "{} holds {} images, but {} holds {} labels; give two files of one set",
          images, shape[0], labels, label_file.shape[0]);
  const auto bad =
      std::find_if(label_file.values.begin(), label_file.values.end(), [](uint8_t v) { return v >= classes; });
  require(bad == label_file.values.end(),
          "{} has the label {} at position {}, but labels are 0 to {}; get the file again", labels,
          bad == label_file.values.end() ? 0 : *bad, bad - label_file.values.begin(), classes - 1);
  Mnist set;
  set.images_ = std::move(image_file.values);
  set.labels_ = std::move(label_file.values);
  return set;
}

Mnist::Batch Mnist::batch(const DeviceHandle& device, const std::vector<int64_t>& indices) const {
  // Mean and standard deviation of MNIST's training pixels, as in the PyTorch example.
  constexpr float mean = 0.1307f, deviation = 0.3081f;
  const auto count = static_cast<int64_t>(indices.size());
  std::vector<float> images(count * pixels);
  std::vector<int32_t> labels(count);
  for (int64_t i = 0; i < count; ++i) {
    expect(indices[i] >= 0 && indices[i] < size(), "image {} of {}", indices[i], size());
    const uint8_t* source = image(indices[i]);
    std::transform(source, source + pixels, images.begin() + i * pixels,
                   [](uint8_t value) { return (static_cast<float>(value) / 255.0f - mean) / deviation; });
    labels[i] = labels_[indices[i]];
  }
  const MemoryScope scope(*device, MemoryKind::data);
  return {Tensor::from(device, {count, 1, side, side}, images), Tensor::from(device, {count}, labels)};
}

}  // namespace ninefold
