// The byte-pair encoder against the plain algorithm, on any bytes: text, half characters, noise, pieces short and long.
#include <cstdio>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>
#include "temper/error.h"
#include "test/harness/harness.h"
#include "tokenizer/bpe.h"
#include "tokenizer/split.h"

namespace temper::test {
namespace {

using Ids = std::vector<int32_t>;

struct Vocabulary {
  std::vector<std::string> tokens;
  std::vector<uint32_t> merges;
  std::unordered_map<std::string, int32_t> ids;

  // 256 bytes, then random joins of what there is: short alphabets, so that merges overlap and compete.
  explicit Vocabulary(uint64_t seed) {
    for (int b = 0; b < 256; ++b) add(std::string(1, static_cast<char>(b)));
    static const char* const kStarts[] = {"a",        "b",        " ", "A", "\xe4\xb8\xad",     "\xe5\x9b\xbd",
                                          "\xd0\xb5", "\xc3\xa9", "'", "1", "\xf0\x9f\x91\x8d", "\xb8",
                                          "\xe4"};
    std::vector<std::string> pool(std::begin(kStarts), std::end(kStarts));
    for (uint64_t i = 0; i < 400; ++i) {
      const std::string joined =
          pool[random_bits(seed, 2 * i) % pool.size()] + pool[random_bits(seed, 2 * i + 1) % pool.size()];
      if (joined.size() > 24) continue;
      // The whole is reached byte by byte, unless it is there already; in random order ranks and lengths disagree, as
      // they may.
      for (size_t n = 2; n <= joined.size(); ++n) join(joined.substr(0, n - 1), joined.substr(n - 1, 1));
      if (random_bits(seed, 9000 + i) % 2) pool.push_back(joined);
    }
  }
  void add(const std::string& token) {
    ids.emplace(token, static_cast<int32_t>(tokens.size()));
    tokens.push_back(token);
  }
  void join(const std::string& left, const std::string& right) {
    if (ids.count(left + right)) return;
    merges.push_back(static_cast<uint32_t>(ids.at(left)));
    merges.push_back(static_cast<uint32_t>(ids.at(right)));
    add(left + right);
  }
  tokenizer::Bpe encoder(bool by_merges, bool whole) const {
    std::vector<uint8_t> bytes;
    std::vector<uint32_t> offsets{0};
    for (const std::string& t : tokens) {
      bytes.insert(bytes.end(), t.begin(), t.end());
      offsets.push_back(static_cast<uint32_t>(bytes.size()));
    }
    return tokenizer::Bpe(bytes, offsets, by_merges ? merges : std::vector<uint32_t>{}, whole);
  }
};

// Lowest rank first, leftmost on a tie, one merge at a time.
Ids plain_encode(const Vocabulary& v, std::string_view text, bool by_merges, bool whole) {
  std::unordered_map<uint64_t, uint32_t> ranks;
  for (uint32_t i = 0; i < v.merges.size(); i += 2) ranks.emplace(uint64_t{v.merges[i]} << 32 | v.merges[i + 1], i / 2);
  Ids out;
  const uint8_t* p = reinterpret_cast<const uint8_t*>(text.data());
  const uint8_t* const end = p + text.size();
  while (p < end) {
    const uint8_t* q = tokenizer::next_piece(p, end);
    const std::string piece(p, q);
    p = q;
    if (whole && v.ids.count(piece)) {
      out.push_back(v.ids.at(piece));
      continue;
    }
    std::vector<std::string> parts;
    for (char c : piece) parts.emplace_back(1, c);
    for (;;) {
      uint32_t best = UINT32_MAX;
      size_t at = 0;
      for (size_t i = 0; i + 1 < parts.size(); ++i) {
        uint32_t rank = UINT32_MAX;
        if (by_merges) {
          const auto found =
              ranks.find(uint64_t(v.ids.at(parts[i])) << 32 | static_cast<uint32_t>(v.ids.at(parts[i + 1])));
          if (found != ranks.end()) rank = found->second;
        } else if (const auto found = v.ids.find(parts[i] + parts[i + 1]); found != v.ids.end()) {
          rank = static_cast<uint32_t>(found->second);
        }
        if (rank < best) {
          best = rank;
          at = i;
        }
      }
      if (best == UINT32_MAX) break;
      parts[at] += parts[at + 1];
      parts.erase(parts.begin() + static_cast<ptrdiff_t>(at) + 1);
    }
    for (const std::string& part : parts) out.push_back(v.ids.at(part));
  }
  return out;
}

std::string random_text(uint64_t seed) {
  static const char* const kPieces[] = {"a",
                                        "b",
                                        "ab",
                                        " ",
                                        "A",
                                        "\xe4\xb8\xad",
                                        "\xe5\x9b\xbd",
                                        "\xd0\xb5",
                                        "\xc3\xa9",
                                        "'s",
                                        "1",
                                        "\n",
                                        "\xf0\x9f\x91\x8d",
                                        "\xe4",
                                        "\xb8",
                                        "\xad",
                                        "\xff",
                                        "\xf4\x90\x80\x80",
                                        "\xed\xa0\x80",
                                        "\xc5\xbf"};
  std::string text;
  const uint64_t n = random_bits(seed, 0) % (seed % 16 == 0 ? 1500 : 40);
  const bool letters = seed % 3 == 0;  // no breaks: long pieces
  for (uint64_t i = 0; i < n; ++i) text += kPieces[random_bits(seed, i + 1) % (letters ? 3 : std::size(kPieces))];
  if (seed % 5 == 0)
    for (uint64_t i = 0; i < 20; ++i) text += static_cast<char>(random_bits(seed, 5000 + i));
  return text;
}

Ids encode(tokenizer::Bpe& bpe, const std::string& text) {
  Ids out;
  // An exact heap copy: a read past the end is seen by the sanitizer.
  const std::vector<uint8_t> bytes(text.begin(), text.end());
  bpe.encode(bytes, out);
  return out;
}

}  // namespace

void check_tokenizer(Tally& tally) {
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    const Vocabulary v(seed);
    for (const bool by_merges : {false, true}) {
      for (const bool whole : {false, true}) {
        tokenizer::Bpe bpe = v.encoder(by_merges, whole);
        int different = 0;
        for (uint64_t i = 0; i < 300; ++i) {
          const std::string text = random_text(seed * 1000 + i);
          different += encode(bpe, text) != plain_encode(v, text, by_merges, whole);
        }
        report(tally, different == 0,
               "tokenizer: " + std::to_string(different) +
                   " of 300 texts differ from the plain algorithm (vocabulary " + std::to_string(seed) +
                   (by_merges ? ", merges" : ", ranks") + (whole ? ", whole pieces)" : ")"));
      }
    }
  }
  const auto code = [](const std::vector<uint8_t>& bytes, const std::vector<uint32_t>& offsets,
                       const std::vector<uint32_t>& merges) -> std::string {
    try {
      tokenizer::Bpe bpe(bytes, offsets, merges, true);
    } catch (const Error& e) {
      return e.code;
    }
    return "no error";
  };
  std::vector<uint8_t> bytes(256);
  std::vector<uint32_t> offsets(257);
  for (uint32_t i = 0; i < 256; ++i) {
    bytes[i] = static_cast<uint8_t>(i);
    offsets[i + 1] = i + 1;
  }
  report(tally, code(bytes, offsets, {}) == "no error", "tokenizer: 256 bytes are refused");
  report(tally, code(bytes, {}, {}) == "tokenizer_offsets", "tokenizer: no offsets are taken");
  report(tally, code(bytes, {0, 300}, {}) == "tokenizer_offsets", "tokenizer: an offset past the end is taken");
  report(tally, code(bytes, {0, 200, 100, 256}, {}) == "tokenizer_offsets",
         "tokenizer: offsets that run backwards are taken");
  report(tally, code(bytes, {0, 1, 256}, {}) == "tokenizer_bytes_missing",
         "tokenizer: a vocabulary without all bytes is taken");
  report(tally, code(bytes, offsets, {1, 2}) == "tokenizer_merge", "tokenizer: a merge into nothing is taken");
  report(tally, code(bytes, offsets, {1, 999}) == "tokenizer_merge", "tokenizer: a merge of no token is taken");
  bytes[255] = 0;
  report(tally, code(bytes, offsets, {}) == "tokenizer_duplicate", "tokenizer: two equal tokens are taken");
}

}  // namespace temper::test
