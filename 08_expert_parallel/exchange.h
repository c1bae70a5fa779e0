// Which rows travel from rank to rank so that each expert gets its own, as pure data.
//
//   rank 0 has rows of   e0 e0 e1 e2        and holds experts e0 e1      receives   e0 e0 e1 | e0 e1 e1
//   rank 1 has rows of   e0 e1 e1 e3 e3     and holds experts e2 e3      receives   e2       | e3 e3
//
// Rows arrive source by source, and by expert within one; experts compute on their rows of all sources together.
#pragma once

#include <cstdint>
#include <vector>

namespace ninefold {

struct ExchangePlan {
  std::vector<int64_t> sent, received;  // rows to and from each rank
  std::vector<int64_t> counts;          // rows of each expert of this rank, from all ranks
  // Of each row in the order of experts, where it is in the order of arrival; and the other way round. Of one expert
  // the rows stay in the order of sources.
  std::vector<int32_t> by_expert, by_arrival;

  int64_t rows_sent() const;
  int64_t rows_received() const { return static_cast<int64_t>(by_expert.size()); }
};

// `counts` [ranks, experts]: the rows that each rank has for each expert, rank 0 first. Rank r holds the r-th range of
// experts / ranks experts.
ExchangePlan make_exchange_plan(const std::vector<int32_t>& counts, int rank, int ranks);

}  // namespace ninefold
