// 32×32 blocks on matrix tiles, for precision 1 only: B is packed as for the bf16 dot product, A as its tiles.
#include "cpu/host/amx.h"
#include "cpu/matmul/matmul_pack_avx512.h"

namespace temper::cpu {
namespace {

constexpr int kTile = 16, kStep = 16;  // rows or columns of a tile, and units

void pack_b(uint32_t* dst, const Source& source, int64_t o0, int outs, int width, int64_t k0, int ks) {
  kPathAvx512Bf16.pack(dst, source, o0, outs, width, k0, ks);
}

// Units of a step of A of which `left` are left.
int width_of(int left) { return left < kStep ? left : kStep; }

// Step after step, in each row after row: a tile is 1 KiB of memory.
void pack_a(uint32_t* dst, const Source& s, int64_t o0, int outs, int, int64_t k0, int ks) {
  const int units = (ks + 1) / 2;
  if (s.kind == Kind::f32 && s.k_inner) {
    struct {
      const float* data;
      __m512 factor;
    } rows[2 * kTile];
    for (int i = 0; i < outs; ++i)
      rows[i] = {f32_row(s, o0 + i) + k0, _mm512_set1_ps(s.row_scale ? s.row_scale[o0 + i] : 1.0f)};
    for (int u = 0; u < units; u += kStep) {
      const int width = width_of(units - u);
      for (int i = 0; i < outs; ++i, dst += width) {
        const auto load = [&](int k) {
          const int n = ks - k;
          return n <= 0 ? _mm512_setzero_ps()
                        : _mm512_mul_ps(rows[i].factor, _mm512_maskz_loadu_ps(first_lanes(n), rows[i].data + k));
        };
        _mm512_mask_storeu_epi32(dst, first_lanes(width),
                                 reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(load(2 * u + 16), load(2 * u))));
      }
    }
    return;
  }
  // A step of the other layout, turned.
  constexpr int kWidth = 2 * kTile;
  alignas(64) uint32_t step[kStep][kWidth] = {};
  for (int u = 0; u < units; u += kStep) {
    const int k = ks - 2 * u < 2 * kStep ? ks - 2 * u : 2 * kStep;
    pack_b(step[0], s, o0, outs, kWidth, k0 + 2 * u, k);
    for (int first = 0; first < outs; first += kTile) {
      __m512i r[16];
      for (int i = 0; i < 16; ++i) r[i] = _mm512_load_si512(step[i] + first);
      transpose_16x16(r);
      for (int i = 0; i < kTile && first + i < outs; ++i)
        _mm512_mask_storeu_epi32(dst + u * outs + (first + i) * width_of(units - u), first_lanes(units - u), r[i]);
    }
  }
}

// Shapes that this thread's tiles have: rows of A and units of the last step.
struct Shapes {
  int rows = 0, tail = 0;
};
thread_local Shapes shapes;

void shape(int rows, int tail) {
  if (shapes.rows == rows && shapes.tail == tail) return;
  shapes = {rows, tail};
  const auto m = static_cast<uint8_t>(rows), last = static_cast<uint8_t>(tail);
  set_tiles(
      {{m, 64}, {m, 64}, {m, 64}, {m, 64}, {m, 64}, {kStep, 64}, {m, static_cast<uint16_t>(4 * tail)}, {last, 64}});
}
void done() {
  if (shapes.rows == 0) return;
  shapes = {};
  release_tiles();
}

// Tiles of sums: 0 and 1 of the upper rows, 2 and 3 of the lower. A is in tile `A`, B in `B`.
template <int A, int B>
void step(const uint32_t* upper, const uint32_t* lower, int64_t ld, const uint32_t* b) {
  tile_load<B>(b, 128);
  tile_load<A>(upper, ld);
  tile_multiply<0, A, B>();
  if (lower) {
    tile_load<A>(lower, ld);
    tile_multiply<2, A, B>();
    tile_load<B>(b + kTile, 128);
    tile_multiply<3, A, B>();
    tile_load<A>(upper, ld);
  } else {
    tile_load<B>(b + kTile, 128);
  }
  tile_multiply<1, A, B>();
}

// c[rows from `from` on][16] of one tile of sums.
template <int Tile>
void add(int from, int rows, float* c, int64_t ldc, float alpha, bool overwrite, const float* bias) {
  alignas(64) float sums[kTile][kTile];
  tile_store<Tile>(sums, 64);
  const __m512 factor = _mm512_set1_ps(alpha), first = bias ? _mm512_loadu_ps(bias) : _mm512_setzero_ps();
  for (int i = from; i < rows; ++i) {
    float* to = c + i * ldc;
    _mm512_storeu_ps(to, _mm512_fmadd_ps(factor, _mm512_load_ps(sums[i]), overwrite ? first : _mm512_loadu_ps(to)));
  }
}

void tile(int rows, int units, const uint32_t* a, const uint32_t* b, float* c, int64_t ldc, float alpha, bool overwrite,
          const float* bias) {
  const int tall = rows < kTile ? rows : kTile, whole = units / kStep, tail = units % kStep;
  shape(tall, tail);
  // The lower tile ends with the last row: those that both have are kept once.
  const int64_t below = rows > kTile ? rows - kTile : 0;
  tile_zero<0>(), tile_zero<1>(), tile_zero<2>(), tile_zero<3>();
  for (int s = 0; s < whole; ++s, a += rows * kStep, b += kStep * 2 * kTile)
    step<4, 5>(a, below ? a + below * kStep : nullptr, 4 * kStep, b);
  if (tail) step<6, 7>(a, below ? a + below * tail : nullptr, 4 * tail, b);
  const float* right = bias ? bias + kTile : nullptr;
  add<0>(0, tall, c, ldc, alpha, overwrite, bias);
  add<1>(0, tall, c + kTile, ldc, alpha, overwrite, right);
  if (!below) return;
  const int again = static_cast<int>(kTile - below);
  add<2>(again, kTile, c + below * ldc, ldc, alpha, overwrite, bias);
  add<3>(again, kTile, c + below * ldc + kTile, ldc, alpha, overwrite, right);
}

}  // namespace

const Path kPathAmx = {2 * kTile, 2 * kTile, 2, pack_b, tile, pack_a, done};

}  // namespace temper::cpu
