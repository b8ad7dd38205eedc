// Bias gradients: sums over rows, column by column in the order of the rows.
#pragma once
#include <algorithm>
#include <cstdint>

#include "temper/threads.h"

namespace temper::cpu {

// One group of rows [begin, end) whose sums go to sum[0…N).
struct RowGroup {
  int64_t begin, end;
  float* sum;
};

// sum[n] += Σ_r scale[r]·x[rows[r]][n]   (rows, scale may be null). group(i) gives the i-th of `groups` groups.
template <class Group>
void add_column_sums(int64_t groups, const Group& group, int64_t N, const float* x, const int32_t* rows,
                     const float* scale) {
  constexpr int64_t kColumns = 128;
  const int64_t blocks = (N + kColumns - 1) / kColumns;
  const auto body = [&](int64_t task) {
    const RowGroup g = group(task / blocks);
    if (g.begin == g.end) return;
    const int64_t from = task % blocks * kColumns, count = std::min(kColumns, N - from);
    double sum[kColumns] = {};
    for (int64_t r = g.begin; r < g.end; ++r) {
      const float* line = x + (rows ? rows[r] : r) * N + from;
      const double s = scale ? scale[r] : 1.0;
      for (int64_t j = 0; j < count; ++j) sum[j] += s * line[j];
    }
    for (int64_t j = 0; j < count; ++j) g.sum[from + j] = static_cast<float>(g.sum[from + j] + sum[j]);
  };
  int64_t work = 0;
  for (int64_t i = 0; i < groups; ++i) work += (group(i).end - group(i).begin) * N;
  if (work < 1 << 17)
    for (int64_t i = 0; i < groups * blocks; ++i) body(i);
  else parallel_for(groups * blocks, body);
}

}  // namespace temper::cpu
