// What the attention kernels share: sequences found and checked by the kernel itself, f32 operands as sums of bf16
// parts, and the arithmetic of one block of 64 keys against 16 rows of queries. A row is one query and one query head;
// the heads of a kv head stand next to one another.
//
// The order of a row's sums is fixed by its own keys alone. Blocks begin at multiples of 64 of the logical key index;
// each has its own largest score, its own sum and its own value sums from zero, and the blocks are folded in rising
// order. A block that a row does not see folds in as nothing, to the bit. So neither the tile a row lies in, nor the
// batch around it, nor whether the blocks were computed one after another (prefill, training) or at once (decode) can
// be told from the result.
#pragma once
#include "cuda/device/tensor_cores.cuh"
#include "gpu/vector.cuh"

namespace temper::gpu::attention {

constexpr int kKeys = 64;               // of a block
constexpr int kWidth = 64;              // head width of the tensor-core kernels; a narrower head is padded with zeros
constexpr int kSteps = kWidth / 16;     // of an mma, 16 deep
constexpr int kTile = 64 * kWidth * 2;  // bytes of 64 rows of one part
constexpr float kLog2e = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

// How many bf16 parts stand for an f32 operand: x = x₀ + x₁ + …, each the rest rounded. Of the products of parts those
// are kept whose order i + j is below Parts. 1 is bf16; 2 leaves 2^-17 of each product (one term alone shows it); 3
// leaves 2^-25, below what f32 rounds away.
constexpr int kPartsF32 = 3;

struct Problem {
  const int32_t *q_start, *k_start, *k_len;
  const int32_t* pages;       // [B, table >> page_bits], or null: k_start counts
  int64_t B, T, S;            // S: rows of k; with pages B·table, as the sequences' keys count through
  int64_t table, page_limit;  // keys that a sequence's pages hold; pages that k holds
  int page_bits;
  int H, Hkv, group, Dh, window, ring;
  int separate;  // 1: keys must lie in rising rows that do not overlap (backward)
  float scale;
  Fault* fault;
  FaultName op, q_start_name, k_start_name, k_len_name, pages_name;
};

struct Sequence {
  int64_t row, key;     // first row of q; first row of k, with pages of all sequences' keys
  int queries, length;  // queries, keys
  int index;            // its number in the batch
};

// Of a row of queries, for the backward pass: lse·log2 e and Σ dout·o.
struct Stats {
  float log_sum, dot;
};

TEMPER_DEVICE int position_of(const Sequence& s, int query) { return s.length - s.queries + query; }
TEMPER_DEVICE int first_key(const Problem& p, int position) {
  return p.window > 0 && position >= p.window ? position - p.window + 1 : 0;
}
// Of q, o and lse: where row r of a sequence and a kv head lies.
TEMPER_DEVICE int64_t head_row(const Problem& p, const Sequence& s, int kv_head, int r) {
  return (s.row + r / p.group) * p.H + kv_head * p.group + r % p.group;
}
// The row of k that is row i of all sequences' pages one after another.
TEMPER_DEVICE int64_t paged_row(const Problem& p, int64_t i) {
  const int64_t at = i >> p.page_bits, page = checked_index(p.fault, p.op, p.pages_name, at, p.pages[at], p.page_limit);
  return (page << p.page_bits) + (i & ((int64_t{1} << p.page_bits) - 1));
}
TEMPER_DEVICE int64_t key_row(const Problem& p, const Sequence& s, int j) {
  if (p.pages) return paged_row(p, s.key + j);
  return s.key + (p.ring > 0 ? j % p.ring : j);
}

// Exclusive sum over the threads below; total over all. Two barriers.
template <int Threads>
TEMPER_DEVICE long long block_scan(long long x, long long& total) {
  __shared__ long long parts[Threads / kWarp];
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  long long sum = x;
  for (int step = 1; step < kWarp; step *= 2) {
    const long long other = __shfl_up_sync(kAllLanes, sum, static_cast<unsigned>(step));
    if (lane >= step) sum += other;
  }
  __syncthreads();
  if (lane == kWarp - 1) parts[warp] = sum;
  __syncthreads();
  long long before = 0;
  total = 0;
  for (int i = 0; i < Threads / kWarp; ++i) {
    if (i < warp) before += parts[i];
    total += parts[i];
  }
  return before + sum - x;
}

// Sequence b, or false and a report.
TEMPER_DEVICE bool read_sequence(const Problem& p, int64_t b, Sequence& s) {
  const int64_t begin = p.q_start[b], end = p.q_start[b + 1], length = p.k_len[b],
                key = p.pages ? b * p.table : p.k_start[b], n = end - begin;
  const auto bad = [&](const FaultName& name, int64_t at, int64_t value, int64_t limit) {
    report_fault(p.fault, FaultCode::bad_index, p.op, name, at, value, limit);
    return false;
  };
  if (b == 0 && begin != 0) return bad(p.q_start_name, 0, begin, 0);
  if (b == p.B - 1 && end != p.T) return bad(p.q_start_name, b + 1, end, p.T);
  if (n < 0) return bad(p.q_start_name, b + 1, end, begin);
  if (length < n) return bad(p.k_len_name, b, length, n);
  if (p.pages && length > p.table) return bad(p.k_len_name, b, length, p.table);
  if (key < 0 || key + (p.ring > 0 && length > p.ring ? p.ring : length) > p.S) return bad(p.k_start_name, b, key, p.S);
  s = {begin, key, static_cast<int>(n), static_cast<int>(length), static_cast<int>(b)};
  if (p.ring > 0 && n > 0) {
    const int first = first_key(p, static_cast<int>(length - n));
    if (length - first > p.ring) return bad(p.k_len_name, b, length - first, p.ring);
  }
  if (p.separate && b > 0 && key < static_cast<int64_t>(p.k_start[b - 1]) + p.k_len[b - 1])
    return bad(p.k_start_name, b, key, static_cast<int64_t>(p.k_start[b - 1]) + p.k_len[b - 1]);
  return true;
}

// Walks all sequences, Threads at a time, and finds the one among whose `count(sequence)` items stands `item`; `index`
// is its place there. False when there is none, or when any sequence is wrong: then no block of the grid touches
// memory. All threads of the block call it. What is found stays in shared memory (`kept`): reading it there again frees
// the registers it would hold.
template <int Threads, class Count>
TEMPER_DEVICE bool find_sequence(const Problem& p, long long item, const Count& count, Sequence& found, int64_t& index,
                                 const Sequence** kept = nullptr) {
  __shared__ Sequence chosen;
  __shared__ long long place;
  if (kept) *kept = &chosen;
  if (threadIdx.x == 0) place = -1;
  if (p.B == 0 && (p.q_start[0] != 0 || p.T != 0)) {
    report_fault(p.fault, FaultCode::bad_index, p.op, p.q_start_name, 0, p.q_start[0], p.T);
    return false;
  }
  long long before = 0;
  for (int64_t base = 0; base < p.B; base += Threads) {
    const int64_t b = base + threadIdx.x;
    Sequence s{0, 0, 0, 0, 0};
    const bool bad = b < p.B && !read_sequence(p, b, s);
    if (__syncthreads_or(bad)) return false;
    const long long items = b < p.B ? count(s) : 0;
    long long total;
    const long long mine = before + block_scan<Threads>(items, total);
    if (item >= mine && item < mine + items) {
      chosen = s;
      place = item - mine;
    }
    before += total;
  }
  __syncthreads();
  found = chosen;
  index = place;
  __syncthreads();  // read before a next call writes
  return index >= 0;
}

// ---- operands ----
// x and y as pairs of bf16, part by part.
template <int Parts>
TEMPER_DEVICE void split(float x, float y, uint32_t (&out)[Parts]) {
#pragma unroll
  for (int i = 0; i < Parts; ++i) {
    out[i] = pack_bf16(x, y);
    if (i + 1 < Parts) {
      x -= bits_to_float(out[i] << 16);
      y -= bits_to_float(out[i] & 0xffff0000u);
    }
  }
}

// A tile: 64 rows of 64 bf16, 128 bytes each; the 16-byte chunks of a row are permuted by its number so that eight rows
// of a column lie in different banks.
TEMPER_DEVICE unsigned char* tile_at(unsigned char* tile, int row, int chunk) {
  return tile + row * 128 + ((chunk ^ (row & 7)) << 4);
}

// B operands of two mma side by side: rows row…row+15 of the tile as their columns, its columns 16·step… as the depth.
// row is a multiple of 16: the permutation then comes out of the lane alone, and a step flips bits 5 and 6 of an
// address.
template <int Parts>
TEMPER_DEVICE void load_rows(uint32_t (&b)[Parts][4], unsigned char* tile, int row, int step) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp,
            own = (lane / 16 * 8 + lane % 8) * 128 + ((lane / 8 % 2) ^ (lane % 8)) * 16;
#pragma unroll
  for (int i = 0; i < Parts; ++i) ldmatrix_x4(b[i], tile + i * kTile + row * 128 + (own ^ (step * 32)));
}
// The same, with rows row…row+15 as the depth and columns 16·step… as columns.
template <int Parts>
TEMPER_DEVICE void load_columns(uint32_t (&b)[Parts][4], unsigned char* tile, int row, int step) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, own = (lane % 16) * 128 + ((lane / 16) ^ (lane % 8)) * 16;
#pragma unroll
  for (int i = 0; i < Parts; ++i) ldmatrix_x4_transposed(b[i], tile + i * kTile + row * 128 + (own ^ (step * 32)));
}
// left, right += a·b, the small products first.
template <int Parts>
TEMPER_DEVICE void multiply(float (&left)[4], float (&right)[4], const uint32_t (&a)[Parts][4],
                            const uint32_t (&b)[Parts][4]) {
#pragma unroll
  for (int order = Parts - 1; order >= 0; --order)
#pragma unroll
    for (int i = order; i >= 0; --i) {
      const uint32_t b0[2] = {b[order - i][0], b[order - i][1]}, b1[2] = {b[order - i][2], b[order - i][3]};
      mma_bf16(left, a[i], b0);
      mma_bf16(right, a[i], b1);
    }
}
// Two accumulators, 16 columns side by side, as the A operand of a product over these columns.
template <int Parts>
TEMPER_DEVICE void as_operand(uint32_t (&a)[Parts][4], const float (&left)[4], const float (&right)[4]) {
  uint32_t x[Parts];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float* c = i < 2 ? left : right;
    split<Parts>(c[i % 2 * 2], c[i % 2 * 2 + 1], x);
#pragma unroll
    for (int part = 0; part < Parts; ++part) a[part][i] = x[part];
  }
}
// 16 rows of f32 in memory as A operands: this thread's are `upper` (row lane/4) and `lower` (8 further); null is a row
// of zeros.
template <int Parts>
TEMPER_DEVICE void load_operand(uint32_t (&a)[kSteps][Parts][4], const float* upper, const float* lower, int width,
                                float factor) {
  const int t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
  for (int step = 0; step < kSteps; ++step)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float* row = i % 2 ? lower : upper;
      const int d = step * 16 + i / 2 * 8 + 2 * t;
      uint32_t x[Parts];
      split<Parts>(row && d < width ? factor * row[d] : 0.0f, row && d + 1 < width ? factor * row[d + 1] : 0.0f, x);
#pragma unroll
      for (int part = 0; part < Parts; ++part) a[step][part][i] = x[part];
    }
}

// Such rows kept through a loop: as one part, or as f32 that is split at each use, since three parts of two tensors and
// their sums would not all fit the registers.
template <int Parts>
struct KeptRows {
  float x[kSteps][4][2];
  TEMPER_DEVICE void load(const float* upper, const float* lower, int width) {
    const int t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
    for (int step = 0; step < kSteps; ++step)
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const float* row = i % 2 ? lower : upper;
          const int d = step * 16 + i / 2 * 8 + 2 * t + e;
          x[step][i][e] = row && d < width ? row[d] : 0.0f;
        }
  }
  TEMPER_DEVICE void operand(uint32_t (&a)[Parts][4], int step) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      uint32_t y[Parts];
      split<Parts>(opaque(x[step][i][0]), opaque(x[step][i][1]), y);
#pragma unroll
      for (int part = 0; part < Parts; ++part) a[part][i] = y[part];
    }
  }
};
template <>
struct KeptRows<1> {
  uint32_t x[kSteps][1][4];
  TEMPER_DEVICE void load(const float* upper, const float* lower, int width) {
    load_operand<1>(x, upper, lower, width, 1.0f);
  }
  TEMPER_DEVICE void operand(uint32_t (&a)[1][4], int step) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) a[0][i] = x[step][0][i];
  }
};

// Two tensors as bf16 parts (K and V, or Q and dout), as pack_parts leaves them: a row is the first's parts and then
// the second's, each 64 wide and padded with zeros; a head's rows lie together.
template <int Parts>
constexpr int kPacked = 2 * Parts * kWidth;  // elements of a row
// Starts copying 64 rows of both tensors, all parts, to the tiles of a stage: `row_of(i)` is the packed row that
// becomes row i, negative for zeros. By Threads threads, of which this is number `thread`.
template <int Parts, int Threads, class Row>
TEMPER_DEVICE void copy_tiles(const uint16_t* packed, unsigned char* stage, const Row& row_of,
                              int thread = static_cast<int>(threadIdx.x)) {
  const int chunk = thread % 8, first = thread / 8;
  static_assert(Threads % 64 == 0, "rows 8 apart share a permutation");
  unsigned char* to = tile_at(stage, first, chunk);
#pragma unroll
  for (int i = 0; i < 512 / Threads; ++i) {
    const int row = row_of(first + i * (Threads / 8));
    const uint16_t* from = packed + static_cast<int64_t>(row < 0 ? 0 : row) * kPacked<Parts> + chunk * 8;
#pragma unroll
    for (int part = 0; part < 2 * Parts; ++part)
      cp_async16(to + i * (Threads / 8) * 128 + part * kTile, from + part * kWidth, row >= 0);
  }
  cp_async_commit();
}

// ---- the running softmax ----
// Scores in units of log2: t = c·s with c = |scale|·log2 e; the sign of scale went into the queries. c is never 0, so
// that c·(−∞) stays −∞.
TEMPER_DEVICE float score_factor(float scale) {
  const float c = (scale < 0 ? -scale : scale) * kLog2e;
  return c > 0x1p-126f ? c : 0x1p-126f;
}

struct RowState {
  float most, sum;
};  // largest score so far (log2), sum of 2^(t − most)

// One block of a thread's two rows (half 0 and 1): s becomes 2^(c·s − most).
TEMPER_DEVICE void softmax_block(float (&s)[8][4], float c, RowState (&out)[2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float top = s[0][2 * half];
#pragma unroll
    for (int n = 0; n < 8; ++n) top = fmaxf(top, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
    top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 1));
    top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 2));
    const float most = top * c, shift = most == -INFINITY ? 0.0f : most;
    float sum = 0;
#pragma unroll
    for (int n = 0; n < 8; ++n)
#pragma unroll
      for (int e = 2 * half; e < 2 * half + 2; ++e) {
        s[n][e] = exp2_approx(fused(s[n][e], c, -shift));
        sum += s[n][e];
      }
    sum += __shfl_xor_sync(kAllLanes, sum, 1);
    sum += __shfl_xor_sync(kAllLanes, sum, 2);
    out[half] = {most, sum};
  }
}
// state ∪ block; what was summed before is to be taken times `before`, the block's sums times `here`.
TEMPER_DEVICE void fold(RowState& state, const RowState& block, float& before, float& here) {
  const float most = fmaxf(state.most, block.most), shift = most == -INFINITY ? 0.0f : most;
  before = exp2_approx(state.most - shift);
  here = exp2_approx(block.most - shift);
  state = {most, fused(block.sum, here, state.sum * before)};
}
TEMPER_DEVICE float fold_value(float value, float block, float before, float here) {
  return fused(block, here, value * before);
}
TEMPER_DEVICE float log_sum(const RowState& s) { return fused(s.most, kLn2, logf(s.sum)); }

struct Sinks {
  const void* data;  // null: none
  int bf16;
  TEMPER_DEVICE RowState state(int head) const {  // a score that is there from the start and has no value
    if (!data) return {-INFINITY, 0.0f};
    const float x =
        bf16 ? bf16_to_float(static_cast<const uint16_t*>(data)[head]) : static_cast<const float*>(data)[head];
    return {x * kLog2e, 1.0f};
  }
};

}  // namespace temper::gpu::attention
