// Rows of sequences: those at some positions; and what is copied to get from the order of ranks to that of sequences.
#pragma once

#include <vector>

#include "common/tensor/ops.h"

namespace ninefold {

// `count` rows, from row `rank_row` in the order of ranks, [ranks][sequences][rows of a rank], and from row
// `sequence_row` in that of sequences, [sequences][rows].
struct RowRun {
  int64_t rank_row, sequence_row, count;
};

// Every rank has the same number of rows of each of `batch` sequences; `places` gives them, for each rank in turn, as
// places within a sequence.
inline std::vector<RowRun> row_runs(const std::vector<std::vector<int32_t>>& places, int64_t batch) {
  const auto ranks = static_cast<int64_t>(places.size()), rows = static_cast<int64_t>(places.front().size());
  std::vector<RowRun> runs;
  for (int64_t rank = 0; rank < ranks; ++rank) {
    for (int64_t sequence = 0; sequence < batch; ++sequence) {
      for (int64_t row = 0; row < rows; ++row) {
        const int64_t from = (rank * batch + sequence) * rows + row;
        const int64_t to = sequence * ranks * rows + places[static_cast<size_t>(rank)][static_cast<size_t>(row)];
        const bool goes_on = row > 0 && to == runs.back().sequence_row + runs.back().count;
        if (goes_on) {
          ++runs.back().count;
        } else {
          runs.push_back({from, to, 1});
        }
      }
    }
  }
  return runs;
}

inline void to_sequences(const Tensor& sequences, const Tensor& ranks, const std::vector<RowRun>& runs) {
  for (const auto& [rank_row, row, count] : runs) {
    ops::copy_(sequences.rows(row, row + count), ranks.rows(rank_row, rank_row + count));
  }
}

inline void to_ranks(const Tensor& ranks, const Tensor& sequences, const std::vector<RowRun>& runs) {
  for (const auto& [rank_row, row, count] : runs) {
    ops::copy_(ranks.rows(rank_row, rank_row + count), sequences.rows(row, row + count));
  }
}

// The rows of x [sequences * length, width] at these positions of every sequence, as a tensor of their own.
inline Tensor rows_at(const Tensor& x, const std::vector<int32_t>& positions, int64_t sequences) {
  std::vector<int32_t> rows;
  for (int64_t sequence = 0; sequence < sequences; ++sequence) {
    for (const int32_t position : positions) {
      rows.push_back(static_cast<int32_t>(sequence * (x.dim(0) / sequences)) + position);
    }
  }
  return ops::gather_rows(x, Tensor::from(x.device(), {static_cast<int64_t>(rows.size())}, rows));
}

}  // namespace ninefold
