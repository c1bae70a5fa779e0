#include "08_expert_parallel/exchange.h"

#include <numeric>

#include "common/base/check.h"

namespace ninefold {

int64_t ExchangePlan::rows_sent() const { return std::accumulate(sent.begin(), sent.end(), int64_t{0}); }

ExchangePlan make_exchange_plan(const std::vector<int32_t>& counts, int rank, int ranks) {
  const int64_t experts = static_cast<int64_t>(counts.size()) / ranks, each = experts / ranks;
  expect(each * ranks * ranks == static_cast<int64_t>(counts.size()), "{} counts are not those of {} ranks",
         counts.size(), ranks);
  const auto rows_of = [&](int64_t source, int64_t expert) {
    return counts[static_cast<size_t>(source * experts + expert)];
  };
  ExchangePlan plan;
  plan.counts.assign(static_cast<size_t>(each), 0);
  std::vector<int64_t> arrival(static_cast<size_t>(ranks * each));  // where the rows of (source, own expert) begin
  int64_t arrived = 0;
  for (int peer = 0; peer < ranks; ++peer) {
    plan.sent.push_back(0);
    for (int64_t expert = peer * each; expert < (peer + 1) * each; ++expert) plan.sent.back() += rows_of(rank, expert);
    const int64_t before = arrived;
    for (int64_t own = 0; own < each; ++own) {
      const int64_t rows = rows_of(peer, rank * each + own);
      arrival[static_cast<size_t>(peer * each + own)] = arrived;
      plan.counts[static_cast<size_t>(own)] += rows;
      arrived += rows;
    }
    plan.received.push_back(arrived - before);
  }
  plan.by_arrival.resize(static_cast<size_t>(arrived));
  for (int64_t own = 0; own < each; ++own) {
    for (int source = 0; source < ranks; ++source) {
      const int64_t first = arrival[static_cast<size_t>(source * each + own)];
      for (int64_t row = first; row < first + rows_of(source, rank * each + own); ++row) {
        plan.by_arrival[static_cast<size_t>(row)] = static_cast<int32_t>(plan.by_expert.size());
        plan.by_expert.push_back(static_cast<int32_t>(row));
      }
    }
  }
  return plan;
}

}  // namespace ninefold
