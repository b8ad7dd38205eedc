// Numbers of the bootstrap: sfc32 (Doty-Humphrey), whose 128 bits of state are a digest of what they are drawn for, so
// that metrics and blocks of resamples have streams of their own, whoever computes them.
import { createHash } from 'node:crypto';

export type RandomState = readonly [number, number, number, number];
/** @param of what the stream is for: seed, metric, slice, block */
export function stateOf(...of: readonly (string | number)[]): RandomState {
  const digest = createHash('sha256').update(JSON.stringify(of)).digest();
  return [digest.readInt32LE(0), digest.readInt32LE(4), digest.readInt32LE(8), digest.readInt32LE(12)];
}

/** Uniform 32-bit numbers, one a call; the loop of the bootstrap has the same steps in line. */
export function generator(state: RandomState): () => number {
  let [a, b, c, d] = state;
  return () => {
    const t = (((a + b) | 0) + d) | 0;
    d = (d + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + t) | 0;
    return t >>> 0;
  };
}
