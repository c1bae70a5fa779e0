// What a forward keeps for its backward. Layers hold no hidden state: everything lives in the Saved passed in.
#pragma once

#include <array>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "common/nn/recomputation.h"
#include "common/tensor/tensor.h"

namespace ninefold {

struct RoutingRecord;

// What a layer needs to know beyond its input: which step and which micro-batch this is.
struct Step {
  int64_t number = 0;           // of the training step, from 0
  int64_t first_sample = 0;     // global index of the micro-batch's first sample within the step's global batch
  int64_t rows_per_sample = 1;  // rows of an activation that belong to one sample: the sequence length, or 1 for images
  Tensor positions;             // i32 [rows_per_sample], of the rows within their sequence; the same for every sequence
  Tensor targets;               // i32 [rows]
  int64_t global_targets = 1;   // targets in the global batch: the loss is their mean
  double loss_scale = 1;        // the backward starts from the loss times this
  uint64_t seed = 0;            // of dropout
  bool training = true;         // dropout is on, and a backward will follow
  bool recomputing = false;     // a forward is being run again: whatever counts, has counted
  Tensor losses;                // f32 [rows], set by the loss
  // Mixtures of experts: where routers book what they find, and whose choices they take instead of their own. Both may
  // be absent, and outlive the Saved.
  RoutingRecord* routing = nullptr;
  const RoutingRecord* replay = nullptr;
  std::vector<int64_t> batch_load{};  // choices of each expert by all layers of this forward, set by the routers
};

// The memory of one micro-batch on one stage: a stack that forward pushes and backward pops, and a queue of what adds
// to the gradients of weights. It never holds the storage of a parameter, or freeing parameters between forward and
// backward would free nothing.
//
// A backward can be run in two halves. The gradient of the input is what the layers before wait for; the gradients of
// weights nobody waits for. After `defer_weight_gradients` the backward only notes how to compute them.
//
// A forward can be run twice. The first time, within `checkpoint`, it pushes nothing: only its input is kept, and the
// results that pass through `keep`. The second time, within `recompute`, it pushes what its backward pops.
class Saved {
 public:
  explicit Saved(Step step) : step_(std::move(step)) {}
  Saved(const Saved&) = delete;
  Saved& operator=(const Saved&) = delete;

  Step& step() { return step_; }
  // Keeps a tensor for the backward; lets it go where no backward follows.
  void push(const Tensor& tensor);
  Tensor pop();
  // The same for plans: pure data, of a type that both sides know. On a stack of their own.
  void push_plan(std::shared_ptr<const void> plan);
  template <typename Plan>
  std::shared_ptr<const Plan> pop_plan() {
    return std::static_pointer_cast<const Plan>(pop_any_plan());
  }
  bool empty() const { return stack_.empty() && plans_.empty() && checkpoints_.empty() && weight_gradients_.empty(); }

  // Work that adds to the gradients of weights, and holds on to the tensors it needs: done at once, unless deferred.
  void add_weight_gradients(std::function<void()> work);
  // From here on such work waits for compute_weight_gradients, which does it in the order in which it came.
  void defer_weight_gradients() { defers_weight_gradients_ = true; }
  void compute_weight_gradients();

  // The result of compute(), a new tensor or a std::array of them. Where a checkpoint saves the operation, the first
  // forward's result is returned by the second. Undefined tensors where !results_needed().
  template <typename Compute>
  auto keep(SavedOperation operation, const Compute& compute) -> decltype(compute());
  // False at the end of a recomputation, when all is pushed that the backward needs: nobody reads what the layer would
  // compute from there on.
  bool results_needed() const { return !step_.recomputing || running_->pushes > 0; }
  // For an operation in place on what `keep` returned: the tensor, or a copy of it if a checkpoint holds it too.
  Tensor own(const Tensor& tensor) const;

  // Runs `forward`, which is that of one layer on x, so that it keeps x and the results of the operations in `save`
  // only. Checkpoints do not nest.
  void checkpoint(const Tensor& x, const std::set<SavedOperation>& save, const std::function<void()>& forward);
  // Before the backward of the layer that was last in `checkpoint`: runs its forward again, to push what that needs.
  void recompute(const std::function<void(const Tensor& x)>& forward);

 private:
  struct Checkpoint {
    Tensor input;
    std::set<SavedOperation> save;
    struct Result {
      Tensor tensor;
      int64_t pushes;  // before it
    };
    std::deque<Result> results{};  // in the order in which they are computed
    int64_t pushes = 0;            // counted up by the first forward, down by the second
  };
  static std::span<Tensor> tensors(Tensor& result) { return {&result, 1}; }
  template <size_t N>
  static std::span<Tensor> tensors(std::array<Tensor, N>& results) {
    return results;
  }
  bool saves(SavedOperation operation) const { return running_ && running_->save.count(operation) > 0; }
  // Whether what is pushed now will be popped; counts it for a checkpoint.
  bool keeps_push();
  std::shared_ptr<const void> pop_any_plan();
  void hold(std::span<Tensor> results);
  void take(std::span<Tensor> results);

  Step step_;
  std::vector<Tensor> stack_;
  std::vector<std::shared_ptr<const void>> plans_;
  std::vector<Checkpoint> checkpoints_;
  std::optional<Checkpoint> running_;  // while a layer's forward is run for the first or the second time
  bool defers_weight_gradients_ = false;
  std::deque<std::function<void()>> weight_gradients_;
};

template <typename Compute>
auto Saved::keep(SavedOperation operation, const Compute& compute) -> decltype(compute()) {
  decltype(compute()) result{};
  if (!results_needed()) return result;
  if (saves(operation) && step_.recomputing) {
    take(tensors(result));
    return result;
  }
  result = compute();
  if (saves(operation)) hold(tensors(result));
  return result;
}

}  // namespace ninefold
