#include "08_expert_parallel/expert_parallel.h"

#include "08_expert_parallel/divided_experts.h"
#include "common/nn/replace.h"

namespace ninefold {
namespace {

// This rank's range of the first dimension of each parameter.
class Divider : public Visitor {
 public:
  explicit Divider(const Group& group) : group_(group) {}
  void parameter(std::string_view, Parameter& parameter) override {
    require(parameter.shape[0] % group_.size() == 0, "experts ({}) must be divisible by {} ({})", parameter.shape[0],
            group_.name(), group_.size());
    auto& shards = parameter.placement.shards;
    shards.insert(shards.begin(), {group_.name(), /*dim=*/0, group_.rank(), group_.size()});
  }

 private:
  const Group& group_;
};

// The counts of all ranks, [ranks, experts]. forward: all_gather
std::vector<int32_t> gather_counts(const Group& group, const DeviceHandle& device, const std::vector<int64_t>& counts) {
  const auto experts = static_cast<int64_t>(counts.size());
  const std::vector<int32_t> own(counts.begin(), counts.end());
  const MemoryScope scope(*device, MemoryKind::communication);
  const Tensor all = Tensor::empty(device, {group.size() * experts}, Dtype::i32);
  if (device->type() != DeviceType::meta) {
    group.labelled("counts").all_gather(all, Tensor::from(device, {experts}, own));
    return all.to_vector<int32_t>();
  }
  group.all_gather(all, Tensor::empty(device, {experts}, Dtype::i32));
  std::vector<int32_t> even;  // on paper all ranks route alike
  for (int rank = 0; rank < group.size(); ++rank) even.insert(even.end(), own.begin(), own.end());
  return even;
}

Tensor index_tensor(const DeviceHandle& device, const std::vector<int32_t>& index) {
  const Shape shape = {static_cast<int64_t>(index.size())};
  if (device->type() == DeviceType::meta) return Tensor::empty(device, shape, Dtype::i32);
  return Tensor::from(device, shape, index);
}

}  // namespace

void ExpertParallel::count(int64_t layer, const ExchangePlan& plan, const Step& step) {
  if (step.training && !step.recomputing)
    counted_[{step.number, step.first_sample}][layer] = {plan.sent, plan.received};
}

std::map<int64_t, RowsOfLayers> ExpertParallel::counted_in_last_step() const {
  std::map<int64_t, RowsOfLayers> last;
  if (counted_.empty()) return last;
  const int64_t step = counted_.rbegin()->first.first;
  for (auto micro_batch = counted_.lower_bound({step, 0}); micro_batch != counted_.end(); ++micro_batch) {
    last[micro_batch->first.second] = micro_batch->second;
  }
  return last;
}

std::unique_ptr<ExpertParallel> expert_parallel(Model& model, const Group& group, const std::optional<Group>& tensor) {
  auto parallel = std::make_unique<ExpertParallel>(group, tensor);
  if (!parallel->divides()) return parallel;
  Divider divider(group);
  int64_t layer = 0;
  for_each_experts(model, "layers.*.feed_forward.experts", [&](const std::string&, std::unique_ptr<Experts>& experts) {
    if (group.size() > 1) experts->visit(divider);
    if (tensor && tensor->size() > 1) experts = std::make_unique<DividedExperts>(std::move(experts), *tensor);
    experts = std::make_unique<ExchangedExperts>(std::move(experts), *parallel, layer++);
  });
  return parallel;
}

struct ExchangedExperts::Exchange {
  std::vector<int64_t> sent, received;
  RowCounts counts;
  Tensor by_expert, by_arrival;  // i32 [rows received]
};

std::shared_ptr<const ExchangedExperts::Exchange> ExchangedExperts::agree(const Tensor& rows, const RowCounts& counts,
                                                                          const Step& step) {
  const Group& group = parallel_.group();
  const DeviceHandle& device = rows.device();
  ExchangePlan plan = make_exchange_plan(gather_counts(group, device, *counts), group.rank(), group.size());
  parallel_.count(layer_, plan, step);
  return std::make_shared<const Exchange>(
      Exchange{.sent = std::move(plan.sent),
               .received = std::move(plan.received),
               .counts = std::make_shared<const std::vector<int64_t>>(std::move(plan.counts)),
               .by_expert = index_tensor(device, plan.by_expert),
               .by_arrival = index_tensor(device, plan.by_arrival)});
}

Tensor ExchangedExperts::dispatch(const Tensor& rows, const Exchange& exchange) const {
  const Tensor arrived = Tensor::empty(rows.device(), {exchange.by_expert.dim(0), rows.dim(1)}, rows.dtype());
  parallel_.group().labelled("dispatch").all_to_all(arrived, rows, exchange.received, exchange.sent);
  return ops::gather_rows(arrived, exchange.by_expert);
}

Tensor ExchangedExperts::combine(Tensor results, const Exchange& exchange) const {
  results = ops::gather_rows(results, exchange.by_arrival);
  int64_t rows = 0;
  for (const int64_t sent : exchange.sent) rows += sent;
  const Tensor returned = Tensor::empty(results.device(), {rows, results.dim(1)}, results.dtype());
  parallel_.group().labelled("combine").all_to_all(returned, results, exchange.sent, exchange.received);
  return returned;
}

Tensor ExchangedExperts::forward(const Tensor& rows, const RowCounts& counts, Saved& saved) {
  const auto exchange = agree(rows, counts, saved.step());
  Tensor results = inner_->forward(dispatch(rows, *exchange), exchange->counts, saved);
  saved.push_plan(exchange);
  return combine(std::move(results), *exchange);
}

Tensor ExchangedExperts::backward(const Tensor& dresults, Saved& saved) {
  const auto exchange = saved.pop_plan<Exchange>();
  return combine(inner_->backward(dispatch(dresults, *exchange), saved), *exchange);
}

}  // namespace ninefold
