#include "common/nn/mixture_of_experts.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace ninefold {

void Visitor::router(std::string_view, std::unique_ptr<Router>& router) { router->visit(*this); }
void Visitor::experts(std::string_view, std::unique_ptr<Experts>& experts) { experts->visit(*this); }

// ---- experts -------------------------------------------------------------------------------------------------------

namespace {

// rows · weightᵀ, each group by its own expert's weight.
Tensor apply(const Parameter& weight, const Tensor& rows, const RowCounts& counts, Saved& saved) {
  return saved.keep(SavedOperation::matmul,
                    [&] { return ops::grouped_matmul(rows, weight.value, *counts, {.transpose_b = true}); });
}

void add_weight_gradients(Parameter& weight, const Tensor& dy, const Tensor& rows, const RowCounts& counts,
                          Saved& saved) {
  saved.add_weight_gradients([&weight, dy, rows, counts] {
    weight.write_gradient([&](const Tensor& dweight, bool accumulate) {
      ops::grouped_matmul_into(dweight, dy, rows, *counts, {.transpose_a = true, .accumulate = accumulate});
    });
  });
}

}  // namespace

GroupedExperts::GroupedExperts(int64_t experts, int64_t dim, int64_t hidden, ops::Distribution in_initial,
                               ops::Distribution out_initial)
    : w1({experts, hidden, dim}, in_initial),
      w3({experts, hidden, dim}, in_initial),
      w2({experts, dim, hidden}, out_initial) {}

Tensor GroupedExperts::hidden(const Tensor& rows, const RowCounts& counts, Saved& saved) {
  saved.push(rows);
  const Tensor gate = apply(w1, rows, counts, saved), up = apply(w3, rows, counts, saved);
  saved.push(gate);
  saved.push(up);
  return ops::swiglu(gate, up);
}

Tensor GroupedExperts::forward(const Tensor& rows, const RowCounts& counts, Saved& saved) {
  const Tensor hidden = this->hidden(rows, counts, saved);
  saved.push(hidden);
  saved.push_plan(counts);
  return apply(w2, hidden, counts, saved);
}

// A function of its own so that dhidden, gate and up are gone before w3 and w1 need memory.
ops::SwigluGradients GroupedExperts::hidden_backward(const Tensor& dresults, const RowCounts& counts, Saved& saved) {
  add_weight_gradients(w2, dresults, saved.pop(), counts, saved);
  const Tensor dhidden = ops::grouped_matmul(dresults, w2.value, *counts);
  const Tensor up = saved.pop(), gate = saved.pop();
  return ops::swiglu_backward(dhidden, gate, up);
}

Tensor GroupedExperts::backward(const Tensor& dresults, Saved& saved) {
  const RowCounts counts = saved.pop_plan<std::vector<int64_t>>();
  const auto [dgate, dup] = hidden_backward(dresults, counts, saved);
  const Tensor rows = saved.pop();
  add_weight_gradients(w3, dup, rows, counts, saved);
  add_weight_gradients(w1, dgate, rows, counts, saved);
  Tensor drows = ops::grouped_matmul(dup, w3.value, *counts);
  ops::grouped_matmul_into(drows, dgate, w1.value, *counts, {.accumulate = true});
  return drows;
}

void GroupedExperts::visit(Visitor& visitor) {
  visitor.parameter("w1", w1);
  visitor.parameter("w3", w3);
  visitor.parameter("w2", w2);
}

// ---- the layer -----------------------------------------------------------------------------------------------------

struct MixtureOfExperts::Dispatch {
  RowCounts counts;
  Tensor token_of_row;   // i32 [m]
  Tensor row_of_choice;  // i32 [n, k]
  Tensor gates;          // f32 [n, k]
};

MixtureOfExperts::MixtureOfExperts(const MoeConfig& config, int64_t layer, std::unique_ptr<Router> router,
                                   std::unique_ptr<Experts> experts, std::unique_ptr<Layer> shared_experts)
    : config_(config),
      layer_(layer),
      router_(std::move(router)),
      experts_(std::move(experts)),
      shared_experts_(std::move(shared_experts)) {}

std::shared_ptr<const MixtureOfExperts::Dispatch> MixtureOfExperts::dispatch(const Tensor& x, const Routing& routing,
                                                                             Saved& saved) const {
  const DeviceHandle& device = x.device();
  const Shape choices = {x.dim(0), config_.top_k};
  if (device->type() == DeviceType::meta) {
    const std::vector<int64_t> counts = even_counts(config_, x.dim(0), saved.step().rows_per_sample);
    const int64_t rows = std::accumulate(counts.begin(), counts.end(), int64_t{0});
    return std::make_shared<const Dispatch>(
        Dispatch{std::make_shared<const std::vector<int64_t>>(counts), Tensor::empty(device, {rows}, Dtype::i32),
                 Tensor::empty(device, choices, Dtype::i32), Tensor::empty(device, choices, Dtype::f32)});
  }
  DispatchPlan plan = make_dispatch_plan(routing);
  book(plan, saved.step());
  return std::make_shared<const Dispatch>(Dispatch{std::make_shared<const std::vector<int64_t>>(std::move(plan.counts)),
                                                   Tensor::from(device, {plan.rows()}, plan.token_of_row),
                                                   Tensor::from(device, choices, plan.row_of_choice),
                                                   Tensor::from(device, choices, routing.gates)});
}

void MixtureOfExperts::book(const DispatchPlan& plan, const Step& step) const {
  if (!step.routing || step.recomputing) return;
  RoutingRecord::Layer& record = step.routing->at(layer_);
  record.dropped.resize(plan.dropped.size(), 0);
  for (size_t e = 0; e < plan.dropped.size(); ++e) record.dropped[e] += plan.dropped[e];
  std::vector<int64_t>& rows = step.routing->rows[step.first_sample];
  rows.resize(std::max(rows.size(), static_cast<size_t>(layer_) + 1), 0);
  rows[static_cast<size_t>(layer_)] = plan.rows();
}

Tensor MixtureOfExperts::forward(const Tensor& x, Saved& saved) {
  const Tensor y = Tensor::zeros(x.device(), x.shape(), x.dtype());
  forward_add(x, saved, y);
  return y;
}

void MixtureOfExperts::forward_add(const Tensor& x, Saved& saved, const Tensor& sum) {
  const auto plan = dispatch(x, router_->forward(x, saved), saved);
  const Tensor results = experts_->forward(ops::gather_rows(x, plan->token_of_row), plan->counts, saved);
  saved.push(results);
  saved.push_plan(plan);
  if (saved.results_needed()) ops::add_weighted_rows(sum, results, plan->row_of_choice, plan->gates);
  if (shared_experts_) shared_experts_->forward_add(x, saved, sum);
}

Tensor MixtureOfExperts::backward(const Tensor& dy, Saved& saved) {
  const Tensor dshared = shared_experts_ ? shared_experts_->backward(dy, saved) : Tensor();
  const auto plan = saved.pop_plan<Dispatch>();
  auto [dresults, dgates] = ops::weighted_rows_backward(dy, saved.pop(), plan->row_of_choice, plan->gates);
  const Tensor drows = experts_->backward(std::exchange(dresults, Tensor()), saved);
  Tensor dx = router_->backward(dgates, saved);
  ops::add_weighted_rows(dx, drows, plan->row_of_choice, Tensor());
  if (dshared.defined()) ops::add_(dx, dshared);
  return dx;
}

void MixtureOfExperts::visit(Visitor& visitor) {
  visitor.router("router", router_);
  visitor.experts("experts", experts_);
  if (shared_experts_) visitor.slot("shared_experts", shared_experts_);
}

}  // namespace ninefold
