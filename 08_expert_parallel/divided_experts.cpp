#include "08_expert_parallel/divided_experts.h"

namespace ninefold {
namespace {

// This rank's hidden features: the rows of w1 and w3 and the columns of w2 of each expert.
class FeatureDivider : public Visitor {
 public:
  explicit FeatureDivider(const Group& group) : group_(group) {}
  void parameter(std::string_view name, Parameter& parameter) override {
    const int dim = name == "w2" ? 2 : 1;
    const int64_t hidden = parameter.shape[static_cast<size_t>(dim)];
    require(hidden % group_.size() == 0, "ffn ({}) must be divisible by {} ({})", hidden, group_.name(), group_.size());
    parameter.placement.shards.push_back({group_.name(), dim, group_.rank(), group_.size()});
  }

 private:
  const Group& group_;
};

}  // namespace

DividedExperts::DividedExperts(std::unique_ptr<Experts> inner, const Group& group)
    : inner_(std::move(inner)),
      input_(Conjugate::copy, group, /*features=*/0),
      output_(Conjugate::reduce, group, /*features=*/0) {
  FeatureDivider divider(group);
  inner_->visit(divider);
}

Tensor DividedExperts::forward(const Tensor& rows, const RowCounts& counts, Saved& saved) {
  const Tensor partial = inner_->forward(input_.forward(rows), counts, saved);
  return saved.results_needed() ? output_.forward(saved.own(partial)) : partial;
}

Tensor DividedExperts::backward(const Tensor& dresults, Saved& saved) {
  return input_.backward(inner_->backward(output_.backward(dresults), saved));
}

}  // namespace ninefold
