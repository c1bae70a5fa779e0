#include "common/tensor/tensor.h"

#include <fmt/ranges.h>

namespace ninefold {

struct Tensor::Storage {
  Storage(DeviceHandle owner, int64_t size)
      : device(std::move(owner)),
        bytes(size),
        kind(device->kind()),
        allocator(device->allocator_of(kind)),
        address(allocate()) {
    device->ledger().allocated(kind, bytes);
  }
  ~Storage() {
    device->ledger().freed(kind, bytes);
    if (bytes > 0) allocator.deallocate(address, rounded(bytes));
  }
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  DeviceHandle device;
  int64_t bytes;
  MemoryKind kind;  // it may be booked as another later, and stays where it is
  Allocator& allocator;
  void* address;

 private:
  void* allocate() const {
    device->ledger().require_room(kind, bytes);
    return bytes > 0 ? allocator.allocate(rounded(bytes)) : nullptr;
  }
};

int64_t elements(const Shape& shape) {
  int64_t product = 1;
  for (const int64_t extent : shape) product *= extent;
  return product;
}

std::string to_string(const Shape& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

Tensor Tensor::handle_of(View view) {
  Tensor tensor;
  tensor.view_ = std::make_unique<View>(std::move(view)).release();
  return tensor;
}

void Tensor::release() { std::unique_ptr<View>(view_).reset(); }

Tensor Tensor::empty(const DeviceHandle& device, Shape shape, Dtype dtype) {
  const int64_t size = elements(shape);
  auto storage = std::make_shared<Storage>(device, size * size_of(dtype));
  void* const address = storage->address;
  const bool is_on_host = device->type() != DeviceType::cuda || device->kind() == MemoryKind::host;
  return handle_of({std::move(storage), std::move(shape), size, dtype, address, is_on_host});
}

Tensor Tensor::zeros(const DeviceHandle& device, Shape shape, Dtype dtype) {
  Tensor tensor = empty(device, std::move(shape), dtype);
  if (void* address = tensor.raw()) device->host_access().clear(address, tensor.bytes());
  return tensor;
}

Tensor Tensor::from_bytes(const DeviceHandle& device, Shape shape, Dtype dtype, const void* source, size_t count) {
  Tensor tensor = empty(device, std::move(shape), dtype);
  expect(static_cast<int64_t>(count) == tensor.size(), "{} values do not fill a tensor of shape {}", count,
         to_string(tensor.shape()));
  tensor.copy_from_host(source);
  return tensor;
}

void Tensor::copy_to_host(void* host) const {
  if (!raw() || size() == 0) return;
  expect(!device()->is_recording(), "the host reads or writes a device that records what it is told");
  device()->host_access().to_host(host, raw(), bytes());
}

void Tensor::copy_from_host(const void* host) const {
  if (!raw() || size() == 0) return;
  expect(!device()->is_recording(), "the host reads or writes a device that records what it is told");
  device()->host_access().from_host(raw(), host, bytes());
}

const Shape& Tensor::shape() const {
  static const Shape none;
  return view_ ? view_->shape : none;
}

const DeviceHandle& Tensor::device() const {
  expect(defined(), "an undefined tensor has no device");
  return view_->storage->device;
}

MemoryKind Tensor::kind() const {
  expect(defined(), "an undefined tensor has no memory");
  return view_->storage->kind;
}

void Tensor::book_as(MemoryKind kind) const {
  expect(defined(), "an undefined tensor has no memory");
  Storage& storage = *view_->storage;
  storage.device->ledger().freed(storage.kind, storage.bytes);
  storage.kind = kind;
  storage.device->ledger().allocated(kind, storage.bytes);
}

Tensor Tensor::reshape(Shape new_shape) const {
  expect(elements(new_shape) == size(), "shape {} does not hold the {} elements of {}", to_string(new_shape), size(),
         to_string(shape()));
  return slice(0, std::move(new_shape));
}

Tensor Tensor::rows(int64_t begin, int64_t end) const {
  expect(rank() > 0 && 0 <= begin && begin <= end && end <= dim(0), "rows [{}, {}) of a tensor of shape {}", begin, end,
         to_string(shape()));
  Shape some = shape();
  some[0] = end - begin;
  const int64_t row = dim(0) > 0 ? size() / dim(0) : 0;
  return slice(begin * row, std::move(some));
}

Tensor Tensor::slice(int64_t offset, Shape new_shape) const {
  expect(defined(), "an undefined tensor has no elements");
  const int64_t count = elements(new_shape);
  expect(0 <= offset && offset + count <= size(), "elements [{}, {}) of a tensor of shape {}", offset, offset + count,
         to_string(shape()));
  auto* const first = static_cast<std::byte*>(raw());
  void* const address = first ? first + offset * size_of(dtype()) : nullptr;
  return handle_of({view_->storage, std::move(new_shape), count, dtype(), address, view_->is_on_host});
}

}  // namespace ninefold
