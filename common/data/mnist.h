// MNIST (LeCun et al. 1998) and data sets in its format: images and labels in IDX files, gzip or not.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/tensor/tensor.h"

namespace ninefold {

// An array of bytes as an IDX file holds it.
struct Idx {
  Shape shape;
  std::vector<uint8_t> values;  // row-major
};

// Reads IDX content with exactly `rank` dimensions of unsigned bytes. `name` stands for the file in sentences. Throws
// UserError for another magic number, a size that differs from the header's, or a dimension of 0.
Idx parse_idx(std::string_view content, int rank, std::string_view name);

enum class MnistSplit { train, test };

// Images of 28 x 28 grey values with the digit that each shows.
class Mnist {
 public:
  static constexpr int64_t side = 28;
  static constexpr int64_t classes = 10;

  // Reads the two files of one split by their standard names ("train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
  // with ".gz" or without. Throws UserError for whatever does not fit.
  static Mnist load(const std::string& folder, MnistSplit split);
  // Reads one file of images and one of labels.
  static Mnist load_files(const std::string& images, const std::string& labels);

  int64_t size() const { return static_cast<int64_t>(labels_.size()); }

  // Images and labels of the samples `indices`, as new tensors booked under MemoryKind::data.
  struct Batch {
    Tensor images;  // f32 [n, 1, 28, 28], (value / 255 - 0.1307) / 0.3081 as in the PyTorch example
    Tensor labels;  // i32 [n]
  };
  Batch batch(const DeviceHandle& device, const std::vector<int64_t>& indices) const;

  // Grey values 0 … 255 of one image, row by row.
  const uint8_t* image(int64_t index) const { return images_.data() + index * side * side; }
  int32_t label(int64_t index) const { return labels_.at(index); }

 private:
  std::vector<uint8_t> images_, labels_;
};

}  // namespace ninefold
