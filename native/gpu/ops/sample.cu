// Choosing the next token, without sorting the vocabulary and without waiting for the host: six launches whose grids
// follow from the shape, so a decode step can be captured. What cpu/sample.cpp sums in double is summed here in 64-bit
// fixed point (the largest logit's mass is 2⁴⁴ for a vocabulary of up to 2¹⁸): integer sums have no order, so any block
// may add when it likes and the choice is the same on every run.
//   stats    a block per kChunk logits: largest raw logit, Σ exp, best allowed one
//   bins     rows that need a cut: counts and masses by distance from the best logit, kBinsPerUnit bins to a unit of
//   (best − x)/τ collect  the ids in the bins where top_k or top_p can end; typically a few hundred
//   cut      a block per row: radix selection among those by (logit, id), exact whatever the ties
//   masses   a block per chunk: the sum of what remains
//   pick     a block per row: the chunk, then the element, in which u falls
// sm_90a: at most 62 registers, 24 KB of shared memory (bins); 99 blocks to a row of 201,088. Runs on an H200, not
// timed. Bytes: the logits three to five times, from L2 after the first (0.8 MB a row); stats and masses take one f32
// and one double exp an element. Rows without top_k and top_p leave bins, collect and cut at once. A cut bin that holds
// most of a vocabulary (τ ≫ 10) is right but slow: one block reads it.
#include <cfloat>
#include <cmath>

#include "gpu/ops.h"
#include "gpu/runtime.h"
#include "gpu/vector.cuh"
#include "gpu/workspace.h"

namespace temper::gpu {
namespace {

using Word = unsigned long long;

constexpr int kEach = 8, kChunk = kThreads * kEach;  // logits to a thread and to a block
constexpr int kBins = workspace::kSampleBins;
static_assert(kChunk == workspace::kSampleChunk);
constexpr float kBinsPerUnit = 64.0f;         // e^−32 is below the fixed point's last bit
constexpr int kCutThreads = 512, kDigit = 9;  // radix selection: 512 counters

// of a chunk: best allowed (as a rank, 0: none), largest raw logit, Σ exp(x − shift)
struct Part {
  Word best;
  float shift;
  double total;
};

struct Rows {  // device memory of a call
  const float *logits, *params, *u;
  const int32_t* mask;
  Part* parts;       // [B, chunks]
  uint32_t* counts;  // [B, kBins]
  Word* masses;      // [B, kBins]
  uint32_t* listed;  // [B]
  int32_t* list;     // [B, V]
  Word* cuts;        // [B]: candidates have at least this rank
  Word* chunk_mass;  // [B, chunks]
  int64_t V;
  int chunks, id_bits;
  double one;  // fixed-point mass of the best logit
  Fault* fault;
};

struct Params {
  float temperature, top_p, min_p, u;
  int64_t top_k;
  bool greedy, cut;
};

// A parameter out of its range makes the row greedy; `report` says so once.
TEMPER_DEVICE Params params_of(const Rows& r, int64_t b, bool report) {
  const float* p = r.params + 4 * b;
  const float given[5] = {p[0], p[1], p[2], p[3], r.u[b]};
  const bool good[5] = {p[0] >= 0 && p[0] <= FLT_MAX, p[1] >= 0, p[2] >= 0 && p[2] <= 1, p[3] >= 0 && p[3] <= 1,
                        given[4] >= 0 && given[4] < 1};
  const char* const names[5] = {"temperature", "top_k", "top_p", "min_p", "u"};
  bool sound = true;
  for (int i = 0; i < 5; ++i) {
    if (!good[i] && report)
      report_fault(r.fault, FaultCode::bad_number, "sample", names[i], b, float_to_bits(given[i]), 0);
    sound = sound && good[i];
  }
  Params out{given[0], given[2], given[3], given[4], 0, true, false};
  if (!sound) return out;
  out.top_k = given[1] >= static_cast<float>(r.V) ? 0 : static_cast<int64_t>(given[1]);
  out.greedy = given[0] == 0 || out.top_k == 1 || given[2] == 0;  // all keep the best logit alone
  out.cut = !out.greedy && (out.top_k > 0 || given[2] < 1);
  return out;
}

TEMPER_DEVICE bool is_finite(float x) { return fabsf(x) <= FLT_MAX; }
TEMPER_DEVICE bool allowed(const Rows& r, int64_t b, int64_t v) {
  return !r.mask || static_cast<uint32_t>(r.mask[b * ((r.V + 31) / 32) + v / 32]) >> (v % 32) & 1u;
}
// The order of the candidates: by logit, of equal ones the lower id first. No two are alike; 0 is below all.
TEMPER_DEVICE Word rank_of(float x, int64_t v, int id_bits) {
  const uint32_t bits = float_to_bits(x + 0.0f), order = bits & 0x80000000u ? ~bits : bits | 0x80000000u;  // −0 as +0
  return static_cast<Word>(order) << id_bits | ((Word{1} << id_bits) - 1 - static_cast<Word>(v));
}
TEMPER_DEVICE float rank_logit(Word rank, int id_bits) {
  const uint32_t order = static_cast<uint32_t>(rank >> id_bits);
  return bits_to_float(order & 0x80000000u ? order & 0x7fffffffu : ~order);
}
TEMPER_DEVICE int64_t rank_id(Word rank, int id_bits) {
  return static_cast<int64_t>((Word{1} << id_bits) - 1 - (rank & ((Word{1} << id_bits) - 1)));
}

struct Weigh {
  double best, inverse, one, min_p;
  TEMPER_DEVICE Word operator()(float x) const {  // min_p leaves nothing of what lies below it
    const double z = (static_cast<double>(x) - best) * inverse;
    if (z < -50.0) return 0;
    const double w = exp(z);
    return w < min_p ? 0 : static_cast<Word>(w * one + 0.5);
  }
};
TEMPER_DEVICE Weigh weigh_of(const Rows& r, const Params& p, float best, float min_p) {
  return {static_cast<double>(best), 1.0 / p.temperature, r.one, static_cast<double>(min_p)};
}

// Falls with x, so bins are in the order of the candidates.
TEMPER_DEVICE int bin_of(float x, float best, float temperature) {
  if (x == best) return 0;
  const float at = (best - x) * (kBinsPerUnit / temperature);
  return at < kBins - 1 ? static_cast<int>(at) : kBins - 1;
}

// ---- over a block, integers ----
template <int Threads>
TEMPER_DEVICE Word block_largest(Word x) {
  __shared__ Word parts[Threads / kWarp];
  for (int step = kWarp / 2; step; step /= 2) {
    const Word other = __shfl_xor_sync(kAllLanes, x, step);
    x = other > x ? other : x;
  }
  __syncthreads();
  if (threadIdx.x % kWarp == 0) parts[threadIdx.x / kWarp] = x;
  __syncthreads();
  for (int i = 0; i < Threads / kWarp; ++i) x = parts[i] > x ? parts[i] : x;
  return x;
}
struct Scan {
  Word before, total;
};  // the sum over lower threads, and over all
template <int Threads>
TEMPER_DEVICE Scan block_scan(Word x) {
  __shared__ Word parts[Threads / kWarp];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  Word inclusive = x;
  for (int step = 1; step < kWarp; step *= 2) {
    const Word other = __shfl_up_sync(kAllLanes, inclusive, step);
    if (lane >= step) inclusive += other;
  }
  __syncthreads();
  if (lane == kWarp - 1) parts[warp] = inclusive;
  __syncthreads();
  Scan out{inclusive - x, 0};
  for (int i = 0; i < Threads / kWarp; ++i) {
    if (i < warp) out.before += parts[i];
    out.total += parts[i];
  }
  return out;
}
template <int Threads>
TEMPER_DEVICE Word row_best(const Rows& r, int64_t b) {
  Word best = 0;
  for (int c = threadIdx.x; c < r.chunks; c += Threads) {
    const Word other = r.parts[b * r.chunks + c].best;
    best = other > best ? other : best;
  }
  return block_largest<Threads>(best);
}

// This thread's logits of a chunk, W side by side; −∞ past the end.
template <int W>
TEMPER_DEVICE void load_chunk(float (&x)[kEach], const Rows& r, int64_t b, int64_t first) {
#pragma unroll
  for (int k = 0; k < kEach; k += W) {
    const int64_t v = first + static_cast<int64_t>(k) * kThreads;
#pragma unroll
    for (int j = 0; j < W; ++j) x[k + j] = -INFINITY;
    if (v >= r.V) continue;
    const Floats<W> in = load<W>(r.logits + b * r.V + v);
#pragma unroll
    for (int j = 0; j < W; ++j) x[k + j] = in.v[j];
  }
}
template <int W>
TEMPER_DEVICE int64_t chunk_first() {
  return static_cast<int64_t>(blockIdx.x) * kChunk + static_cast<int64_t>(threadIdx.x) * W;
}
template <int W>
TEMPER_DEVICE int64_t chunk_id(int64_t first, int k) {
  return first + static_cast<int64_t>(k / W * W) * kThreads + k % W;
}

// ---- the launches ----
template <int W>
__global__ void __launch_bounds__(kThreads) stats_kernel(Rows r) {
  wait_for_previous();
  const int64_t b = blockIdx.y, first = chunk_first<W>();
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    params_of(r, b, true);
    r.listed[b] = 0;
  }
  for (int i = blockIdx.x * kThreads + threadIdx.x; i < kBins; i += gridDim.x * kThreads) {
    r.counts[b * kBins + i] = 0;
    r.masses[b * kBins + i] = 0;
  }
  float x[kEach];
  load_chunk<W>(x, r, b, first);
  float shift = -INFINITY;
  Word best = 0;
#pragma unroll
  for (int k = 0; k < kEach; ++k) {
    if (!is_finite(x[k])) continue;
    const int64_t v = chunk_id<W>(first, k);
    shift = x[k] > shift ? x[k] : shift;
    const Word rank = rank_of(x[k], v, r.id_bits);
    if (rank > best && allowed(r, b, v)) best = rank;
  }
  shift = block_max<kThreads>(shift);
  float sum = 0;
#pragma unroll
  for (int k = 0; k < kEach; ++k)
    if (is_finite(x[k])) sum += expf(x[k] - shift);
  sum = block_sum<kThreads>(sum);
  best = block_largest<kThreads>(best);
  if (threadIdx.x == 0) r.parts[b * r.chunks + blockIdx.x] = {best, shift, static_cast<double>(sum)};
}

template <int W>
__global__ void __launch_bounds__(kThreads) bins_kernel(Rows r) {
  wait_for_previous();
  const int64_t b = blockIdx.y, first = chunk_first<W>();
  const Params p = params_of(r, b, false);
  if (!p.cut) return;
  const Word best_rank = row_best<kThreads>(r, b);
  if (!best_rank) return;
  // a mass in two halves: 32-bit adds in shared memory are one instruction
  __shared__ uint32_t counts[kBins], low[kBins], high[kBins];
  for (int i = threadIdx.x; i < kBins; i += kThreads) counts[i] = low[i] = high[i] = 0;
  __syncthreads();
  const float best = rank_logit(best_rank, r.id_bits);
  const Weigh weigh = weigh_of(r, p, best, 0);
  float x[kEach];
  load_chunk<W>(x, r, b, first);
  for (int k = 0; k < kEach; ++k) {
    if (!is_finite(x[k]) || !allowed(r, b, chunk_id<W>(first, k))) continue;
    const int bin = bin_of(x[k], best, p.temperature);
    const Word mass = weigh(x[k]);
    atomicAdd(counts + bin, 1u);
    if (!mass) continue;
    const uint32_t add = static_cast<uint32_t>(mass), old = atomicAdd(low + bin, add);
    // exactly the add that wraps carries
    const uint32_t upper = static_cast<uint32_t>(mass >> 32) + (old + add < old ? 1u : 0u);
    if (upper) atomicAdd(high + bin, upper);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kBins; i += kThreads) {
    if (!counts[i]) continue;
    atomicAdd(r.counts + b * kBins + i, counts[i]);
    atomicAdd(r.masses + b * kBins + i, static_cast<Word>(high[i]) << 32 | low[i]);
  }
}

// ⌈share·total⌉, one at least: a prefix ends where its mass reaches this.
TEMPER_DEVICE Word wanted_mass(float share, Word total) {
  const Word w = static_cast<Word>(ceil(static_cast<double>(share) * static_cast<double>(total)));
  return w > 0 ? w : 1;
}

// The bins [lo, hi] in which the cuts can lie. take: how many of their candidates top_k keeps (0: it cuts nothing).
struct Region {
  int lo, hi;
  Word mass_before, mass_total, take;
};
template <int Threads>
TEMPER_DEVICE Region region_of(const Rows& r, const Params& p, int64_t b) {
  constexpr int kOwn = kBins / Threads;
  __shared__ Word found_count, found_before, found_after;
  __shared__ int found_last, found_first;
  const int first = threadIdx.x * kOwn;
  Word count[kOwn], mass[kOwn], counts = 0, masses = 0;
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    counts += count[i] = r.counts[b * kBins + first + i];
    masses += mass[i] = r.masses[b * kBins + first + i];
  }
  const Scan by_count = block_scan<Threads>(counts), by_mass = block_scan<Threads>(masses);
  const bool cut_k = p.top_k > 0 && static_cast<Word>(p.top_k) < by_count.total;
  const Word k = static_cast<Word>(p.top_k);
  __syncthreads();
  if (cut_k) {
    Word before = by_count.before, mass_before = by_mass.before;
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      if (before < k && k <= before + count[i]) {
        found_last = first + i;
        found_after = mass_before;  // of the bins before the one top_k ends in
      }
      before += count[i];
      mass_before += mass[i];
    }
  }
  __syncthreads();
  Region out{1, 0, 0, by_mass.total, 0};
  if (!cut_k && p.top_p >= 1) return out;
  const int last = cut_k ? found_last : kBins - 1;
  // With top_k the mass to share out is not known before its cut is; it is at least that of the bins before.
  const Word wanted = p.top_p < 1 ? wanted_mass(p.top_p, cut_k ? found_after : by_mass.total) : 0;
  Word before_count = by_count.before, before = by_mass.before;
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    const bool here = p.top_p < 1 ? before < wanted && wanted <= before + mass[i] : first + i == last;
    if (here) {
      found_first = first + i;
      found_count = before_count;
      found_before = before;
    }
    before_count += count[i];
    before += mass[i];
  }
  __syncthreads();
  out.lo = found_first;
  out.hi = cut_k ? last : out.lo;
  out.mass_before = found_before;
  out.take = cut_k ? k - found_count : 0;
  return out;
}

template <int W>
__global__ void __launch_bounds__(kThreads) collect_kernel(Rows r) {
  wait_for_previous();
  const int64_t b = blockIdx.y, first = chunk_first<W>();
  const Params p = params_of(r, b, false);
  if (!p.cut) return;
  const Word best_rank = row_best<kThreads>(r, b);
  if (!best_rank) return;
  const float best = rank_logit(best_rank, r.id_bits);
  const Region region = region_of<kThreads>(r, p, b);
  if (region.lo > region.hi) return;
  float x[kEach];
  load_chunk<W>(x, r, b, first);
  for (int k = 0; k < kEach; ++k) {
    const int64_t v = chunk_id<W>(first, k);
    bool wanted = is_finite(x[k]) && allowed(r, b, v);
    if (wanted) {
      const int bin = bin_of(x[k], best, p.temperature);
      wanted = bin >= region.lo && bin <= region.hi;
    }
    const unsigned lanes = __ballot_sync(kAllLanes, wanted);
    if (!lanes) continue;
    const int lane = threadIdx.x % kWarp, leader = __ffs(static_cast<int>(lanes)) - 1;
    uint32_t at = 0;
    if (lane == leader) at = atomicAdd(r.listed + b, static_cast<uint32_t>(__popc(lanes)));
    at = __shfl_sync(kAllLanes, at, leader);
    if (wanted) r.list[b * r.V + at + __popc(lanes & ((1u << lane) - 1u))] = static_cast<int32_t>(v);
  }
}

// The lowest rank of the smallest set of largest listed candidates whose weights (1 each, or masses) reach `wanted`.
// Digit by digit from the top bit in which the candidates differ.
template <bool ByMass>
TEMPER_DEVICE Word select_rank(const Rows& r, const Weigh& weigh, int64_t b, int64_t n, Word wanted) {
  constexpr int kCounters = 1 << kDigit;
  static_assert(kCounters == kCutThreads);
  __shared__ Word counters[kCounters];
  __shared__ Word found_before;
  __shared__ int found_digit;
  const float* row = r.logits + b * r.V;
  const int32_t* list = r.list + b * r.V;
  Word most = 0, inverse = 0;
  for (int64_t i = threadIdx.x; i < n; i += kCutThreads) {
    const Word rank = rank_of(row[list[i]], list[i], r.id_bits);
    most = rank > most ? rank : most;
    inverse = ~rank > inverse ? ~rank : inverse;
  }
  most = block_largest<kCutThreads>(most);
  const Word least = ~block_largest<kCutThreads>(inverse);
  int bits = 0;
  while ((most ^ least) >> bits) ++bits;
  Word prefix = most >> bits;
  while (bits > 0) {
    const int width = bits < kDigit ? bits : kDigit;
    counters[threadIdx.x] = 0;
    __syncthreads();
    for (int64_t i = threadIdx.x; i < n; i += kCutThreads) {
      const float x = row[list[i]];
      const Word rank = rank_of(x, list[i], r.id_bits);
      if (rank >> bits != prefix) continue;
      atomicAdd(counters + ((rank >> (bits - width)) & ((Word{1} << width) - 1)), ByMass ? weigh(x) : Word{1});
    }
    __syncthreads();
    const int digit = kCounters - 1 - static_cast<int>(threadIdx.x);  // falling
    const Word own = counters[digit];
    const Scan scan = block_scan<kCutThreads>(own);
    if (scan.before < wanted && wanted <= scan.before + own) {
      found_digit = digit;
      found_before = scan.before;
    }
    __syncthreads();
    prefix = prefix << width | static_cast<Word>(found_digit);
    wanted -= found_before;
    bits -= width;
    __syncthreads();
  }
  return prefix;
}

__global__ void __launch_bounds__(kCutThreads, 1) cut_kernel(Rows r) {
  wait_for_previous();
  const int64_t b = blockIdx.x;
  const Params p = params_of(r, b, false);
  const Word best_rank = row_best<kCutThreads>(r, b);
  if (threadIdx.x == 0) r.cuts[b] = 0;
  if (!p.cut || !best_rank) return;
  const Region region = region_of<kCutThreads>(r, p, b);
  if (region.lo > region.hi) return;
  const Weigh weigh = weigh_of(r, p, rank_logit(best_rank, r.id_bits), 0);
  const int64_t n = r.listed[b];
  Word cut = 0, total = region.mass_total;
  if (region.take) {
    cut = select_rank<false>(r, weigh, b, n, region.take);
    if (p.top_p < 1) {
      Word mass = 0;
      for (int64_t i = threadIdx.x; i < n; i += kCutThreads) {
        const int32_t v = r.list[b * r.V + i];
        const float x = r.logits[b * r.V + v];
        if (rank_of(x, v, r.id_bits) >= cut) mass += weigh(x);
      }
      total = region.mass_before + block_scan<kCutThreads>(mass).total;
    }
  }
  if (p.top_p < 1) cut = select_rank<true>(r, weigh, b, n, wanted_mass(p.top_p, total) - region.mass_before);
  if (threadIdx.x == 0) r.cuts[b] = cut;
}

template <int W>
__global__ void __launch_bounds__(kThreads) masses_kernel(Rows r) {
  wait_for_previous();
  const int64_t b = blockIdx.y, first = chunk_first<W>();
  const Params p = params_of(r, b, false);
  const Word best = row_best<kThreads>(r, b), cut = r.cuts[b];
  if (p.greedy || !best) return;
  const Weigh weigh = weigh_of(r, p, rank_logit(best, r.id_bits), p.min_p);
  float x[kEach];
  load_chunk<W>(x, r, b, first);
  Word mass = 0;
#pragma unroll
  for (int k = 0; k < kEach; ++k) {
    const int64_t v = chunk_id<W>(first, k);
    if (is_finite(x[k]) && allowed(r, b, v) && rank_of(x[k], v, r.id_bits) >= cut) mass += weigh(x[k]);
  }
  const Word total = block_scan<kThreads>(mass).total;
  if (threadIdx.x == 0) r.chunk_mass[b * r.chunks + blockIdx.x] = total;
}

__global__ void __launch_bounds__(kThreads) pick_kernel(Rows r, int32_t* tokens, float* logprobs) {
  wait_for_previous();
  const int64_t b = blockIdx.x;
  const Params p = params_of(r, b, false);
  __shared__ int found_chunk, found_token;
  __shared__ Word found_before;
  const Word best = row_best<kThreads>(r, b);
  if (!best) {
    if (threadIdx.x != 0) return;
    report_fault(r.fault, FaultCode::no_candidate, "sample", "logits", b, 0, 0);
    tokens[b] = 0;
    logprobs[b] = 0;
    return;
  }
  float shift = -INFINITY;
  for (int c = threadIdx.x; c < r.chunks; c += kThreads) shift = fmaxf(shift, r.parts[b * r.chunks + c].shift);
  shift = block_max<kThreads>(shift);
  double total = 0;
  for (int c = threadIdx.x; c < r.chunks; c += kThreads) {
    const Part part = r.parts[b * r.chunks + c];
    if (part.total > 0) total += part.total * exp(static_cast<double>(part.shift) - shift);
  }
  total = block_sum<kThreads>(total);
  int64_t token = rank_id(best, r.id_bits);
  if (!p.greedy) {
    const int each = (r.chunks + kThreads - 1) / kThreads, from = threadIdx.x * each,
              to = from + each < r.chunks ? from + each : r.chunks;
    const Word* chunk_mass = r.chunk_mass + b * r.chunks;
    Word own = 0;
    for (int c = from; c < to; ++c) own += chunk_mass[c];
    const Scan chunks = block_scan<kThreads>(own);
    // The first candidate at which the sum walked so far is above u times the whole.
    const Word goal = static_cast<Word>(static_cast<double>(p.u) * static_cast<double>(chunks.total));
    if (chunks.before <= goal && goal < chunks.before + own) {
      Word before = chunks.before;
      int c = from;
      while (before + chunk_mass[c] <= goal) before += chunk_mass[c++];
      found_chunk = c;
      found_before = before;
    }
    __syncthreads();
    const Weigh weigh = weigh_of(r, p, rank_logit(best, r.id_bits), p.min_p);
    const Word cut = r.cuts[b];
    const int64_t first = static_cast<int64_t>(found_chunk) * kChunk + static_cast<int64_t>(threadIdx.x) * kEach;
    Word mass[kEach];
    own = 0;
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      const int64_t v = first + k;
      const float x = v < r.V ? r.logits[b * r.V + v] : -INFINITY;
      mass[k] = is_finite(x) && allowed(r, b, v) && rank_of(x, v, r.id_bits) >= cut ? weigh(x) : 0;
      own += mass[k];
    }
    const Word before = found_before + block_scan<kThreads>(own).before;
    if (before <= goal && goal < before + own) {
      Word walked = before;
#pragma unroll
      for (int k = 0; k < kEach; ++k) {
        if (walked <= goal && goal < walked + mass[k]) found_token = static_cast<int>(first + k);
        walked += mass[k];
      }
    }
    __syncthreads();
    token = found_token;
  }
  if (threadIdx.x != 0) return;
  tokens[b] = static_cast<int32_t>(token);
  logprobs[b] = static_cast<float>(static_cast<double>(r.logits[b * r.V + token]) - shift - log(total));
}

int bits_for(int64_t n) {
  int b = 1;
  while ((int64_t{1} << b) < n) ++b;
  return b;
}

}  // namespace

void sample(TensorRef tokens, TensorRef logprobs, TensorRef logits, TensorRef params, TensorRef u, TensorRef mask) {
  const int64_t B = logits->shape[0], V = logits->shape[1], chunks = blocks_for(V, kChunk);
  if (B == 0) return;
  require(V > 0, "bad_logits", "sample: the rows have no logits, wanted a vocabulary of at least one");
  const size_t rows = static_cast<size_t>(B), cells = static_cast<size_t>(B * chunks);
  Workspace<Part> parts(cells);
  Workspace<uint32_t> counts(rows * kBins), listed(rows);
  Workspace<Word> masses(rows * kBins), cuts(rows), chunk_mass(cells);
  Workspace<int32_t> list(static_cast<size_t>(B * V));
  const int id_bits = bits_for(V);
  const Rows r{logits->f32(),
               params->f32(),
               u->f32(),
               mask ? mask->i32() : nullptr,
               parts.data(),
               counts.data(),
               masses.data(),
               listed.data(),
               list.data(),
               cuts.data(),
               chunk_mass.data(),
               V,
               static_cast<int>(chunks),
               id_bits,
               std::ldexp(1.0, id_bits <= 18 ? 44 : 62 - id_bits),
               fault()};
  const dim3 grid(chunks, B);
  with_width(V % 4 == 0 && aligned(16, {logits->data}), [&](auto width) {
    constexpr int W = decltype(width)::value;
    launch(stats_kernel<W>, grid, dim3(kThreads), 0, r);
    launch(bins_kernel<W>, grid, dim3(kThreads), 0, r);
    launch(collect_kernel<W>, grid, dim3(kThreads), 0, r);
    launch(cut_kernel, dim3(B), dim3(kCutThreads), 0, r);
    launch(masses_kernel<W>, grid, dim3(kThreads), 0, r);
  });
  launch(pick_kernel, dim3(B), dim3(kThreads), 0, r, tokens->i32(), logprobs->f32());
}

}  // namespace temper::gpu
