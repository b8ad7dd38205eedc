// o200k's split pattern, hand-coded: cuts UTF-8 text into the pieces BPE works on. The derivation stands in split.cpp.
#pragma once
#include <cstddef>
#include <cstdint>

namespace temper::tokenizer {

struct CodePoint {
  uint32_t value;
  uint8_t size;
};

/// The character at p (p < end); size 1 and value 0 for a byte that begins no valid sequence.
inline CodePoint code_point(const uint8_t* p, const uint8_t* end) {
  const auto follows = [&](int n) {
    if (end - p <= n) return false;
    for (int i = 1; i <= n; i++)
      if ((p[i] & 0xC0) != 0x80) return false;
    return true;
  };
  if (p[0] < 0x80) return {p[0], 1};
  if (p[0] >= 0xC2 && p[0] < 0xE0 && follows(1)) return {(p[0] & 31u) << 6 | (p[1] & 63u), 2};
  if (p[0] >= 0xE0 && p[0] < 0xF0 && follows(2)) return {(p[0] & 15u) << 12 | (p[1] & 63u) << 6 | (p[2] & 63u), 3};
  if (p[0] >= 0xF0 && p[0] < 0xF5 && follows(3)) {
    const uint32_t c = (p[0] & 7u) << 18 | (p[1] & 63u) << 12 | (p[2] & 63u) << 6 | (p[3] & 63u);
    if (c <= 0x10FFFF) return {c, 4};
  }
  return {0, 1};
}

/// End of the piece that begins at `at` (at < end). Every byte belongs to some piece; invalid UTF-8 counts byte by byte
/// as "other".
const uint8_t* next_piece(const uint8_t* at, const uint8_t* end);

}  // namespace temper::tokenizer
