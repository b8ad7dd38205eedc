// Tokenizer speed on one core against npm tiktoken, interleaved in one run on the same text; `npm run build` first.
// node bench/tokenizer.mjs [--compare PATH…]   JSON on stdout. --compare also checks every text file under the paths,
// token by token.
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { cpus } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { tokenizerFromRanks } from '../dist/harmony/tokenizer.js';
import { corpus } from '../test/harmony/corpus.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const require = createRequire(import.meta.url);
const { Tiktoken } = require('tiktoken');
const file = require('tiktoken/encoders/o200k_base.json');

const ranks = [];
for (const line of file.bpe_ranks.split('\n')) {
  const [, first, ...tokens] = line.split(' ');
  for (const [i, token] of tokens.entries()) ranks[Number(first) + i] = Buffer.from(token, 'base64');
}
const ours = tokenizerFromRanks(ranks);
const oracle = new Tiktoken(file.bpe_ranks, file.special_tokens, file.pat_str);

/** CPU seconds of this process: encoding runs on one thread, and other work on the machine does not count. */
function seconds(act) {
  const before = process.cpuUsage();
  act();
  const used = process.cpuUsage(before);
  return (used.user + used.system) / 1e6;
}
const median = (list) => [...list].sort((a, b) => a - b)[list.length >> 1];
const round = (x) => Number(x.toPrecision(3));

const ROUNDS = 7;
const parts = {};
let bytes = 0,
  time = 0,
  oracleTime = 0,
  different = 0;
for (const [name, texts] of corpus(root)) {
  const size = texts.reduce((n, t) => n + Buffer.byteLength(t), 0);
  let tokens = 0;
  for (const t of texts) {
    const a = ours.encode(t),
      b = oracle.encode_ordinary(t);
    tokens += a.length;
    if (a.length !== b.length || a.some((id, i) => id !== b[i])) different++;
  }
  const mine = [],
    theirs = [];
  for (let r = 0; r < ROUNDS; r++) {
    mine.push(
      seconds(() => {
        for (const t of texts) ours.encode(t);
      }),
    );
    if (r < 3)
      theirs.push(
        seconds(() => {
          for (const t of texts) oracle.encode_ordinary(t);
        }),
      );
  }
  parts[name] = {
    megabytes: round(size / 1e6),
    bytesPerToken: round(size / tokens),
    mbPerSecond: round(size / 1e6 / median(mine)),
    tiktokenMbPerSecond: round(size / 1e6 / median(theirs)),
  };
  if (name === 'edges' || name === 'long') continue; // not text anyone writes
  bytes += size;
  time += median(mine);
  oracleTime += median(theirs);
}

let compared;
const paths = process.argv.slice(process.argv.indexOf('--compare') + 1);
if (process.argv.includes('--compare')) {
  compared = { files: 0, megabytes: 0, different: [] };
  const visit = (path) => {
    const info = statSync(path, { throwIfNoEntry: false });
    if (info?.isDirectory()) {
      for (const name of readdirSync(path)) visit(join(path, name));
      return;
    }
    if (!info?.isFile() || info.size > 4e6) return;
    let raw;
    try {
      raw = readFileSync(path);
    } catch {
      return;
    }
    if (raw.subarray(0, 4096).includes(0)) return;
    const text = raw.toString('utf8');
    let wanted;
    try {
      wanted = oracle.encode_ordinary(text);
    } catch {
      return;
    } // the reference gives up on pieces of a million characters
    const got = ours.encode(text);
    if (got.length !== wanted.length || got.some((id, i) => id !== wanted[i])) compared.different.push(path);
    compared.files++;
    compared.megabytes += raw.length / 1e6;
  };
  for (const path of paths) visit(path);
  compared.megabytes = round(compared.megabytes);
}

console.log(
  JSON.stringify(
    {
      bench: 'tokenizer',
      vocabulary: 'o200k',
      machine: cpus()[0]?.model ?? 'unknown',
      node: process.version,
      clock: 'CPU seconds of the process, median of 7 (tiktoken: 3)',
      megabytes: round(bytes / 1e6),
      mbPerSecond: round(bytes / 1e6 / time),
      tiktokenMbPerSecond: round(bytes / 1e6 / oracleTime),
      textsDifferent: different,
      parts,
      ...(compared ? { compared } : {}),
    },
    null,
    2,
  ),
);
