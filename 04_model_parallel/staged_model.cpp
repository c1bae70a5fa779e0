#include "04_model_parallel/staged_model.h"

#include <algorithm>
#include <map>
#include <set>

#include "common/comm/control.h"
#include "common/comm/world.h"

namespace ninefold {

StagedModel::StagedModel(Model& model, std::vector<Stage> stages, RanksOfStages ranks_of,
                         const std::vector<ChildOnPaper>& children, const Group& pipeline, const Task& task)
    : model_(model), stages_(std::move(stages)), ranks_of_(std::move(ranks_of)), pipeline_(pipeline), task_(task) {
  for (const Stage& stage : stages_) {
    outputs_.push_back(children[stage.children.end - 1].output);
    types_.push_back(children[stage.children.end - 1].type);
    row_blocks_.push_back(children[stage.children.end - 1].row_blocks);
  }
  place_parameters();
}

void StagedModel::place_parameters() {
  std::map<Parameter*, std::set<int>> holders, stages_of;
  for (int stage = 0; stage < stages(); ++stage) {
    for (Parameter* parameter : parameters_of(stage)) {
      holders[parameter].insert(ranks_of(stage).begin(), ranks_of(stage).end());
      stages_of[parameter].insert(stage);
      ties_stages_ |= stages_of[parameter].size() > 1;
    }
  }
  std::map<std::set<int>, std::vector<Parameter*>> shared;  // by the ranks that hold them
  for (Parameter* parameter : ninefold::parameters_of(model_)) {
    const std::set<int>& ranks = holders.at(parameter);
    parameter->placement.replicated_over = {pipeline_.name(), {ranks.begin(), ranks.end()}, pipeline_.rank()};
    if (ranks.size() > 1 && ranks.count(pipeline_.rank()) > 0) shared[ranks].push_back(parameter);
  }
  for (const auto& [ranks, parameters] : shared) {
    std::vector<int> members;
    for (const int rank : ranks) members.push_back(pipeline_.members()[rank]);
    copies_.push_back({pipeline_.world().make_group(pipeline_.name(), members), parameters});
  }
}

bool StagedModel::holds(int stage) const {
  return std::count(ranks_of(stage).begin(), ranks_of(stage).end(), pipeline_.rank()) > 0;
}

std::vector<Parameter*> StagedModel::parameters_of(int stage) const {
  std::vector<Parameter*> parameters;
  for (size_t child = stages_[stage].children.begin; child < stages_[stage].children.end; ++child) {
    for (Parameter* parameter : parameters_used_by(model_.child(child))) parameters.push_back(parameter);
  }
  return parameters;
}

StagedModel::Input StagedModel::load(int stage, const MicroBatch& part) const {
  Batch batch{.x = {}, .targets = {}, .positions = part.positions};
  if (is_first(stage) || is_last(stage)) batch = ninefold::load(task_, device(), part);
  return {is_first(stage) ? batch.x : Tensor(), make_step(task_, device(), batch, part)};
}

Tensor StagedModel::forward(int stage, Tensor x, Saved& saved) const {
  Tensor y = model_.forward(std::move(x), saved, stages_[stage].children);
  if (is_last(stage)) model_.loss().forward(y, saved);
  return y;
}

Tensor StagedModel::backward(int stage, Tensor dy, Saved& saved) const {
  if (is_last(stage)) dy = model_.loss().backward(saved);
  return model_.backward(std::move(dy), saved, stages_[stage].children);
}

Tensor StagedModel::message_after(int stage) const {
  const MemoryScope scope(*device(), MemoryKind::communication);
  return Tensor::empty(device(), outputs_.at(stage), types_.at(stage));
}

int64_t StagedModel::message_bytes(int stage) const { return elements_after(stage) * size_of(types_.at(stage)); }

void StagedModel::begin_step(const std::vector<int64_t>& micro_batches) const {
  std::map<Parameter*, int64_t> contributions;
  for (int stage = 0; stage < stages(); ++stage) {
    for (Parameter* parameter : parameters_of(stage)) contributions[parameter] += micro_batches[stage];
  }
  for (const auto& [parameter, count] : contributions) parameter->zero_gradient(count);
}

void StagedModel::end_step() const {
  for (Parameter* parameter : ninefold::parameters_of(model_)) parameter->complete_gradient();
}

void StagedModel::sum_copies() const {
  std::vector<Pending> sums;
  for (const auto& [group, parameters] : copies_) {
    for (const Parameter* parameter : parameters) {
      sums.push_back(group.labelled(parameter->name).start_all_reduce(parameter->owned.gradient));
    }
  }
  for (Pending& sum : sums) sum.wait();
}

void StagedModel::predict_copies(TrafficLedger& ledger, int64_t steps) const {
  for (const auto& [group, parameters] : copies_) {
    for (const Parameter* parameter : parameters) {
      const Tensor& gradient = parameter->owned.gradient;
      ledger.predict(group.name(), Operation::all_reduce, steps,
                     group.all_reduce_volume(gradient.size(), gradient.dtype()));
    }
  }
}

Score StagedModel::evaluate(const Batch& batch) const {
  Step step = make_step(task_, device(), batch);
  step.training = false;
  Saved saved(std::move(step));
  const int64_t rows = batch.targets.size();
  Score score;
  Tensor x = batch.x;
  for (int stage = 0; stage < stages(); ++stage) {
    const int here = ranks_of(stage).front(), next = is_last(stage) ? here : ranks_of(stage + 1).front();
    if (here == pipeline_.rank()) x = forward(stage, x, saved);
    if (is_last(stage) && here == pipeline_.rank()) {
      score = {ops::sum(saved.step().losses), static_cast<double>(model_.loss().count_correct(x, batch.targets))};
    }
    if (here == next) continue;
    if (here == pipeline_.rank()) pipeline_.send(x, next);
    if (next != pipeline_.rank()) continue;
    Shape shape = outputs_[stage];
    shape[0] = rows / row_blocks_[stage];  // an evaluation's batch has a size of its own
    x = Tensor::empty(device(), shape, types_[stage]);
    pipeline_.recv(x, here);
  }
  return {control::sum(pipeline_, score.loss_sum), control::sum(pipeline_, score.correct)};
}

}  // namespace ninefold
