#include "common/train/serial_model.h"

#include <numeric>

#include "common/nn/f8_linears.h"

namespace ninefold {
namespace {

std::unique_ptr<Model> make_serial(const Task& task, const TrainOptions& options, const Precision& precision,
                                   const DeviceHandle& device) {
  auto model = task.make_model();
  multiply_in_f8(*model, precision.f8_linears);
  cast_scores(*model, precision);
  materialize(*model, device, precision, options.seed);
  return model;
}

std::vector<Tensor> gradients_of(const std::vector<Parameter*>& parameters) {
  std::vector<Tensor> gradients;
  for (const Parameter* parameter : parameters) gradients.push_back(parameter->gradient);
  return gradients;
}

std::array<int, 4> extents(const TrainOptions& options, int data_ranks, const SumGrouping& grouping) {
  const int inner = grouping.inner_ranks > 0 ? grouping.inner_ranks : data_ranks;
  const int alone = grouping.each_micro_batch ? static_cast<int>(options.micro_batches) / grouping.directions : 1;
  return {grouping.directions, data_ranks / inner, alone, inner};
}

}  // namespace

SerialModel::SerialModel(const Task& task, const TrainOptions& options, const Precision& precision, int data_ranks,
                         const SumGrouping& grouping)
    : device(make_device(options.device, options.threads)),
      model(make_serial(task, options, precision, device)),
      parameters(parameters_of(*model)),
      optimizer(make_optimizer(options.optimizer, parameters, options.seed)),
      gradients(gradients_of(parameters)),
      task_(task),
      options_(options),
      data_ranks_(data_ranks),
      sums_in_f32_(grouping.in_f32),
      extents_(extents(options, data_ranks, grouping)) {}

double SerialModel::compute_gradients(const GlobalBatch& batch) {
  losses_.assign(static_cast<size_t>(data_ranks_), 0);
  const Tensors& total = sum(batch, {}, 0);
  for (size_t p = 0; p < total.size() && &total != &gradients; ++p) ops::copy_(gradients[p], total[p]);
  return std::accumulate(losses_.begin(), losses_.end(), 0.0);
}

// The sum over all terms that agree with `term` up to `level`, added level by level, each in order. Levels of one term
// need no tensors of their own.
const SerialModel::Tensors& SerialModel::sum(const GlobalBatch& batch, Term term, size_t level) {
  if (level == term.size()) return contribution(batch, term);
  Tensors& total = sums_[level];
  for (int i = 0; i < extents_[level]; ++i) {
    term[level] = i;
    const Tensors& one = sum(batch, term, level + 1);
    if (extents_[level] == 1) return one;
    for (size_t p = 0; p < one.size(); ++p) {
      const Dtype dtype = sums_in_f32_ ? Dtype::f32 : one[p].dtype();
      if (i == 0 && total.size() <= p) total.push_back(Tensor::empty(device, one[p].shape(), dtype));
      i == 0 ? ops::copy_(total[p], one[p]) : ops::add_(total[p], one[p]);
    }
  }
  return total;
}

// What one data rank adds at once: all its micro-batches, or those of one direction, or one.
const SerialModel::Tensors& SerialModel::contribution(const GlobalBatch& batch, const Term& term) {
  const auto [direction, block, alone, in_block] = term;
  const int rank = block * extents_[3] + in_block;
  const std::vector<MicroBatch> all = micro_batches(batch, task_, options_, rank, data_ranks_);
  const size_t count = all.size() / static_cast<size_t>(extents_[0] * extents_[2]);
  const auto first = all.begin() + (direction * extents_[2] + alone) * static_cast<int64_t>(count);
  const std::vector<MicroBatch> parts(first, first + static_cast<int64_t>(count));
  losses_[static_cast<size_t>(rank)] += accumulate_gradients(*model, parameters, task_, device, parts);
  return gradients;
}

}  // namespace ninefold
