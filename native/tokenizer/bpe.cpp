// Pieces come from split.cpp; one table look-up settles most of them, a cache of recent ones most of the rest.
#include "tokenizer/bpe.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <unordered_map>

#include "temper/error.h"
#include "tokenizer/split.h"

namespace temper::tokenizer {
namespace {

constexpr size_t kShort = 15;   // longest piece that fits a Key
constexpr size_t kLinear = 96;  // up to here a plain scan for the lowest rank beats a heap
constexpr size_t kCacheSlots = size_t{1} << 14;
constexpr size_t kKeep = size_t{1} << 20;  // scratch larger than this is given back
constexpr uint32_t kIdBits = 20, kRankBits = 24;
constexpr uint64_t kEmpty = UINT64_MAX;

inline uint64_t mix(uint64_t a, uint64_t b) {
  const unsigned __int128 m = static_cast<unsigned __int128>(a ^ 0x9E3779B97F4A7C15u) * (b ^ 0xD6E8FEB86659FD93u);
  return static_cast<uint64_t>(m) ^ static_cast<uint64_t>(m >> 64);
}

uint64_t hash_bytes(const uint8_t* p, size_t n) {
  uint64_t h = n;
  for (; n >= 8; p += 8, n -= 8) {
    uint64_t w;
    std::memcpy(&w, p, 8);
    h = mix(h, w);
  }
  uint64_t w = 0;
  std::memcpy(&w, p, n);
  return mix(h, w);
}

size_t table_size(size_t entries) {
  size_t size = 1024;
  while (size < entries * 2) size *= 2;
  return size;
}

}  // namespace

Bpe::Key Bpe::key_of(const uint8_t* p, size_t n, const uint8_t* readable_end) {
  Key k{0, 0};
  if (readable_end - p >= 16) {
    std::memcpy(&k.lo, p, 8);
    std::memcpy(&k.hi, p + 8, 8);
    if (n <= 8) {
      k.lo &= n == 8 ? ~uint64_t{0} : (uint64_t{1} << (8 * n)) - 1;
      k.hi = 0;
    } else k.hi &= (uint64_t{1} << (8 * (n - 8))) - 1;
  } else {
    std::memcpy(&k.lo, p, std::min<size_t>(n, 8));
    if (n > 8) std::memcpy(&k.hi, p + 8, n - 8);
  }
  k.hi |= static_cast<uint64_t>(n) << 56;
  return k;
}

uint32_t Bpe::find_short(Key key) const {
  const size_t mask = short_.size() - 1;
  for (size_t i = mix(key.lo, key.hi) & mask;; i = (i + 1) & mask) {
    const Slot& s = short_[i];
    if (s.id == kNone) return kNone;
    if (s.lo == key.lo && s.hi == key.hi) return s.id;
  }
}

uint32_t Bpe::find_long(const uint8_t* p, size_t n) const {
  const size_t mask = long_.size() - 1;
  for (size_t i = hash_bytes(p, n) & mask;; i = (i + 1) & mask) {
    const uint32_t id = long_[i];
    if (id == kNone) return kNone;
    if (offsets_[id + 1] - offsets_[id] == n && std::memcmp(bytes_.data() + offsets_[id], p, n) == 0) return id;
  }
}

uint32_t Bpe::find(const uint8_t* p, size_t n) const {
  return n <= kShort ? find_short(key_of(p, n, p + n)) : find_long(p, n);
}

inline uint32_t Bpe::pair_rank(uint32_t left, uint32_t right) const {
  const uint64_t key = static_cast<uint64_t>(left) << kIdBits | right;
  const size_t mask = pairs_.size() - 1;
  for (size_t i = (key * 0x9E3779B97F4A7C15u) >> 24 & mask;; i = (i + 1) & mask) {
    const uint64_t slot = pairs_[i];
    if (slot == kEmpty) return kNone;
    if (slot >> kRankBits == key) return slot & ((1u << kRankBits) - 1);
  }
}

bool Bpe::add_pair(uint32_t left, uint32_t right, uint32_t rank) {
  const uint64_t key = static_cast<uint64_t>(left) << kIdBits | right;
  const size_t mask = pairs_.size() - 1;
  for (size_t i = (key * 0x9E3779B97F4A7C15u) >> 24 & mask;; i = (i + 1) & mask) {
    if (pairs_[i] == kEmpty) {
      pairs_[i] = key << kRankBits | rank;
      return true;
    }
    if (pairs_[i] >> kRankBits == key) return false;
  }
}

Bpe::Bpe(std::span<const uint8_t> bytes, std::span<const uint32_t> offsets, std::span<const uint32_t> merges,
         bool whole_piece)
    : bytes_(bytes.begin(), bytes.end()),
      offsets_(offsets.begin(), offsets.end()),
      byte_pairs_(65536, kNone),
      whole_piece_(whole_piece) {
  require(offsets_.size() >= 2 && offsets_.front() == 0 && offsets_.back() == bytes_.size(), "tokenizer_offsets",
          "token offsets do not cover the ", bytes_.size(), " bytes of the vocabulary");
  const size_t count = offsets_.size() - 1;
  require(count < (size_t{1} << kIdBits) - 1, "tokenizer_too_large", "vocabulary of ", count, " tokens, at most ",
          (1u << kIdBits) - 2, " are supported");
  size_t num_long = 0, num_splits = 0;
  for (size_t i = 0; i < count; i++) {
    require(offsets_[i] < offsets_[i + 1], "tokenizer_offsets", "token ", i, " is empty or its offsets run backwards");
    const size_t n = offsets_[i + 1] - offsets_[i];
    num_long += n > kShort;
    num_splits += n - 1;
  }
  short_.assign(table_size(count - num_long), Slot{0, 0, kNone});
  long_.assign(table_size(num_long), kNone);
  for (uint32_t id = 0; id < count; id++) {
    const uint8_t* p = bytes_.data() + offsets_[id];
    const size_t n = offsets_[id + 1] - offsets_[id];
    const uint32_t same = find(p, n);
    require(same == kNone, "tokenizer_duplicate", "tokens ", same, " and ", id, " have the same bytes");
    if (n <= kShort) {
      const Key k = key_of(p, n, p + n);
      size_t i = mix(k.lo, k.hi) & (short_.size() - 1);
      while (short_[i].id != kNone) i = (i + 1) & (short_.size() - 1);
      short_[i] = {k.lo, k.hi, id};
    } else {
      size_t i = hash_bytes(p, n) & (long_.size() - 1);
      while (long_[i] != kNone) i = (i + 1) & (long_.size() - 1);
      long_[i] = id;
    }
  }
  for (int b = 0; b < 256; b++) {
    const uint8_t byte = static_cast<uint8_t>(b);
    byte_ids_[b] = find(&byte, 1);
    require(byte_ids_[b] != kNone, "tokenizer_bytes_missing", "byte ", b, " is not a token; all 256 must be");
  }

  if (merges.empty()) {
    // Every split of a token into two tokens is a merge of the token's own rank. A part is always a token, so this
    // equals looking the joined bytes up, as tiktoken does.
    std::vector<std::pair<uint64_t, uint32_t>> found;
    found.reserve(count * 3);
    for (uint32_t id = 0; id < count; id++) {
      const uint8_t* p = bytes_.data() + offsets_[id];
      const size_t n = offsets_[id + 1] - offsets_[id];
      for (size_t k = 1; k < n; k++) {
        const uint32_t left = find(p, k);
        if (left == kNone) continue;
        const uint32_t right = find(p + k, n - k);
        if (right != kNone) found.emplace_back(static_cast<uint64_t>(left) << kIdBits | right, id);
      }
    }
    pairs_.assign(table_size(found.size()), kEmpty);
    for (const auto& [key, id] : found)
      add_pair(static_cast<uint32_t>(key >> kIdBits), key & ((1u << kIdBits) - 1), id);
  } else {
    require(merges.size() % 2 == 0, "tokenizer_merge", "merges hold ", merges.size(), " ids, not pairs");
    const size_t num = merges.size() / 2;
    require(num < (size_t{1} << kRankBits) - 1, "tokenizer_too_large", num, " merges, at most ", (1u << kRankBits) - 2,
            " are supported");
    pairs_.assign(table_size(num), kEmpty);
    merged_.resize(num);
    std::vector<uint8_t> joined;
    for (uint32_t rank = 0; rank < num; rank++) {
      const uint32_t left = merges[rank * 2], right = merges[rank * 2 + 1];
      require(left < count && right < count, "tokenizer_merge", "merge ", rank, " names token ", std::max(left, right),
              " of ", count);
      joined.assign(bytes_.data() + offsets_[left], bytes_.data() + offsets_[left + 1]);
      joined.insert(joined.end(), bytes_.data() + offsets_[right], bytes_.data() + offsets_[right + 1]);
      merged_[rank] = find(joined.data(), joined.size());
      require(merged_[rank] != kNone, "tokenizer_merge", "merge ", rank, " (tokens ", left, " and ", right,
              ") makes a token that is not in the vocabulary");
      require(add_pair(left, right, rank), "tokenizer_merge", "merge ", rank, " (tokens ", left, " and ", right,
              ") stands in the list twice");
    }
  }
  const auto single = [&](uint64_t id) { return offsets_[id + 1] - offsets_[id] == 1; };
  for (const uint64_t slot : pairs_) {
    if (slot == kEmpty) continue;
    const uint64_t left = slot >> (kRankBits + kIdBits), right = slot >> kRankBits & ((1u << kIdBits) - 1);
    if (single(left) && single(right))
      byte_pairs_[bytes_[offsets_[left]] * 256u + bytes_[offsets_[right]]] = slot & ((1u << kRankBits) - 1);
  }
  find_sure_chars();
}

void Bpe::encode(std::span<const uint8_t> text, std::vector<int32_t>& out) {
  std::unique_lock lock(busy_, std::try_to_lock);
  Scratch own;
  Scratch& s = lock ? shared_ : own;
  if (lock && s.cache.empty()) s.cache.assign(kCacheSlots, Cached{0, 0, 0, {}});
  const uint8_t* const end = text.data() + text.size();
  for (const uint8_t* p = text.data(); p < end;) {
    const uint8_t* q = next_piece(p, end);
    encode_piece(p, static_cast<size_t>(q - p), end, s, out);
    p = q;
  }
}

inline void Bpe::encode_piece(const uint8_t* p, size_t n, const uint8_t* end, Scratch& s,
                              std::vector<int32_t>& out) const {
  if (n > kShort) {
    if (whole_piece_) {
      const uint32_t id = find_long(p, n);
      if (id != kNone) {
        out.push_back(static_cast<int32_t>(id));
        return;
      }
    }
    merge(p, n, s, out);
    return;
  }
  const Key key = key_of(p, n, end);
  if (whole_piece_) {
    const uint32_t id = find_short(key);
    if (id != kNone) {
      out.push_back(static_cast<int32_t>(id));
      return;
    }
  }
  Cached* slot = s.cache.empty() ? nullptr : &s.cache[mix(key.lo, key.hi) >> 20 & (kCacheSlots - 1)];
  if (slot && slot->lo == key.lo && slot->hi == key.hi) {
    for (uint32_t i = 0; i < slot->count; i++) out.push_back(slot->ids[i]);
    return;
  }
  const size_t before = out.size();
  merge(p, n, s, out);
  const size_t made = out.size() - before;
  if (slot && made <= std::size(slot->ids)) {
    *slot = {key.lo, key.hi, static_cast<uint32_t>(made), {}};
    std::copy_n(out.end() - static_cast<ptrdiff_t>(made), made, slot->ids);
  }
}

// Whether a character's bytes may be taken as one part from the start, whatever stands around it. With R the highest
// rank among the merges that make its token from its bytes alone: yes if every token that overlaps the character in
// part, or contains it whole and more, is only made by merges of rank above R. Then, as long as the character is not
// whole, one of its own merges is open with a rank ≤ R, so no merge that touches it from outside can be chosen before
// it; and once it is whole every merge with it has a rank above R, so it makes no difference that it was whole earlier.
// Saves most of the work on scripts outside ASCII.
void Bpe::find_sure_chars() {
  const size_t count = offsets_.size() - 1;
  std::vector<uint32_t> made_at(count, kNone);  // lowest rank of a merge that makes the token
  for (const uint64_t slot : pairs_) {
    if (slot == kEmpty) continue;
    const uint32_t rank = slot & ((1u << kRankBits) - 1);
    uint32_t& at = made_at[result_of(rank)];
    at = std::min(at, rank);
  }
  // Lowest rank of a token that begins with the last k bytes of a character and goes on with the start of another (ends
  // with its first k bytes after something else; contains it and more). Keys: up to 3 bytes with their count on top.
  std::unordered_map<uint32_t, uint32_t> begins, ends;
  uint32_t num_chars = 0;  // above the highest character that is a token
  for (size_t id = 0; id < count; id++) {
    const CodePoint c = code_point(bytes_.data() + offsets_[id], bytes_.data() + offsets_[id + 1]);
    if (c.size > 1 && c.size == offsets_[id + 1] - offsets_[id]) num_chars = std::max(num_chars, c.value + 1);
  }
  std::vector<uint32_t> contains(num_chars, kNone);
  const auto lower = [](uint32_t& at, uint32_t rank) { at = std::min(at, rank); };
  const auto key = [](const uint8_t* p, size_t k) {
    uint32_t v = static_cast<uint32_t>(k);
    for (size_t i = 0; i < k; i++) v = v << 8 | p[i];
    return v;
  };
  for (size_t id = 0; id < count; id++) {
    if (made_at[id] == kNone) continue;
    const uint8_t* p = bytes_.data() + offsets_[id];
    const size_t n = offsets_[id + 1] - offsets_[id];
    for (size_t k = 1; k <= 3 && k < n; k++) {
      if ((p[0] & 0xC0) == 0x80 && (p[k] & 0xC0) != 0x80)
        lower(begins.try_emplace(key(p, k), kNone).first->second, made_at[id]);
      if (p[n - k] >= 0xC2) lower(ends.try_emplace(key(p + n - k, k), kNone).first->second, made_at[id]);
    }
    for (size_t i = 0; i < n; i++) {
      const CodePoint c = code_point(p + i, p + n);
      if (c.size > 1 && c.size < n && c.value < num_chars) lower(contains[c.value], made_at[id]);
    }
  }
  sure_chars_.assign(num_chars, kNone);
  for (uint32_t id = 0; id < count; id++) {
    const uint8_t* p = bytes_.data() + offsets_[id];
    const size_t n = offsets_[id + 1] - offsets_[id];
    const CodePoint c = code_point(p, p + n);
    if (c.size < 2 || c.size != n) continue;
    uint32_t parts[4], num = static_cast<uint32_t>(n), highest = 0;
    for (size_t i = 0; i < n; i++) parts[i] = byte_ids_[p[i]];
    while (num > 1) {
      uint32_t best = 0, rank = kNone;
      for (uint32_t i = 0; i + 1 < num; i++) {
        const uint32_t r = pair_rank(parts[i], parts[i + 1]);
        if (r < rank) {
          rank = r;
          best = i;
        }
      }
      if (rank == kNone) break;
      highest = std::max(highest, rank);
      parts[best] = result_of(rank);
      num--;
      for (uint32_t i = best + 1; i < num; i++) parts[i] = parts[i + 1];
    }
    if (num != 1 || parts[0] != id) continue;
    bool sure = contains[c.value] > highest;
    for (size_t k = 1; k < n; k++) {
      const auto b = begins.find(key(p + n - k, k));
      const auto e = ends.find(key(p, k));
      sure = sure && (b == begins.end() || b->second > highest) && (e == ends.end() || e->second > highest);
    }
    if (sure) sure_chars_[c.value] = id;
  }
}

// The parts merging begins with, and the rank of joining each to the next.
size_t Bpe::first_parts(const uint8_t* p, size_t n, uint32_t* parts, uint32_t* ranks) const {
  size_t num = 0;
  int before = -1;  // the byte of the previous part, −1 if that is a character
  for (size_t i = 0; i < n;) {
    int byte = p[i];
    uint32_t id = byte_ids_[byte];
    size_t size = 1;
    if (byte >= 0xC2) {
      const CodePoint c = code_point(p + i, p + n);
      // The proof needs the character to end here: no stray continuation byte may follow.
      if (c.size > 1 && c.value < sure_chars_.size() && sure_chars_[c.value] != kNone &&
          (i + c.size == n || (p[i + c.size] & 0xC0) != 0x80)) {
        id = sure_chars_[c.value];
        size = c.size;
        byte = -1;
      }
    }
    if (num > 0)
      ranks[num - 1] = before >= 0 && byte >= 0 ? byte_pairs_[before * 256 + byte] : pair_rank(parts[num - 1], id);
    parts[num++] = id;
    before = byte;
    i += size;
  }
  return num;
}

void Bpe::merge(const uint8_t* p, size_t n, Scratch& s, std::vector<int32_t>& out) const {
  if (n <= kLinear) {
    uint32_t parts[kLinear], ranks[kLinear];
    merge_few(parts, ranks, first_parts(p, n, parts, ranks), out);
    return;
  }
  require(n < kNone, "tokenizer_too_large", "one piece of ", n, " bytes");
  if (s.parts.size() < n) {
    s.parts.resize(n);
    s.ranks.resize(n);
  }
  const size_t num = first_parts(p, n, s.parts.data(), s.ranks.data());
  if (num <= kLinear) merge_few(s.parts.data(), s.ranks.data(), num, out);
  else merge_many(num, s, out);
  if (s.parts.size() > kKeep) {
    s.parts = {};
    s.ranks = {};
    s.nodes = {};
    s.heap = {};
  }
}

// ranks[i] is the rank of joining parts i and i+1. The leftmost lowest rank goes first.
void Bpe::merge_few(uint32_t* parts, uint32_t* ranks, size_t n, std::vector<int32_t>& out) const {
  while (n > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < n; i++) best = ranks[i] < ranks[best] ? i : best;
    if (ranks[best] == kNone) break;
    parts[best] = result_of(ranks[best]);
    n--;
    for (size_t i = best + 1; i < n; i++) parts[i] = parts[i + 1];
    for (size_t i = best + 1; i + 1 < n; i++) ranks[i] = ranks[i + 1];
    if (best + 1 < n) ranks[best] = pair_rank(parts[best], parts[best + 1]);
    if (best > 0) ranks[best - 1] = pair_rank(parts[best - 1], parts[best]);
  }
  for (size_t i = 0; i < n; i++) out.push_back(static_cast<int32_t>(parts[i]));
}

// A linked list of parts and a heap of (rank, left part). Merging keeps the left part's place, so places stay in text
// order and a tie goes left. An entry is stale when its pair no longer has that rank: its result would be longer, so
// the rank differs.
void Bpe::merge_many(size_t n, Scratch& s, std::vector<int32_t>& out) const {
  auto& nodes = s.nodes;
  auto& heap = s.heap;
  nodes.resize(n);
  heap.clear();
  for (uint32_t i = 0; i < n; i++) nodes[i] = {s.parts[i], i - 1, i + 1 < n ? i + 1 : kNone};  // 0 − 1 = kNone
  for (uint32_t i = 0; i + 1 < n; i++) {
    if (s.ranks[i] != kNone) heap.push_back(static_cast<uint64_t>(s.ranks[i]) << 32 | i);
  }
  const auto later = std::greater<uint64_t>();
  std::make_heap(heap.begin(), heap.end(), later);
  const auto offer = [&](uint32_t i) {
    const uint32_t rank = pair_rank(nodes[i].id, nodes[nodes[i].right].id);
    if (rank == kNone) return;
    heap.push_back(static_cast<uint64_t>(rank) << 32 | i);
    std::push_heap(heap.begin(), heap.end(), later);
  };
  while (!heap.empty()) {
    const uint64_t top = heap.front();
    std::pop_heap(heap.begin(), heap.end(), later);
    heap.pop_back();
    const uint32_t i = static_cast<uint32_t>(top), rank = static_cast<uint32_t>(top >> 32);
    Node& a = nodes[i];
    if (a.id == kNone || a.right == kNone || pair_rank(a.id, nodes[a.right].id) != rank) continue;
    Node& b = nodes[a.right];
    a.id = result_of(rank);
    b.id = kNone;
    a.right = b.right;
    if (a.right != kNone) {
      nodes[a.right].left = i;
      offer(i);
    }
    if (a.left != kNone) offer(a.left);
  }
  for (uint32_t i = 0; i != kNone; i = nodes[i].right) out.push_back(static_cast<int32_t>(nodes[i].id));
}

}  // namespace temper::tokenizer
