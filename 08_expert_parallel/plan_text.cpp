#include "08_expert_parallel/plan_text.h"

#include <fmt/format.h>

#include "common/base/check.h"
#include "common/base/report.h"

namespace ninefold {

std::string choices_text(const Routing& routing, const DispatchPlan& plan, int64_t length) {
  std::vector<std::string> heading = {"sequence", "position"};
  for (int64_t j = 0; j < routing.top_k; ++j) heading.insert(heading.end(), {"expert", "gate", "place", "row"});
  Table table(heading);
  for (int64_t token = 0; token < routing.tokens(); ++token) {
    std::vector<std::string> row = {fmt::format("{}", token / length), fmt::format("{}", token % length)};
    for (int64_t choice = token * routing.top_k; choice < (token + 1) * routing.top_k; ++choice) {
      const auto c = static_cast<size_t>(choice);
      const bool is_dropped = plan.row_of_choice[c] < 0;
      row.push_back(fmt::format("{}", routing.chosen[c]));
      row.push_back(fmt::format("{:.3f}", routing.gates[c]));
      row.push_back(is_dropped ? "full" : fmt::format("{}", routing.place_of_choice[c]));
      row.push_back(is_dropped ? "dropped" : fmt::format("{}", plan.row_of_choice[c]));
    }
    table.add_row(row);
  }
  return table.text();
}

std::string rows_text(const DispatchPlan& plan) {
  Table table({"expert", "offset", "rows", "dropped", "tokens"});
  size_t offset = 0;
  for (size_t expert = 0; expert < plan.counts.size(); ++expert) {
    const auto count = static_cast<size_t>(plan.counts[expert]);
    std::string tokens;
    for (size_t row = offset; row < offset + count; ++row) {
      tokens += fmt::format("{}{}", row == offset ? "" : " ", plan.token_of_row[row]);
    }
    table.add_row({fmt::format("{}", expert), fmt::format("{}", offset), fmt::format("{}", count),
                   fmt::format("{}", plan.dropped[expert]), tokens});
    offset += count;
  }
  return table.text();
}

std::vector<std::vector<int64_t>> dispatch_bytes(const Routing& routing, const DispatchPlan& plan, int64_t ranks,
                                                 int64_t row_bytes) {
  expect(routing.tokens() % ranks == 0 && routing.experts % ranks == 0, "{} tokens and {} experts over {} ranks",
         routing.tokens(), routing.experts, ranks);
  const int64_t tokens_each = routing.tokens() / ranks, experts_each = routing.experts / ranks;
  std::vector<std::vector<int64_t>> bytes(static_cast<size_t>(ranks),
                                          std::vector<int64_t>(static_cast<size_t>(ranks), 0));
  for (size_t choice = 0; choice < routing.chosen.size(); ++choice) {
    if (plan.row_of_choice[choice] < 0) continue;
    const int64_t from = static_cast<int64_t>(choice) / routing.top_k / tokens_each;
    bytes[static_cast<size_t>(from)][static_cast<size_t>(routing.chosen[choice] / experts_each)] += row_bytes;
  }
  return bytes;
}

std::string dispatch_text(const std::vector<std::vector<int64_t>>& bytes) {
  std::vector<std::string> heading = {"from"};
  for (size_t to = 0; to < bytes.size(); ++to) heading.push_back(fmt::format("to rank {}", to));
  heading.push_back("sent");
  Table table(heading);
  for (size_t from = 0; from < bytes.size(); ++from) {
    std::vector<std::string> row = {fmt::format("rank {}", from)};
    int64_t sent = 0;
    for (size_t to = 0; to < bytes.size(); ++to) {
      row.push_back(to == from ? fmt::format("({})", bytes[from][to]) : fmt::format("{}", bytes[from][to]));
      sent += to == from ? 0 : bytes[from][to];
    }
    row.push_back(fmt::format("{}", sent));
    table.add_row(row);
  }
  return table.text();
}

}  // namespace ninefold
