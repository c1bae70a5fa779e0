// A matmul in pieces, so that what it needs from other ranks, or what they need of it, travels while it computes (Wang
// et al. 2023, "Overlap Communication with Dependent Computation via Decomposition", ASPLOS; torchtitan's async tensor
// parallelism). A piece is one rank's block of rows; pieces go around the group in a ring, n-1 messages a rank.
#pragma once

#include <functional>

#include "common/comm/group.h"
#include "common/tensor/ops.h"

namespace ninefold {

// all_gather of rows: `whole` [n * rows, f] from every rank's `own` [rows, f]. Calls compute(begin, end) for each
// piece, rows of `whole`, as soon as it is there; this rank's own is the first.
void gather_in_pieces(const Group& group, const Tensor& whole, const Tensor& own,
                      const std::function<void(int64_t begin, int64_t end)>& compute);

// reduce_scatter of rows: compute(begin, end) returns this rank's term of a piece, which may be overwritten. Returns
// the sum over the ranks of this rank's piece, of `rows` in all; its own term is computed last.
Tensor reduce_in_pieces(const Group& group, int64_t rows,
                        const std::function<Tensor(int64_t begin, int64_t end)>& compute);

// The two as layers use them. whole = all_gather of the rows of `own`; returns whole times b.
Tensor gather_and_multiply(const Group& group, const Tensor& own, const Tensor& b, ops::MatmulOptions options,
                           Tensor& whole);
// reduce_scatter of the rows of a times b.
Tensor multiply_and_reduce(const Group& group, const Tensor& a, const Tensor& b, ops::MatmulOptions options);

}  // namespace ninefold
