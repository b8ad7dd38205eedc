// Blocking, packing and scheduling of products; the arithmetic is in the tile kernels.
#include "cpu/matmul/matmul.h"

#include <algorithm>
#include <cstring>

#include "cpu/host/isa.h"
#include "cpu/host/number.h"
#include "temper/memory.h"
#include "temper/threads.h"

namespace temper::cpu {
namespace {

constexpr int64_t kBlockRows = 264;  // rows of A that share a packed panel of B: their units fit half of L2
constexpr int64_t kBlockCols = 256;  // columns per task
constexpr int64_t kFewBytes = 768 << 10, kFewCols = 512;  // of weights and columns in a task of few rows, at most
// below these waking a thread costs more than it brings
constexpr int64_t kSerialMultiplies = 1 << 19, kSerialUnits = 1 << 16;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct Plan {
  const Product* product;
  bool few;  // as a product of few rows
  int64_t panels, row_blocks, col_blocks, block_cols;
  // per term: blocks of kUnits units, in each block panel after panel (few: prepared rows)
  uint32_t* packed_a[2];
  int64_t panel_begin(int64_t p) const { return p * product->m / panels; }
  int64_t block_begin(int64_t b) const { return b * panels / row_blocks; }  // in panels
};

int64_t units_of(const Term& t, const Path& path) { return ceil_div(t.k, path.pair); }

// Packs panels of A for one block of k.
void pack_a(const Plan& plan, int term, int64_t k_block, int64_t first, int64_t last, const Path& path) {
  const Term& t = plan.product->terms[term];
  const int64_t k0 = k_block * kUnits * path.pair;
  const int ks = static_cast<int>(std::min<int64_t>(t.k - k0, kUnits * path.pair));
  const int64_t units = ceil_div(ks, path.pair);
  uint32_t* block = plan.packed_a[term] + plan.product->m * k_block * kUnits;
  for (int64_t p = first; p < last; ++p) {
    const int64_t row = plan.panel_begin(p);
    const int rows = static_cast<int>(plan.panel_begin(p + 1) - row);
    (path.pack_a ? path.pack_a : path.pack)(block + row * units, t.a, row, rows, rows, k0, ks);
  }
}

// Few rows of one call.
int64_t dots_at_once(const Product& p, const FewRows& few) {
  return p.terms[0].b.kind == Kind::mxfp4 ? few.rows_mxfp4 : few.rows;
}

bool suits_few(const Product& p, const FewRows& few) {
  const bool alone = p.bits == RowBits::alone;
  bool yes = p.bits != RowBits::among_many && (alone || p.m <= std::min(p.few_rows, few.rows));
  for (int t = 0; t < p.num_terms; ++t) {
    const Source &a = p.terms[t].a, &b = p.terms[t].b;
    yes =
        yes && a.k_inner && b.k_inner && !b.rows && !b.row_scale && (alone || b.kind != Kind::mxfp4 || p.m <= kFewRows);
  }
  return yes;
}

// Columns of a task of few rows.
int64_t few_cols(Kind kind, int64_t k) {
  const int64_t bits = kind == Kind::f32 ? 32 : kind == Kind::bf16 ? 16 : kind == Kind::q8 ? 8 : 4;
  return std::clamp<int64_t>(kFewBytes * 8 / (bits * k) / 64 * 64, 64, kFewCols);
}

float bias_at(const Product& p, int64_t n) {
  return !p.bias                     ? 0.0f
         : p.bias_kind == Kind::bf16 ? load(static_cast<const uint16_t*>(p.bias) + n)
                                     : static_cast<const float*>(p.bias)[n];
}

// c[row … row + rows)[col … col + cols) · bias: of these columns
void run_few_rows(const Plan& plan, int64_t row, int64_t rows, int64_t col, int64_t cols, const FewRows& few,
                  const float* bias, float* out) {
  const Product& P = *plan.product;
  for (int term = 0; term < P.num_terms; ++term) {
    const Term& t = P.terms[term];
    const uint32_t* x = plan.packed_a[term] + row * few.units(t.b.kind, t.k);
    few.dots(out, kFewCols, static_cast<int>(rows), x, t.b, col, col + cols, t.k);
    for (int64_t i = 0; i < rows; ++i) {
      float* __restrict c = P.c + (row + i) * P.ldc + col;
      const float* __restrict sums = out + i * kFewCols;
      const float alpha = t.alpha;
      if (term > 0 || P.accumulate)
        for (int64_t j = 0; j < cols; ++j) c[j] += alpha * sums[j];
      else
        for (int64_t j = 0; j < cols; ++j) c[j] = bias[j] + alpha * sums[j];
    }
  }
}

void run_few(const Plan& plan, int64_t col_block, const FewRows& few) {
  const Product& P = *plan.product;
  alignas(64) float out[kMostFewRows * kFewCols], bias[kFewCols];
  const int64_t col = col_block * plan.block_cols, cols = std::min(P.n - col, plan.block_cols),
                at_once = dots_at_once(P, few);
  for (int64_t j = 0; j < cols; ++j) bias[j] = bias_at(P, col + j);
  for (int64_t row = 0; row < P.m; row += at_once)  // from the second time on the weights come from the cache
    run_few_rows(plan, row, std::min(at_once, P.m - row), col, cols, few, bias, out);
}

void run_block(const Plan& plan, int64_t row_block, int64_t col_block, const Path& path) {
  const Product& P = *plan.product;
  alignas(64) uint32_t packed_b[kPanels * kUnits * kMaxTileCols];
  alignas(64) float edge[kMaxTileRows * kMaxTileCols], bias[kMaxTileCols];
  const int64_t first = plan.block_begin(row_block), last = plan.block_begin(row_block + 1);
  const int64_t col_end = std::min(P.n, (col_block + 1) * plan.block_cols);
  bool overwrite = !P.accumulate;
  for (int term = 0; term < P.num_terms; ++term) {
    const Term& t = P.terms[term];
    const int64_t all_units = units_of(t, path), at_once = t.b.k_inner ? 1 : kPanels;
    for (int64_t k_block = 0; k_block * kUnits < all_units; ++k_block) {
      const int64_t k0 = k_block * kUnits * path.pair;
      const int ks = static_cast<int>(std::min<int64_t>(t.k - k0, kUnits * path.pair));
      const int units = static_cast<int>(ceil_div(ks, path.pair));
      const uint32_t* block = plan.packed_a[term] + P.m * k_block * kUnits;
      for (int64_t col = col_block * plan.block_cols, panel = 0; col < col_end; col += path.nr, ++panel) {
        const int cols = static_cast<int>(std::min<int64_t>(path.nr, P.n - col));
        if (panel % at_once == 0)
          path.pack(packed_b, t.b, col, static_cast<int>(std::min<int64_t>(at_once * path.nr, P.n - col)), path.nr, k0,
                    ks);
        const uint32_t* b = packed_b + panel % at_once * units * path.nr;
        const float* with_bias = nullptr;
        if (overwrite && P.bias) {
          for (int j = 0; j < path.nr; ++j) bias[j] = j < cols ? bias_at(P, col + j) : 0.0f;
          with_bias = bias;
        }
        for (int64_t p = first; p < last; ++p) {
          const int64_t row = plan.panel_begin(p);
          const int rows = static_cast<int>(plan.panel_begin(p + 1) - row);
          float* c = P.c + row * P.ldc + col;
          if (cols == path.nr) {
            path.tile(rows, units, block + row * units, b, c, P.ldc, t.alpha, overwrite, with_bias);
          } else {  // the last columns go through a whole tile beside c
            if (!overwrite)
              for (int i = 0; i < rows; ++i)
                std::memcpy(edge + i * path.nr, c + i * P.ldc, static_cast<size_t>(cols) * 4);
            path.tile(rows, units, block + row * units, b, edge, path.nr, t.alpha, overwrite, with_bias);
            for (int i = 0; i < rows; ++i)
              std::memcpy(c + i * P.ldc, edge + i * path.nr, static_cast<size_t>(cols) * 4);
          }
        }
      }
      overwrite = false;
    }
  }
  if (path.done) path.done();
}

}  // namespace

const Kernels& kernels() {
#if defined(__x86_64__)
  static const Kernels avx2 = [] {
    Kernels k = kKernelsAvx2;
    k.few_exact = kFewRowsAvx2;
    k.few_rounded = kFewRowsAvx2Rounded;
    return k;
  }();
  static const Kernels avx512 = [] {
    Kernels k = kKernelsAvx512;
    k.few_exact = kFewRowsAvx512;
    k.few_rounded = kFewRowsAvx512Rounded;
    return k;
  }();
  static const Kernels avx512bf16 = [] {
    Kernels k = avx512;
    k.rounded = kPathAvx512Bf16;
    k.few_rounded = kFewRowsAvx512Bf16;
    return k;
  }();
  static const Kernels amx = [] {
    Kernels k = avx512bf16;
    k.rounded = kPathAmx;
    k.few_rounded = kFewRowsAmx;
    k.few_rounded.add_pair = avx512bf16.few_rounded.add_pair;
    return k;
  }();
  switch (active_isa()) {
    case Isa::amx: return amx;
    case Isa::avx512bf16: return avx512bf16;
    case Isa::avx512: return avx512;
    case Isa::avx2: return avx2;
    default: break;
  }
#elif defined(__aarch64__)
  static const Kernels neonbf16 = [] {
    Kernels k = kKernelsNeon;
    k.rounded = kPathNeonBf16;
    return k;
  }();
  if (active_isa() == Isa::neonbf16) return neonbf16;
  if (active_isa() == Isa::neon) return kKernelsNeon;
#endif
  return kKernelsPortable;
}

namespace {

// 32-bit units of a term's packed or prepared rows.
int64_t packed_units(const Product& p, const Term& t, const Path& path, const FewRows& few) {
  return p.m * (suits_few(p, few) ? few.units(t.b.kind, t.k) : units_of(t, path));
}

}  // namespace

size_t multiply_workspace(const Product* products, int64_t count, int64_t precision) {
  const Path& path = precision ? kernels().rounded : kernels().exact;
  const FewRows& few = precision ? kernels().few_rounded : kernels().few_exact;
  int64_t units = 0;
  for (const Product* p = products; p < products + count; ++p)
    for (int term = 0; term < p->num_terms && p->m && p->n; ++term)
      units += packed_units(*p, p->terms[term], path, few);
  return static_cast<size_t>(count) * (sizeof(Plan) + 2 * sizeof(int64_t)) + static_cast<size_t>(units) * 4;
}

void multiply(const Product* products, int64_t count, int64_t precision) {
  const Path& path = precision ? kernels().rounded : kernels().exact;
  const FewRows& few = precision ? kernels().few_rounded : kernels().few_exact;
  Scratch<Plan> plans(static_cast<size_t>(count));
  Scratch<int64_t> task_end(static_cast<size_t>(count)), pack_end(static_cast<size_t>(count));
  const auto a_units = [&](const Plan& plan, const Term& t) { return packed_units(*plan.product, t, path, few); };
  int64_t num_plans = 0, tasks = 0, packs = 0, units = 0, work = 0;
  for (int64_t i = 0; i < count; ++i) {
    const Product& p = products[i];
    if (p.m == 0 || p.n == 0) continue;
    Plan& plan = plans[static_cast<size_t>(num_plans)];
    plan.product = &p;
    plan.few = suits_few(p, few);
    int64_t k_blocks = 0, k = 0;
    for (int term = 0; term < p.num_terms; ++term) {
      k_blocks += ceil_div(units_of(p.terms[term], path), kUnits);
      units += a_units(plan, p.terms[term]);
      k += p.terms[term].k;
    }
    if (k == 0) {
      if (!p.accumulate)
        for (int64_t r = 0; r < p.m; ++r)
          for (int64_t n = 0; n < p.n; ++n) p.c[r * p.ldc + n] = bias_at(p, n);
      continue;
    }
    work += p.m * p.n * k;
    plan.panels = ceil_div(p.m, path.mr);
    plan.row_blocks = plan.few ? 1 : std::min(plan.panels, ceil_div(plan.panels * path.mr, kBlockRows));
    plan.block_cols = plan.few ? few_cols(p.terms[0].b.kind, p.terms[0].k) : kBlockCols;
    packs += plan.few ? 1 : k_blocks * plan.row_blocks;
    tasks += plan.row_blocks * ceil_div(p.n, plan.block_cols);
    pack_end[static_cast<size_t>(num_plans)] = packs;
    ++num_plans;
  }
  if (num_plans == 0) return;
  const bool serial = work < kSerialMultiplies;
  // Narrower ones where there are fewer than threads, as of small models: no panel is packed twice for it.
  const int64_t parts = serial ? 1 : ceil_div(thread_count(), tasks);
  tasks = 0;
  for (int64_t i = 0; i < num_plans; ++i) {
    Plan& plan = plans[static_cast<size_t>(i)];
    const int64_t n = plan.product->n;
    if (parts > 1)
      plan.block_cols = ceil_div(ceil_div(std::min(n, plan.block_cols), parts), kMaxTileCols) * kMaxTileCols;
    plan.col_blocks = ceil_div(n, plan.block_cols);
    tasks += plan.row_blocks * plan.col_blocks;
    task_end[static_cast<size_t>(i)] = tasks;
  }
  Scratch<uint32_t> packed(static_cast<size_t>(units));
  uint32_t* next = packed.data();
  for (int64_t i = 0; i < num_plans; ++i) {
    Plan& plan = plans[static_cast<size_t>(i)];
    for (int term = 0; term < plan.product->num_terms; ++term) {
      plan.packed_a[term] = next;
      next += a_units(plan, plan.product->terms[term]);
    }
  }
  const auto find = [&](const Scratch<int64_t>& ends, int64_t& i) -> const Plan& {
    const int64_t at = std::upper_bound(ends.data(), ends.data() + num_plans, i) - ends.data();
    if (at) i -= ends[static_cast<size_t>(at - 1)];
    return plans[static_cast<size_t>(at)];
  };
  const auto pack_task = [&](int64_t i) {
    const Plan& plan = find(pack_end, i);
    if (plan.few) {
      const int64_t at_once = dots_at_once(*plan.product, few);
      for (int term = 0; term < plan.product->num_terms; ++term) {
        const Term& t = plan.product->terms[term];
        for (int64_t row = 0, m = plan.product->m; row < m; row += at_once)
          few.prepare(plan.packed_a[term] + row * few.units(t.b.kind, t.k), t.a, row,
                      static_cast<int>(std::min(at_once, m - row)), t.k, t.b.kind);
      }
      return;
    }
    int64_t k_block = i / plan.row_blocks;
    const int64_t row_block = i % plan.row_blocks;
    const int64_t of_first = ceil_div(units_of(plan.product->terms[0], path), kUnits);
    const int term = k_block >= of_first;
    if (term) k_block -= of_first;
    pack_a(plan, term, k_block, plan.block_begin(row_block), plan.block_begin(row_block + 1), path);
  };
  const auto block_task = [&](int64_t i) {
    const Plan& plan = find(task_end, i);
    if (plan.few) run_few(plan, i, few);
    else run_block(plan, i / plan.col_blocks, i % plan.col_blocks, path);
  };
  const auto run = [](int64_t n, bool serial, const auto& task) {
    if (serial)
      for (int64_t i = 0; i < n; ++i) task(i);
    else parallel_for(n, task);
  };
  run(packs, units < kSerialUnits, pack_task);
  run(tasks, serial, block_task);
}

}  // namespace temper::cpu
