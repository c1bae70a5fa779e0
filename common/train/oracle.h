// The oracle: a serial model, freshly built and never parallelised, that computes what the parallel run should have.
//
// It lives on rank 0, on a device of its own, outside all books. Before a checked step it takes over the parallel
// run's parameters and optimizer state; then it makes the same step, with the sums grouped alike, and every rank
// compares its own elements:
//   gradients   one buffer per data rank, that rank's micro-batches added into it, then the buffers in rank order.
//               Bit-identical techniques must have the same bits. Bounded ones, for a tensor t with n of the model's N
//               elements, f32: |d_t| <= 1e-5 · max(|ref_t|, |ref| · sqrt(n / N)).
//               bf16, f16, f8: the distance to the f32 serial gradient is at most 1.5 times the serial run's own, on
//               the same scale: max(|own_t|, |own| · sqrt(n / N)), plus the bound of f32. Where layers' partial sums
//               are added over p ranks in bf16 or f16, each of them is rounded, and each of the sums of 2, 3, … p: by
//               variance 1 + (2 + 3 + … + p) / p roundings in place of one, and the distance by the root of that.
//   routing     of a mixture of experts: the serial model takes the parallel run's choices, and drops whom that
//               dropped, so that one token's does not move everything behind it; where it would have decided otherwise
//               by itself, its scores may differ by 1e-5 (bf16, f16: 2e-2). Such tokens are listed.
//   loss        bit-identical: the same bits; bounded: within 1e-6 of it; narrow types: plus 1.5 times the relative
//               distance of the whole serial gradient to f32, because partial sums may be rounded in the forward too.
//   update      the serial optimizer is fed the parallel gradients, and the norm that clips them, and must give the
//               same bits. The norm: bit-identical, the serial one; bounded, within 1e-12 of it.
#pragma once

#include <memory>
#include <string>

#include "common/comm/world.h"
#include "common/nn/routing.h"
#include "common/optim/loss_scale.h"
#include "common/optim/optimizer.h"
#include "common/train/batches.h"
#include "common/train/numerics.h"
#include "common/train/serial_model.h"

namespace ninefold {

struct CheckResult {
  bool passed = true;
  int64_t steps = 0;  // compared so far
  double loss_max_abs = 0;
  // |d_t| / max(|ref_t|, |ref| · sqrt(n / N)), the largest of all tensors, steps and ranks
  double gradient_max_rel = 0;
  double parameter_max_rel = 0;  // the same after the update; 0 means the same bits
  std::string worst_parameter;   // where gradient_max_rel was found
  // Tokens that the serial model would have routed otherwise, and how much it would have preferred that.
  int64_t routed_otherwise = 0;
  double largest_gap = 0;
  // Of products in f8: how far the serial run's whole gradient is from that in f32, relative, and its loss; the largest
  // of all steps. 0 where there are none.
  double f8_gradient_rel = 0, f8_loss_abs = 0;
};

class Oracle {
 public:
  // Gives the serial model's parameters the values that layers compute with, tensors of their own, from those owned.
  using FillValues = std::function<void(const std::vector<Parameter*>& whole)>;
  // All ranks make one; the serial model exists on rank 0 only. `model` and `optimizer` are the parallel run's, which
  // adds gradients up as `grouping` says and claims `numerics`. Without `fill_values` they are cast, if anything.
  Oracle(World& world, const Task& task, const TrainOptions& options, int data_ranks, const SumGrouping& grouping,
         Numerics numerics, Model& model, Optimizer& optimizer, FillValues fill_values = {});

  // Takes over the parallel run's state.
  void begin_step(const GlobalBatch& batch, const LossScaler& scaler);
  // After the gradients were reduced and unscaled, before clipping: computes the serial loss and gradients, while the
  // other ranks wait, and compares them and the loss (mean over the global batch). `norm` is what the parallel run
  // found of them. Where they overflowed, the serial ones must have, too. `routing`: what this rank's routers chose.
  void compare_gradients(double loss, double norm, const RoutingRecord& routing);
  // After the update with learning rate `lr`, which is none if the gradients overflowed; `scaler` follows it.
  void compare_update(double lr, double norm, const LossScaler& scaler);

  // The same on all ranks.
  const CheckResult& result() const { return result_; }
  // Peak bytes of the oracle's device on this rank.
  int64_t peak_bytes() const;

 private:
  // What one rank found over all parameters.
  struct Verdict {
    double worst = 0;
    size_t worst_index = 0;
    bool passed = true;
    void add(double relative, bool within, size_t index);
  };
  bool bit_identical() const { return numerics_ == Numerics::bit_identical; }
  // The bound of narrow types is measured from the f32 serial gradient.
  bool is_bounded_by_rounding() const { return !bit_identical() && options_.precision().is_narrow(); }
  bool has_f8() const { return !options_.f8_linears.empty(); }
  void take_over();
  void compute_serial(const RoutingRecord& routing);
  // Whether the serial model would have routed alike.
  bool compare_routing();
  // Whether this rank's buffers are what the serial model's have become.
  bool same_buffers();
  // Norms of the whole serial gradient, and of its distance to f32 (0 where it is f32).
  struct Norms {
    double reference = 0, own_distance = 0;
  };
  Norms serial_norms() const;
  // Whether the serial gradients overflowed.
  bool serial_overflows() const;
  void compare_gradient(size_t index, const Norms& norms, Verdict& verdict) const;
  // Joins the ranks' verdicts into the result and makes `verdict` the worst of them; returns its figure.
  double merge(Verdict& verdict);

  World& world_;
  const Task& task_;
  const TrainOptions& options_;
  Model& model_;
  Optimizer& optimizer_;
  Numerics numerics_;
  double gradient_factor_;  // of the serial run's own rounding
  FillValues fill_values_;
  std::vector<Parameter*> parameters_;
  int64_t total_elements_ = 0;
  std::unique_ptr<SerialModel> serial_;     // in the parallel run's precision
  std::unique_ptr<SerialModel> reference_;  // in f32, for the bound where serial_ is not
  LossScaler scaler_;                       // of the serial run
  GlobalBatch batch_{};                     // of the step at hand
  double serial_loss_ = 0, reference_loss_ = 0;
  RoutingRecord serial_routing_;
  CheckResult result_;
};

}  // namespace ninefold
