#include "04_model_parallel/model_parallel.h"

#include "common/comm/control.h"

namespace ninefold {

double ModelParallel::run(const MicroBatch& part) {
  const Group& pipeline = model_.pipeline();
  const bool is_first = model_.is_first(stage_), is_last = model_.is_last(stage_);
  std::vector<int64_t> micro_batches(model_.stages(), 0);
  micro_batches[stage_] = 1;
  model_.begin_step(micro_batches);
  computations_.begin_step();

  StagedModel::Input input = model_.load(stage_, part);
  Tensor x = std::move(input.x);
  if (!is_first) {
    x = model_.message_after(stage_ - 1);
    pipeline.recv(x, stage_ - 1);
    x.book_as(MemoryKind::activations);
  }
  Saved saved(std::move(input.step));
  Tensor y = computations_.time(stage_, 'F', 0, [&] { return model_.forward(stage_, std::exchange(x, {}), saved); });
  const double loss = is_last ? ops::sum(saved.step().losses) : 0;
  if (!is_last) pipeline.send(y, stage_ + 1);
  y = {};

  Tensor dy;
  if (!is_last) {
    dy = model_.message_after(stage_);
    pipeline.recv(dy, stage_ + 1);
    dy.book_as(MemoryKind::activations);
  }
  const Tensor dx =
      computations_.time(stage_, 'B', 0, [&] { return model_.backward(stage_, std::exchange(dy, {}), saved); });
  if (!is_first) pipeline.send(dx, stage_ - 1);
  model_.end_step();
  return control::sum(pipeline, loss);
}

Parallelism ModelParallel::parallelism(const Task& task, const TrainOptions& options) {
  const Children children = model_.stage(stage_).children;
  return {.compute_gradients = [this](const std::vector<MicroBatch>& parts) { return run(parts.front()); },
          .evaluate = [this](const Batch& batch) { return model_.evaluate(batch); },
          .reduce_gradients = [this] { model_.sum_copies(); },
          .predict_memory =
              [&task, &options, children](MemoryByKind& bytes) {
                const StageActivations stage =
                    task.stage_activations(children, options.micro_batch, options.precision(), options.recomputation);
                if (options.steps > 0) {
                  bytes[static_cast<size_t>(MemoryKind::activations)] = std::max(stage.forward, stage.backward);
                }
              },
          .predict_traffic =
              [this](TrafficLedger& ledger, int64_t steps) {
                const std::string& name = model_.pipeline().name();
                if (!model_.is_last(stage_)) {
                  ledger.predict(name, Operation::send, steps, {1, model_.message_bytes(stage_)});
                }
                if (!model_.is_first(stage_)) {
                  ledger.predict(name, Operation::send, steps, {1, model_.message_bytes(stage_ - 1)});
                }
                model_.predict_copies(ledger, steps);
              },
          .bubble = [this]() -> std::optional<BubbleRecord> {
            const auto ranks = static_cast<double>(model_.stages());
            return BubbleRecord{(ranks - 1) / ranks, computations_.bubble(model_.pipeline())};
          },
          .numerics = model_.ties_stages() ? Numerics::bounded : Numerics::bit_identical};
}

}  // namespace ninefold
