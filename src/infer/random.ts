// The uniform numbers of sampling: one per (seed, step), by a counter hash, so that a sequence samples the same next to
// any neighbours.

/** Finaliser of MurmurHash3: every input bit reaches every output bit. */
function mix(h: number): number {
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/**
 * @param seed integer in [0, 2^53)
 * @param step tokens sampled before this one
 * @returns a multiple of 2^-24 in [0, 1): exact in f32, so never rounded up to 1
 */
export function uniform(seed: number, step: number): number {
  let h = mix((seed >>> 0) ^ 0x9e3779b9);
  h = mix(h ^ mix(Math.floor(seed / 2 ** 32) + 0x7f4a7c15));
  h = mix(h ^ mix(step + 0x165667b1));
  return (h >>> 8) / 2 ** 24;
}
