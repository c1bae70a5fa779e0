// A routing plan drawn as text: for looking at, at tiny size.
#pragma once

#include <string>

#include "common/nn/routing.h"

namespace ninefold {

// A line for each token: the experts it goes to, with their gates, and where it stands there; dropped choices are
// marked. Sequences are `length` tokens.
std::string choices_text(const Routing& routing, const DispatchPlan& plan, int64_t length);
// A line for each expert: its rows, and the tokens in them.
std::string rows_text(const DispatchPlan& plan);

// Bytes that each of `ranks` ranks sends to each other one in the dispatch, where the tokens are divided evenly over
// the ranks, and so are the experts: [from][to]. A row is `row_bytes` long; what stays on its rank is on the diagonal
// and not sent.
std::vector<std::vector<int64_t>> dispatch_bytes(const Routing& routing, const DispatchPlan& plan, int64_t ranks,
                                                 int64_t row_bytes);
// The same as a table. The combine sends as much, the other way round, and the backward each of them once more.
std::string dispatch_text(const std::vector<std::vector<int64_t>>& bytes);

}  // namespace ninefold
