// The tokenizer file of the released models, from the ranks that npm's tiktoken has: what a made-up checkpoint of their
// vocabulary needs to be served.
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { byteAlphabet, controlTokens } from '../scripts/nano/bpe.mjs';

const NANO = fileURLToPath(new URL('../models/nano/tokenizer.json', import.meta.url));

/** Bytes of each token as latin1, by id. */
function ranks() {
  const file = createRequire(import.meta.url)('tiktoken/encoders/o200k_base.json');
  const tokens = [];
  for (const line of file.bpe_ranks.split('\n')) {
    const [mark, first, ...rest] = line.split(' ');
    if (mark !== '!') continue;
    for (const [i, token] of rest.entries())
      tokens[Number(first) + i] = Buffer.from(token, 'base64').toString('latin1');
  }
  return tokens;
}
/** All splits of each token into two, by the rank of the result, then of the parts. */
function* mergesOf(tokens) {
  const idOf = new Map(tokens.map((token, id) => [token, id]));
  for (const token of tokens) {
    const own = [];
    for (let k = 1; k < token.length; k++) {
      const left = idOf.get(token.slice(0, k)),
        right = idOf.get(token.slice(k));
      if (left !== undefined && right !== undefined) own.push([left, right]);
    }
    yield* own.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  }
}

/** Writes tokenizer.json into `dir`. */
export function writeO200k(dir) {
  const tokens = ranks(),
    names = tokens.map((token) => Array.from(token, (c) => byteAlphabet[c.charCodeAt(0)]).join(''));
  const file = JSON.parse(readFileSync(NANO, 'utf8'));
  const [likeIt] = file.added_tokens;
  file.added_tokens = controlTokens(names.length).map(({ id, content }) => ({ ...likeIt, id, content }));
  file.model.vocab = Object.fromEntries(names.map((name, id) => [name, id]));
  file.model.merges = [...mergesOf(tokens)].map((pair) => pair.map((id) => names[id]));
  writeFileSync(join(dir, 'tokenizer.json'), JSON.stringify(file));
}
