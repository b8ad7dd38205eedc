// The seven alternatives of o200k's pattern without a regex engine (facts: tiktoken's pattern; engine: leftmost-first,
// backtracking).
#include "tokenizer/split.h"

#include <array>
#include <vector>

namespace temper::tokenizer {
namespace {

// One bit per class, so that a set of classes is one test.
enum : uint8_t {
  kOther = 1,
  kUpper = 2,
  kLower = 4,
  kLetter = 8,
  kMark = 16,
  kNumber = 32,
  kSpace = 64,
  kNewline = 128
};
constexpr uint8_t kCaseless = kLetter | kMark;        // Lm Lo M: in both word runs
constexpr uint8_t kHead = kUpper | kCaseless;         // [Lu Lt Lm Lo M]
constexpr uint8_t kTail = kLower | kCaseless;         // [Ll Lm Lo M]
constexpr uint8_t kWhite = kSpace | kNewline;         // \s: Unicode White_Space
constexpr uint8_t kSymbol = kOther | kMark;           // not \s, \p{L}, \p{N}
constexpr uint8_t kPrefix = kOther | kMark | kSpace;  // not CR, LF, \p{L}, \p{N}

struct Range {
  uint32_t first, last;
  uint8_t cls;
};
constexpr Range kRanges[] = {
#include "tokenizer/unicode_classes.inc"
};

// Two stages: 256 code points per block, equal blocks shared (about 40 KB touched in practice).
struct ClassTable {
  std::array<uint16_t, 0x1100> block{};
  std::vector<std::array<uint8_t, 256>> blocks;
  std::array<uint8_t, 128> ascii{};
  ClassTable() {
    std::vector<uint8_t> flat(0x110000, kOther);
    for (const Range& r : kRanges)
      for (uint32_t c = r.first; c <= r.last; c++) flat[c] = r.cls;
    for (size_t b = 0; b < block.size(); b++) {
      std::array<uint8_t, 256> one;
      for (size_t i = 0; i < 256; i++) one[i] = flat[b * 256 + i];
      size_t k = 0;
      while (k < blocks.size() && blocks[k] != one) k++;
      if (k == blocks.size()) blocks.push_back(one);
      block[b] = static_cast<uint16_t>(k);
    }
    for (size_t i = 0; i < 128; i++) ascii[i] = flat[i];
  }
};
const ClassTable kTable;

struct Char {
  uint8_t cls;
  uint8_t size;
};

Char multi_byte(const uint8_t* p, const uint8_t* end) {
  const CodePoint c = code_point(p, end);
  if (c.size == 1) return {kOther, 1};
  return {kTable.blocks[kTable.block[c.value >> 8]][c.value & 255], c.size};
}

inline Char read(const uint8_t* p, const uint8_t* end) {
  if (*p < 0x80) return {kTable.ascii[*p], 1};
  return multi_byte(p, end);
}

inline const uint8_t* run(const uint8_t* p, const uint8_t* end, uint8_t set) {
  while (p < end) {
    const Char c = read(p, end);
    if (!(c.cls & set)) break;
    p += c.size;
  }
  return p;
}

// (?i:'s|'t|'re|'ve|'m|'ll|'d)?  Unicode case folding adds one letter: U+017F, the long s.
const uint8_t* contraction(const uint8_t* p, const uint8_t* end) {
  if (end - p < 2 || *p != '\'') return p;
  const auto low = [](uint8_t c) -> uint8_t { return c >= 'A' && c <= 'Z' ? static_cast<uint8_t>(c | 32) : c; };
  const uint8_t a = low(p[1]);
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return p + 2;
  if (end - p < 3) return p;
  const uint8_t b = low(p[2]);
  if (((a == 'r' || a == 'v') && b == 'e') || (a == 'l' && b == 'l')) return p + 3;
  if (p[1] == 0xC5 && p[2] == 0xBF) return p + 3;
  return p;
}

struct Word {
  const uint8_t* lower;
  const uint8_t* upper;
};

// Both word bodies at once, from p. `lower`: end of head* tail+ (alternative 1), null if it fails. The greedy head run
// stops at q; if a lower-case letter stands there, the tail run goes on from q, else the run gives back characters
// until one is in tail: that is its last caseless character, and nothing after it can be in tail, so the match ends
// right behind it. `upper`: end of head+ tail* (alternative 2), null if the head run is empty; only asked for when
// alternative 1 failed.
Word word(const uint8_t* p, const uint8_t* end) {
  const uint8_t* caseless = nullptr;
  const uint8_t* q = p;
  while (q < end) {
    const Char c = read(q, end);
    if (!(c.cls & kHead)) {
      if (c.cls & kLower) return {run(q + c.size, end, kTail), nullptr};
      break;
    }
    q += c.size;
    if (c.cls & kCaseless) caseless = q;
  }
  return {caseless, q > p ? q : nullptr};
}

}  // namespace

const uint8_t* next_piece(const uint8_t* at, const uint8_t* end) {
  const Char first = read(at, end);
  const uint8_t* second = at + first.size;
  // 1 and 2, with the optional prefix first, then without. Without a prefix only a letter or a mark can begin a word.
  const bool prefix = first.cls & kPrefix;
  const Word with = prefix && second < end ? word(second, end) : Word{nullptr, nullptr};
  if (with.lower) return contraction(with.lower, end);
  const Word bare = first.cls & (kHead | kLower) ? word(at, end) : Word{nullptr, nullptr};
  if (bare.lower) return contraction(bare.lower, end);
  if (with.upper) return contraction(with.upper, end);
  if (bare.upper) return contraction(bare.upper, end);
  // 3: one to three numbers.
  if (first.cls & kNumber) {
    const uint8_t* p = second;
    for (int i = 1; i < 3 && p < end; i++) {
      const Char c = read(p, end);
      if (!(c.cls & kNumber)) break;
      p += c.size;
    }
    return p;
  }
  // 4: an optional space, symbols, then CR, LF and slashes.
  const uint8_t* symbols = *at == ' ' ? second : at;
  const uint8_t* p = run(symbols, end, kSymbol);
  if (p > symbols) {
    while (p < end && (*p == '\r' || *p == '\n' || *p == '/')) p++;
    return p;
  }
  // 5, 6, 7: white space. Up to the last line break; else all but the last character before a word; else all.
  const uint8_t* last_break = nullptr;
  const uint8_t* last = at;
  p = at;
  while (p < end) {
    const Char c = read(p, end);
    if (!(c.cls & kWhite)) break;
    last = p;
    p += c.size;
    if (c.cls & kNewline) last_break = p;
  }
  if (last_break) return last_break;
  if (p < end && last > at) return last;
  return p > at ? p : second;
}

}  // namespace temper::tokenizer
