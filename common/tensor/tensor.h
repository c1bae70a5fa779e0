// A dense, row-major array on a device.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/base/check.h"
#include "common/tensor/device.h"
#include "common/tensor/dtype.h"

namespace ninefold {

using Shape = std::vector<int64_t>;

// Product of the dimensions; 1 for an empty shape.
int64_t elements(const Shape& shape);
// "[2048, 512]"
std::string to_string(const Shape& shape);

// A handle: copies share storage, and the storage lives as long as any of them. A default-constructed tensor is
// undefined. Views are contiguous ranges along the first dimension and reshapes; nothing is strided.
class Tensor {
 public:
  Tensor() = default;

  // New storage, contents unspecified, booked under the device's present memory kind.
  static Tensor empty(const DeviceHandle& device, Shape shape, Dtype dtype);
  static Tensor zeros(const DeviceHandle& device, Shape shape, Dtype dtype);
  // Copies `values` into a new tensor of type f32 or i32 (T is float or int32_t).
  template <typename T>
  static Tensor from(const DeviceHandle& device, Shape shape, const std::vector<T>& values) {
    return from_bytes(device, std::move(shape), DtypeOf<T>::value, values.data(), values.size());
  }

  bool defined() const { return storage_ != nullptr; }
  // Under which its storage is booked.
  MemoryKind kind() const;
  const Shape& shape() const { return shape_; }
  // Negative dimensions count from the end.
  int64_t dim(int index) const { return shape_.at(index < 0 ? shape_.size() + index : index); }
  int rank() const { return static_cast<int>(shape_.size()); }
  int64_t size() const { return size_; }
  int64_t bytes() const { return size_ * size_of(dtype_); }
  Dtype dtype() const { return dtype_; }
  const DeviceHandle& device() const;

  // Address of the first element, typed. T must match the dtype; nullptr on meta.
  template <typename T>
  T* data() const {
    expect(DtypeOf<T>::value == dtype_, "a {} tensor read as {}", name_of(dtype_), name_of(DtypeOf<T>::value));
    return static_cast<T*>(raw());
  }
  void* raw() const;

  // The same elements under another shape of equal size.
  Tensor reshape(Shape shape) const;
  // Rows [begin, end) of the first dimension, as a view.
  Tensor rows(int64_t begin, int64_t end) const;
  // `elements(shape)` consecutive elements from `offset` of this tensor's row-major order, as a view.
  Tensor slice(int64_t offset, Shape shape) const;
  bool shares_storage_with(const Tensor& other) const { return storage_ && storage_ == other.storage_; }

  // Copies the elements to the host. T must match the dtype.
  template <typename T>
  std::vector<T> to_vector() const {
    const T* begin = data<T>();
    return std::vector<T>(begin, begin + size_);
  }

 private:
  struct Storage;
  static Tensor from_bytes(const DeviceHandle& device, Shape shape, Dtype dtype, const void* source, size_t count);

  std::shared_ptr<Storage> storage_;
  Shape shape_;
  int64_t size_ = 0;
  int64_t offset_ = 0;  // in elements
  Dtype dtype_ = Dtype::f32;
};

}  // namespace ninefold
