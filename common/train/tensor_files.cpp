#include "common/train/tensor_files.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "common/base/open_file.h"
#include "common/train/gather.h"

namespace ninefold {
namespace {

// This rank's elements, where the stored ones are of the same type.
void copy_pieces(const CarriedTensor& carried, std::string_view bytes) {
  const int64_t width = size_of(carried.tensor.dtype());
  for (const Piece& piece : carried.pieces()) {
    carried.tensor.slice(piece.local_offset, {piece.length}).copy_from_host(bytes.data() + piece.global_offset * width);
  }
}

void convert_pieces(const CarriedTensor& carried, const StoredTensor& stored) {
  const DeviceHandle& device = carried.tensor.device();
  const MemoryScope scope(*device, MemoryKind::workspace);
  const Dtype dtype = stored.dtype.value();
  const int64_t width = size_of(dtype);
  for (const Piece& piece : carried.pieces()) {
    const Tensor other = Tensor::empty(device, {piece.length}, dtype);
    other.copy_from_host(stored.bytes.data() + piece.global_offset * width);
    ops::copy_(carried.tensor.slice(piece.local_offset, {piece.length}), other);
  }
}

}  // namespace

std::vector<Piece> CarriedTensor::pieces() const {
  std::vector<Piece> inside;
  const int64_t last = first + elements(shape);
  for (const Piece& piece : placement.pieces(whole)) {
    const int64_t begin = std::max(piece.global_offset, first);
    const int64_t end = std::min(piece.global_offset + piece.length, last);
    if (begin < end) inside.push_back({begin - first, piece.local_offset + begin - piece.global_offset, end - begin});
  }
  return inside;
}

TensorFile::TensorFile(std::vector<CarriedTensor> tensors, const Mesh& mesh) : tensors_(std::move(tensors)) {
  std::sort(tensors_.begin(), tensors_.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  std::vector<TensorEntry> entries;
  for (const CarriedTensor& carried : tensors_) {
    entries.push_back({carried.name, carried.tensor.dtype(), carried.shape});
  }
  header_ = safetensors_header(entries);
  bytes_ = static_cast<int64_t>(header_.size());
  for (size_t i = 0; i < tensors_.size(); ++i) {
    if (holds_first_copy(tensors_[i].placement, mesh)) add_parts(tensors_[i], bytes_);
    bytes_ += entries[i].bytes();
  }
}

// Pieces that follow each other both here and in the file are one part.
void TensorFile::add_parts(const CarriedTensor& carried, int64_t offset) {
  const int64_t width = size_of(carried.tensor.dtype());
  std::vector<Piece> pieces = carried.pieces();
  std::sort(pieces.begin(), pieces.end(),
            [](const Piece& a, const Piece& b) { return a.global_offset < b.global_offset; });
  for (const Piece& piece : pieces) {
    const char* const data = static_cast<const char*>(carried.tensor.raw()) + piece.local_offset * width;
    const FilePart part{offset + piece.global_offset * width, data, piece.length * width};
    FilePart* const last = parts_.empty() ? nullptr : &parts_.back();
    const bool follows = last && last->offset + last->bytes == part.offset && last->data + last->bytes == part.data;
    if (follows) last->bytes += part.bytes;
    if (!follows && part.bytes > 0) parts_.push_back(part);
  }
}

Snapshot snapshot_of(const DeviceHandle& device, std::initializer_list<const TensorFile*> files) {
  int64_t bytes = 0;
  for (const TensorFile* file : files) {
    for (const FilePart& part : file->parts()) bytes += part.bytes;
  }
  const MemoryScope scope(*device, MemoryKind::host);
  Snapshot snapshot{Tensor::empty(device, {(bytes + 3) / 4}, Dtype::i32), {}};
  char* target = static_cast<char*>(snapshot.memory.raw());
  for (const TensorFile* file : files) {
    auto& parts = snapshot.files.emplace_back();
    for (const FilePart& part : file->parts()) {
      device->host_access().to_host(target, part.data, part.bytes);
      parts.push_back({part.offset, target, part.bytes});
      target += part.bytes;
    }
  }
  return snapshot;
}

void save_safetensors(const std::string& path, const Mesh& mesh, const std::vector<Parameter*>& parameters) {
  std::vector<CarriedTensor> tensors;
  for (const Parameter* parameter : parameters) {
    tensors.push_back(
        {parameter->name, parameter->owned.value, parameter->placement, parameter->shape, parameter->shape});
  }
  const TensorFile file(std::move(tensors), mesh);
  const std::string unfinished = path + ".tmp";
  const Group& world = mesh.world().group();
  if (world.rank() == 0) create_shared_file(unfinished, file.header(), file.bytes());
  world.barrier();
  const DeviceHandle& device = mesh.world().device();
  const bool in_place = is_written_in_place(device);
  const Snapshot snapshot = in_place ? Snapshot() : snapshot_of(device, {&file});
  write_together(unfinished, in_place ? file.parts() : snapshot.files[0]);
  world.barrier();
  if (world.rank() != 0) return;
  require(rename_on_disk(unfinished, path), "{} cannot be written: {}; choose another place", path,
          std::strerror(errno));
}

void load_tensors(const std::map<std::string, StoredTensor>& stored, const std::string& where,
                  const std::vector<CarriedTensor>& tensors, bool converts) {
  for (const CarriedTensor& carried : tensors) {
    const auto found = stored.find(carried.name);
    require(found != stored.end(), "{} has no tensor {}, which this model needs", where, carried.name);
    const StoredTensor& tensor = found->second;
    require(tensor.shape == carried.shape, "{}: {} has the shape {}, but this model needs {}", where, carried.name,
            to_string(tensor.shape), to_string(carried.shape));
    const Dtype needed = carried.tensor.dtype();
    require(tensor.dtype == needed || (converts && tensor.dtype && is_float(*tensor.dtype)),
            "{}: {} is of type {}, but this model needs {}", where, carried.name, tensor.type, format_name(needed));
    tensor.dtype == needed ? copy_pieces(carried, tensor.bytes) : convert_pieces(carried, tensor);
  }
}

std::string warning_of_extra_tensors(const std::map<std::string, StoredTensor>& stored, const std::string& where,
                                     const std::vector<CarriedTensor>& tensors) {
  std::set<std::string> used;
  for (const CarriedTensor& carried : tensors) used.insert(carried.name);
  std::string first;
  int64_t extra = 0;
  for (const auto& [name, tensor] : stored) {
    if (used.contains(name)) continue;
    if (extra++ == 0) first = name;
  }
  if (extra == 0) return "";
  return fmt::format("warning: {} has {} tensor(s) that this model does not have, and leaves out: {}{}\n", where, extra,
                     first, extra > 1 ? ", …" : "");
}

}  // namespace ninefold
