// The safetensors format (https://huggingface.co/docs/safetensors): eight bytes that give the length of a header, the
// header in JSON (every tensor's type, shape and place), and the tensors' bytes one after the other.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/mapped_file.h"
#include "common/tensor/tensor.h"

namespace ninefold {

// What a file tells of one tensor.
struct TensorEntry {
  std::string name;
  Dtype dtype;
  Shape shape;
  int64_t bytes() const { return elements(shape) * size_of(dtype); }
};

// "F32", "BF16", …
std::string_view format_name(Dtype dtype);

// The beginning of a file that holds these tensors in this order: length and header, filled up with spaces to a
// multiple of 8 bytes.
std::string safetensors_header(const std::vector<TensorEntry>& tensors);

// A tensor in a file. Its bytes may lie at any address.
struct StoredTensor {
  std::string type;            // as the format calls it
  std::optional<Dtype> dtype;  // none: a type of the format that there are no tensors of here
  Shape shape;
  std::string_view bytes;
};

// What a file holds, by name.
struct StoredTensors {
  std::map<std::string, StoredTensor> tensors;
  std::map<std::string, std::string> metadata;
};

// Reads the content of a file, to which what it returns points. `name` stands for the file in sentences. As strict as
// the format: throws UserError unless the header is what it should be, and the tensors, each of the size that its type
// and shape give, cover all that follows it exactly once. They may be of any type of the format.
StoredTensors parse_safetensors(std::string_view content, const std::string& name);

// A file that stays open, so that its tensors can be looked at.
class SafetensorsFile {
 public:
  // Throws UserError, too, for a file that cannot be read.
  explicit SafetensorsFile(const std::string& path)
      : file_(std::make_unique<MappedFile>(path)), content_(parse_safetensors(file_->bytes(), path)) {}

  const std::map<std::string, StoredTensor>& tensors() const { return content_.tensors; }
  const std::map<std::string, std::string>& metadata() const { return content_.metadata; }

 private:
  std::unique_ptr<MappedFile> file_;
  StoredTensors content_;
};

}  // namespace ninefold
