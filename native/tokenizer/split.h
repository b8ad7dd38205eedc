// o200k's split pattern, hand-coded: cuts UTF-8 text into the pieces BPE works on. The derivation stands in split.cpp.
#pragma once
#include <cstddef>
#include <cstdint>

namespace temper::tokenizer {

/// End of the piece that begins at `at` (at < end). Every byte belongs to some piece; invalid UTF-8 counts byte by byte as "other".
const uint8_t* next_piece(const uint8_t* at, const uint8_t* end);

}  // namespace temper::tokenizer
