// Safetensors files of whole tensors, written by ranks that hold parts of them, and read by ranks that hold other
// parts. The placement of a parameter tells all.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "common/comm/mesh.h"
#include "common/comm/shared_file.h"
#include "common/nn/parameter.h"
#include "common/tensor/safetensors.h"

namespace ninefold {

// A tensor that training carries from step to step: what it is called in a file, what this rank holds, and of what
// whole.
struct CarriedTensor {
  std::string name;
  Tensor tensor;
  Placement placement;
  Shape whole;
  // In the file are elements of the whole that follow each other from `first` on.
  Shape shape;
  int64_t first = 0;

  // This rank's elements of those, by their places in the file's tensor and in `tensor`.
  std::vector<Piece> pieces() const;
};

// What one file holds, in the order of names (as transformers writes it), and which bytes of it are this rank's to
// write: every element is written by the first of the ranks that hold it, and padding by nobody. Holds on to the
// tensors.
class TensorFile {
 public:
  TensorFile(std::vector<CarriedTensor> tensors, const Mesh& mesh);
  TensorFile(const TensorFile&) = delete;
  TensorFile& operator=(const TensorFile&) = delete;

  // How the file begins, and how long it is; the same on all ranks.
  const std::string& header() const { return header_; }
  int64_t bytes() const { return bytes_; }
  // Ascending; they lie in the tensors, in the device's memory.
  const std::vector<FilePart>& parts() const { return parts_; }

 private:
  void add_parts(const CarriedTensor& carried, int64_t offset);
  std::vector<CarriedTensor> tensors_;
  std::string header_;
  int64_t bytes_ = 0;
  std::vector<FilePart> parts_;
};

// The bytes of files' parts as they are now, in memory of kind `host`.
struct Snapshot {
  Tensor memory;
  std::vector<std::vector<FilePart>> files;  // the parts of each
};
Snapshot snapshot_of(const DeviceHandle& device, std::initializer_list<const TensorFile*> files);
// Whether the parts of files can be written from where they are, without a snapshot.
inline bool is_written_in_place(const DeviceHandle& device) { return device->type() != DeviceType::cuda; }

// Writes whole parameters, in the type in which they are owned, under their own names. All ranks call it. Throws
// UserError on rank 0 where the file cannot be made; then an old one of that name is still there.
void save_safetensors(const std::string& path, const Mesh& mesh, const std::vector<Parameter*>& parameters);

// Fills this rank's elements of the tensors. `where` stands for the file or folder in sentences. Throws UserError for a
// tensor that is missing, or of another shape, or of another type; with `converts` floats of other types are rounded.
void load_tensors(const std::map<std::string, StoredTensor>& stored, const std::string& where,
                  const std::vector<CarriedTensor>& tensors, bool converts);

// A sentence about what is stored and has no place; empty where all of it has.
std::string warning_of_extra_tensors(const std::map<std::string, StoredTensor>& stored, const std::string& where,
                                     const std::vector<CarriedTensor>& tensors);

}  // namespace ninefold
