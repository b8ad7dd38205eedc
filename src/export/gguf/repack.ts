// MXFP4 blocks in the order of ggml: a scale, then 16 bytes of which byte j has element j below and element j + 16
// above. In a checkpoint byte j has elements 2j and 2j + 1, and scales are apart. Values stay, bit for bit.

/** Bytes of a block of ggml. */
export const BLOCK = 17;

/**
 * @param blocks u8 [n·16] @param scales u8 [n]
 * @returns u8 [n·17]
 */
export function packBlocks(blocks: Uint8Array, scales: Uint8Array): Uint8Array {
  const out = new Uint8Array(scales.length * BLOCK);
  for (let n = 0; n < scales.length; n++) {
    const from = n * 16,
      to = n * BLOCK;
    out[to] = scales[n] ?? 0;
    for (let k = 0; k < 8; k++) {
      const first = blocks[from + k] ?? 0,
        second = blocks[from + k + 8] ?? 0;
      out[to + 1 + 2 * k] = (first & 15) | ((second & 15) << 4);
      out[to + 2 + 2 * k] = (first >> 4) | (second & 0xf0);
    }
  }
  return out;
}

/** The inverse of packBlocks. */
export function unpackBlocks(packed: Uint8Array): { readonly blocks: Uint8Array; readonly scales: Uint8Array } {
  const n = packed.length / BLOCK,
    blocks = new Uint8Array(n * 16),
    scales = new Uint8Array(n);
  for (let i = 0; i < n; i++) {
    const from = i * BLOCK,
      to = i * 16;
    scales[i] = packed[from] ?? 0;
    for (let k = 0; k < 8; k++) {
      const even = packed[from + 1 + 2 * k] ?? 0,
        odd = packed[from + 2 + 2 * k] ?? 0;
      blocks[to + k] = (even & 15) | ((odd & 15) << 4);
      blocks[to + k + 8] = (even >> 4) | (odd & 0xf0);
    }
  }
  return { blocks, scales };
}

/**
 * Every second row, from `first` on. @param rowBytes bytes of a row
 */
export function everySecondRow(rows: Uint8Array, rowBytes: number, first: 0 | 1): Uint8Array {
  const out = new Uint8Array(rows.length / 2);
  for (let to = 0, from = first * rowBytes; to < out.length; to += rowBytes, from += 2 * rowBytes)
    out.set(rows.subarray(from, from + rowBytes), to);
  return out;
}
