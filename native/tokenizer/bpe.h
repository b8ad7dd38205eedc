// Byte-pair encoding over a fixed vocabulary: exactly tiktoken's result for o200k, and Hugging Face's for a merges
// list.
#pragma once
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

namespace temper::tokenizer {

/// Immutable after construction; `encode` may be called from several threads.
class Bpe {
 public:
  /// Token i has the bytes [offsets[i], offsets[i+1]) of `bytes`. All 256 single bytes must be tokens.
  /// @param merges pairs (left id, right id) in rank order; empty: a merge's rank is the id of its result, ties go left
  /// (tiktoken).
  /// @param whole_piece a piece that is itself a token is taken as it is (tiktoken; tokenizer.json's ignore_merges)
  /// @throws Error tokenizer_duplicate, tokenizer_bytes_missing, tokenizer_merge, tokenizer_too_large,
  /// tokenizer_offsets
  Bpe(std::span<const uint8_t> bytes, std::span<const uint32_t> offsets, std::span<const uint32_t> merges,
      bool whole_piece);

  /// Appends the tokens of `text` (UTF-8; anything else is encoded byte by byte). O(n log n) for the longest piece.
  void encode(std::span<const uint8_t> text, std::vector<int32_t>& out);

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  // A piece of at most 15 bytes as two words: zero-padded bytes, length in the last byte.
  struct Key {
    uint64_t lo, hi;
  };
  struct Slot {
    uint64_t lo, hi;
    uint32_t id;
  };
  struct Cached {
    uint64_t lo, hi;
    uint32_t count;
    int32_t ids[7];
  };
  struct Node {
    uint32_t id, left, right;
  };
  struct Scratch {
    std::vector<uint32_t> parts, ranks;
    std::vector<Node> nodes;
    std::vector<uint64_t> heap;
    std::vector<Cached> cache;
  };

  static Key key_of(const uint8_t* p, size_t n, const uint8_t* readable_end);
  uint32_t find_short(Key key) const;
  uint32_t find_long(const uint8_t* p, size_t n) const;
  uint32_t find(const uint8_t* p, size_t n) const;
  uint32_t pair_rank(uint32_t left, uint32_t right) const;
  uint32_t result_of(uint32_t rank) const { return merged_.empty() ? rank : merged_[rank]; }
  bool add_pair(uint32_t left, uint32_t right, uint32_t rank);
  void encode_piece(const uint8_t* p, size_t n, const uint8_t* end, Scratch& s, std::vector<int32_t>& out) const;
  void find_sure_chars();
  size_t first_parts(const uint8_t* p, size_t n, uint32_t* parts, uint32_t* ranks) const;
  void merge(const uint8_t* p, size_t n, Scratch& s, std::vector<int32_t>& out) const;
  void merge_few(uint32_t* parts, uint32_t* ranks, size_t n, std::vector<int32_t>& out) const;
  void merge_many(size_t n, Scratch& s, std::vector<int32_t>& out) const;

  std::vector<uint8_t> bytes_;
  std::vector<uint32_t> offsets_;
  std::vector<Slot> short_;           // open addressing, power of two
  std::vector<uint32_t> long_;        // ids of tokens over 15 bytes
  std::vector<uint64_t> pairs_;       // left (20 bits), right (20), rank (24); all ones = empty
  std::vector<uint32_t> merged_;      // rank → id of the result; empty: the same number
  std::vector<uint32_t> byte_pairs_;  // rank of each pair of bytes, 256 × 256
  // code point → its token, where the bytes of the character always merge first; else kNone
  std::vector<uint32_t> sure_chars_;
  uint32_t byte_ids_[256];
  bool whole_piece_;
  std::mutex busy_;
  Scratch shared_;  // with the cache of recent pieces; whoever finds it taken uses a fresh one
};

}  // namespace temper::tokenizer
