// Packing for any source and any instruction set. Included by one translation unit per instruction set, so everything
// is local to it.
#pragma once
#include <cstdint>
#include <cstring>

#include "cpu/matmul/matmul.h"

namespace temper::cpu {
namespace {

// What a byte of two MXFP4 codes stands for, low nibble first.
struct CodePairs {
  float values[256][2];
};
constexpr CodePairs make_code_pairs() {
  constexpr float codes[16] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};
  CodePairs pairs{};
  for (int byte = 0; byte < 256; ++byte) {
    pairs.values[byte][0] = codes[byte & 15];
    pairs.values[byte][1] = codes[byte >> 4];
  }
  return pairs;
}
constexpr CodePairs kCodePairs = make_code_pairs();

// `count` elements of a group, from element `from` on. 2^(e−127) is built from its bits; e = 0 is the subnormal 2^−127,
// 255 the format's NaN.
inline void decode_group_part(float* out, const uint8_t* block, uint8_t scale, int from, int count) {
  uint32_t bits = scale ? static_cast<uint32_t>(scale) << 23 : 0x00400000u;
  if (scale == 255) bits = 0x7fc00000u;
  float factor;
  std::memcpy(&factor, &bits, sizeof factor);
  if (count == 32) {
    for (int j = 0; j < 16; ++j) std::memcpy(out + 2 * j, kCodePairs.values[block[j]], sizeof kCodePairs.values[0]);
    for (int i = 0; i < 32; ++i) out[i] *= factor;
    return;
  }
  for (int i = 0; i < count; ++i) out[i] = kCodePairs.values[block[(from + i) >> 1]][(from + i) & 1] * factor;
}

inline float to_bf16_and_back(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, sizeof bits);
  const uint32_t quiet = (bits & 0xffff0000u) | 0x00400000u,
                 rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u;
  bits = (bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded;
  std::memcpy(&f, &bits, sizeof f);
  return f;
}

// `count` elements of memory row r, from element i on, as f32 (rounded to bf16 when Round).
template <bool Round>
inline void load_segment(float* out, const Source& s, int64_t r, int64_t i, int count) {
  const int64_t row = s.rows ? s.rows[r] : r;
  if (s.kind == Kind::f32) {
    const float* from = static_cast<const float*>(s.data) + row * s.ld + i;
    if (s.row_scale) {
      const float f = s.row_scale[r];
      for (int j = 0; j < count; ++j) out[j] = from[j] * f;
    } else {
      for (int j = 0; j < count; ++j) out[j] = from[j];
    }
    if constexpr (Round)
      for (int j = 0; j < count; ++j) out[j] = to_bf16_and_back(out[j]);
  } else if (s.kind == Kind::bf16) {
    const uint16_t* from = static_cast<const uint16_t*>(s.data) + row * s.ld + i;
    for (int j = 0; j < count; ++j) {
      const uint32_t bits = static_cast<uint32_t>(from[j]) << 16;
      std::memcpy(out + j, &bits, sizeof bits);
    }
  } else if (s.kind == Kind::q8) {
    const int8_t* q = static_cast<const int8_t*>(s.data) + row * s.ld + i;
    const uint16_t* scales = s.q8_scales + row * (s.ld / 32);
    for (int done = 0; done < count;) {
      const int64_t at = i + done;
      const int from = static_cast<int>(at % 32), n = count - done < 32 - from ? count - done : 32 - from;
      const uint32_t bits = static_cast<uint32_t>(scales[at / 32]) << 16;
      float scale;
      std::memcpy(&scale, &bits, sizeof scale);
      for (int j = 0; j < n; ++j) out[done + j] = static_cast<float>(q[done + j]) * scale;  // exact: 7 bits by 8
      done += n;
    }
    if constexpr (Round)
      for (int j = 0; j < count; ++j) out[j] = to_bf16_and_back(out[j]);
  } else {
    const uint8_t* blocks = static_cast<const uint8_t*>(s.data) + row * (s.ld / 2);
    const uint8_t* scales = s.scales + row * (s.ld / 32);
    for (int done = 0; done < count;) {
      const int64_t at = i + done;
      const int from = static_cast<int>(at % 32), n = count - done < 32 - from ? count - done : 32 - from;
      decode_group_part(out + done, blocks + at / 32 * 16, scales[at / 32], from, n);
      done += n;
    }
  }
}

// Pair 1: a unit is an f32. Pair 2: a unit is two bf16, the lower k in the lower half.
template <int Pair, bool Round>
void pack_any(uint32_t* dst, const Source& s, int64_t o0, int outs, int width, int64_t k0, int ks) {
  const int units = (ks + Pair - 1) / Pair;
  float line[kUnits * 2];
  const auto unit = [&](const float* a, const float* b) {
    uint32_t x, y;
    std::memcpy(&x, a, sizeof x);
    if constexpr (Pair == 1) return x;
    std::memcpy(&y, b, sizeof y);
    return (x >> 16) | (y & 0xffff0000u);
  };
  const int panel = units * width;
  if (s.k_inner) {
    for (int o = 0; o < outs; ++o) {
      load_segment<Round>(line, s, o0 + o, k0, ks);
      if (ks % Pair) line[ks] = 0.0f;
      uint32_t* to = dst + o / width * panel + o % width;
      for (int u = 0; u < units; ++u) to[u * width] = unit(line + u * Pair, line + u * Pair + Pair - 1);
    }
  } else {
    float next[kMaxTileCols * kPanels];
    for (int u = 0; u < units; ++u) {
      load_segment<Round>(line, s, k0 + u * Pair, o0, outs);
      if constexpr (Pair == 2) {
        if (u * 2 + 1 < ks) load_segment<Round>(next, s, k0 + u * 2 + 1, o0, outs);
        else std::memset(next, 0, sizeof next);
      }
      for (int o = 0; o < outs; ++o) dst[o / width * panel + u * width + o % width] = unit(line + o, next + o);
    }
  }
  if (const int last = outs % width)
    for (int u = 0; u < units; ++u)
      std::memset(dst + outs / width * panel + u * width + last, 0, static_cast<size_t>(width - last) * 4);
}

}  // namespace
}  // namespace temper::cpu
