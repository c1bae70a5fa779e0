// Matrix products of a device: by cuBLASLt in device/, by a loop in fibres/.
#pragma once

#include <gpu.h>  // of device/ or of fibres/

#include <memory>
#include <string>

#include "common/tensor/ops.h"

namespace ninefold::NINEFOLD_GPU {

class Products {
 public:
  explicit Products(Stream stream);
  ~Products();
  Products(const Products&) = delete;
  Products& operator=(const Products&) = delete;

  // As ops::matmul_into, times `scale`, of matrices that are not empty. 8-bit floats are multiplied as a · bᵀ only,
  // where all extents and addresses are multiples of 16.
  void multiply(const Tensor& out, const Tensor& a, const Tensor& b, const ops::MatmulOptions& options,
                float scale = 1);
  // Whether it multiplies 8-bit floats.
  bool has_f8() const;

  // What multiplies, for the report.
  std::string description() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ninefold::NINEFOLD_GPU
