// A dense, row-major array on a device.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
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
// undefined. Views are contiguous ranges along the first dimension and reshapes; nothing is strided. Copies are counted
// without locks: the tensors of a rank belong to its one thread.
class Tensor {
 public:
  Tensor() = default;
  Tensor(const Tensor& other) : view_(other.view_) {
    if (view_) ++view_->handles;
  }
  Tensor(Tensor&& other) noexcept : view_(std::exchange(other.view_, nullptr)) {}
  Tensor& operator=(Tensor other) noexcept {
    std::swap(view_, other.view_);
    return *this;
  }
  ~Tensor() {
    if (view_ && --view_->handles == 0) release();
  }

  // New storage, contents unspecified, booked under the device's present memory kind.
  static Tensor empty(const DeviceHandle& device, Shape shape, Dtype dtype);
  static Tensor zeros(const DeviceHandle& device, Shape shape, Dtype dtype);
  // Copies `values` into a new tensor of type f32 or i32 (T is float or int32_t).
  template <typename T>
  static Tensor from(const DeviceHandle& device, Shape shape, const std::vector<T>& values) {
    return from_bytes(device, std::move(shape), DtypeOf<T>::value, values.data(), values.size());
  }

  bool defined() const { return view_ != nullptr; }
  // Under which its storage is booked.
  MemoryKind kind() const;
  // From now on it is booked under another kind: what it is for has changed.
  void book_as(MemoryKind kind) const;
  const Shape& shape() const;
  // Negative dimensions count from the end.
  int64_t dim(int index) const { return shape().at(index < 0 ? shape().size() + index : index); }
  int rank() const { return static_cast<int>(shape().size()); }
  int64_t size() const { return view_ ? view_->size : 0; }
  int64_t bytes() const { return size() * size_of(dtype()); }
  Dtype dtype() const { return view_ ? view_->dtype : Dtype::f32; }
  const DeviceHandle& device() const;

  // Address of the first element, for the host to read and write. T must match the dtype; nullptr on meta, an error on
  // devices whose memory the host does not reach: there `from` and `to_vector` copy, and operations do the rest.
  template <typename T>
  T* data() const {
    expect(!view_ || view_->is_on_host, "the host cannot read and write the memory of a device directly");
    return address<T>();
  }
  // The same on the device: for its kernels and for communication.
  template <typename T>
  T* address() const {
    expect(DtypeOf<T>::value == dtype(), "a {} tensor read as {}", name_of(dtype()), name_of(DtypeOf<T>::value));
    return static_cast<T*>(raw());
  }
  void* raw() const { return view_ ? view_->address : nullptr; }

  // The same elements under another shape of equal size.
  Tensor reshape(Shape new_shape) const;
  // Rows [begin, end) of the first dimension, as a view.
  Tensor rows(int64_t begin, int64_t end) const;
  // `elements(new_shape)` consecutive elements from `offset` of this tensor's row-major order, as a view.
  Tensor slice(int64_t offset, Shape new_shape) const;
  bool shares_storage_with(const Tensor& other) const {
    return view_ && other.view_ && view_->storage == other.view_->storage;
  }

  // Copies the elements to the host. T must match the dtype.
  template <typename T>
  std::vector<T> to_vector() const {
    std::vector<T> values(static_cast<size_t>(size()));
    if (address<T>()) copy_to_host(values.data());
    return values;
  }
  // Copies `bytes()` bytes to and from memory of the host.
  void copy_to_host(void* host) const;
  void copy_from_host(const void* host) const;

 private:
  struct Storage;
  // What a tensor and its copies are: some of the elements of a storage, under a shape.
  struct View {
    std::shared_ptr<Storage> storage;
    Shape shape;
    int64_t size;
    Dtype dtype;
    void* address;  // of the first element; nullptr where there is none
    bool is_on_host;
    int64_t handles = 1;
  };

  static Tensor from_bytes(const DeviceHandle& device, Shape shape, Dtype dtype, const void* source, size_t count);
  static Tensor handle_of(View view);
  void release();

  View* view_ = nullptr;  // owned by its handles together
};

}  // namespace ninefold
