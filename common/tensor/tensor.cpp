#include "common/tensor/tensor.h"

#include <fmt/ranges.h>

#include <cstring>

namespace ninefold {

struct Tensor::Storage {
  Storage(DeviceHandle owner, int64_t size)
      : device(std::move(owner)), bytes(rounded(size)), kind(device->kind()),
        address(bytes > 0 ? device->allocator().allocate(bytes) : nullptr) {
    device->ledger().allocated(kind, bytes);
  }
  ~Storage() {
    device->ledger().freed(kind, bytes);
    if (bytes > 0) device->allocator().deallocate(address, bytes);
  }
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  DeviceHandle device;
  int64_t bytes;
  MemoryKind kind;
  void* address;
};

int64_t elements(const Shape& shape) {
  int64_t product = 1;
  for (const int64_t extent : shape) product *= extent;
  return product;
}

std::string to_string(const Shape& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

Tensor Tensor::empty(const DeviceHandle& device, Shape shape, Dtype dtype) {
  Tensor tensor;
  tensor.size_ = elements(shape);
  tensor.shape_ = std::move(shape);
  tensor.dtype_ = dtype;
  tensor.storage_ = std::make_shared<Storage>(device, tensor.bytes());
  return tensor;
}

Tensor Tensor::zeros(const DeviceHandle& device, Shape shape, Dtype dtype) {
  Tensor tensor = empty(device, std::move(shape), dtype);
  if (void* address = tensor.raw()) std::memset(address, 0, static_cast<size_t>(tensor.bytes()));
  return tensor;
}

Tensor Tensor::from_bytes(const DeviceHandle& device, Shape shape, Dtype dtype, const void* source, size_t count) {
  Tensor tensor = empty(device, std::move(shape), dtype);
  expect(static_cast<int64_t>(count) == tensor.size_, "{} values do not fill a tensor of shape {}", count,
         to_string(tensor.shape_));
  if (tensor.raw() && count > 0) std::memcpy(tensor.raw(), source, static_cast<size_t>(tensor.bytes()));
  return tensor;
}

const DeviceHandle& Tensor::device() const {
  expect(defined(), "an undefined tensor has no device");
  return storage_->device;
}

MemoryKind Tensor::kind() const {
  expect(defined(), "an undefined tensor has no memory");
  return storage_->kind;
}

void* Tensor::raw() const {
  if (!storage_ || !storage_->address) return nullptr;
  return static_cast<std::byte*>(storage_->address) + offset_ * size_of(dtype_);
}

Tensor Tensor::reshape(Shape shape) const { 
  expect(elements(shape) == size_, "shape {} does not hold the {} elements of {}", to_string(shape), size_,
         to_string(shape_));
  Tensor view = *this;
  view.shape_ = std::move(shape);
  return view;
}

Tensor Tensor::rows(int64_t begin, int64_t end) const {
  expect(rank() > 0 && 0 <= begin && begin <= end && end <= dim(0), "rows [{}, {}) of a tensor of shape {}", begin,
         end, to_string(shape_));
  Shape shape = shape_;
  shape[0] = end - begin;
  const int64_t row = dim(0) > 0 ? size_ / dim(0) : 0;
  return slice(begin * row, std::move(shape));
}

Tensor Tensor::slice(int64_t offset, Shape shape) const {
  const int64_t count = elements(shape);
  expect(0 <= offset && offset + count <= size_, "elements [{}, {}) of a tensor of shape {}", offset, offset + count,
         to_string(shape_));
  Tensor view = *this;
  view.offset_ += offset;
  view.size_ = count;
  view.shape_ = std::move(shape);
  return view;
}

}  // namespace ninefold
