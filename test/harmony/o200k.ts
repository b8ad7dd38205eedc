// The oracle: o200k's ranks and encoder from npm tiktoken, and gpt-oss's tokenizer built from those ranks.
import { createRequire } from 'node:module';
import { Tiktoken } from 'tiktoken';

interface EncoderFile {
  readonly pat_str: string;
  readonly bpe_ranks: string;
  readonly special_tokens: Record<string, number>;
}
const file = createRequire(import.meta.url)('tiktoken/encoders/o200k_base.json') as EncoderFile;

export const o200kPattern: string = file.pat_str;

/** Token bytes by id, 0…199997. */
export function o200kRanks(): Uint8Array[] {
  const ranks: Uint8Array[] = [];
  for (const line of file.bpe_ranks.split('\n')) {
    const [mark, first, ...tokens] = line.split(' ');
    if (mark !== '!') continue;
    for (const [i, token] of tokens.entries()) ranks[Number(first) + i] = Buffer.from(token, 'base64');
  }
  return ranks;
}

export function o200kOracle(): Tiktoken {
  return new Tiktoken(file.bpe_ranks, file.special_tokens, file.pat_str);
}

/**
 * All splits of each token into two tokens, by the rank of the result, then of the parts: how the released
 * tokenizer.json lists merges.
 */
export function mergesOfRanks(ranks: readonly Uint8Array[]): [number, number][] {
  const key = (t: Uint8Array): string => Buffer.from(t.buffer, t.byteOffset, t.length).toString('latin1');
  const names = ranks.map(key);
  const idOf = new Map(names.map((name, id) => [name, id]));
  const merges: [number, number][] = [];
  for (const name of names) {
    const own: [number, number][] = [];
    for (let k = 1; k < name.length; k++) {
      const left = idOf.get(name.slice(0, k));
      const right = idOf.get(name.slice(k));
      if (left !== undefined && right !== undefined) own.push([left, right]);
    }
    merges.push(...own.sort((a, b) => a[0] - b[0] || a[1] - b[1]));
  }
  return merges;
}
