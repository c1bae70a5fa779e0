#include "04_model_parallel/on_paper.h"

#include "common/train/batches.h"

namespace ninefold {

std::vector<ChildOnPaper> on_paper(const Task& task, int64_t samples, const Precision& precision) {
  const DeviceHandle paper = make_meta_device();
  const auto model = task.make_model();
  materialize(*model, paper, precision, /*seed=*/0);
  std::vector<ChildOnPaper> children(model->size());
  size_t at = 0;  // the child at work
  paper->after_kernel = [&](const KernelCost& cost) { children[at].flops += cost.flops; };

  const Batch batch = task.on_paper(paper, samples);
  Saved saved(make_step(task, paper, batch));
  Tensor x = batch.x;
  for (; at < model->size(); ++at) {
    x = model->forward(x, saved, {at, at + 1});
    children[at].name = model->name_of(at);
    children[at].output = x.shape();
    children[at].type = x.dtype();
    children[at].has_parameters = parameter_count(model->child(at)) > 0;
  }
  at = model->size() - 1;
  model->loss().forward(x, saved);
  Tensor dy = model->loss().backward(saved);
  for (; at < model->size(); --at) dy = model->backward(dy, saved, {at, at + 1});  // below 0 there is none
  paper->after_kernel = nullptr;
  return children;
}

std::vector<ChildOnPaper> in_row_blocks(std::vector<ChildOnPaper> children, int64_t ranks) {
  for (ChildOnPaper& child : children) {
    child.row_blocks *= ranks;
    child.output[0] /= ranks;
  }
  return children;
}

std::vector<ChildOnPaper> in_parts_of_samples(std::vector<ChildOnPaper> children, int64_t ranks) {
  for (ChildOnPaper& child : children) {
    child.flops /= static_cast<double>(ranks);
    child.output[0] /= ranks;
  }
  return children;
}

}  // namespace ninefold
