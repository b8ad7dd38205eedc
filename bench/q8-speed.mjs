// node bench/q8-speed.mjs --model DIR [--pairs 400] [--prefill 512]: speed of 8-bit attention and head (--dense-dtype
// q8) against bf16. Both models are open in one process and take turns, a token (or a prompt) each, so that both meet
// the same load; the ratio is the median over the pairs. Needs the build.
import { parseArgs } from 'node:util';
import { openCheckpoint } from '../dist/model/checkpoint.js';
import { forwardHidden, logits } from '../dist/model/gpt-oss.js';
import { KvCache } from '../dist/model/kv-cache.js';
import { quantizeDense } from '../dist/model/q8.js';
import { getThreads, Scope } from '../dist/native/tensor.js';

const { values: o } = parseArgs({
  options: {
    model: { type: 'string' },
    pairs: { type: 'string', default: '400' },
    prefill: { type: 'string', default: '512' },
  },
});
if (!o.model) throw new Error('--model DIR is missing');
const pairs = Number(o.pairs),
  prompt = Number(o.prefill),
  precision = 'bf16';
const median = (xs) => [...xs].sort((a, b) => a - b)[xs.length >> 1];

const bf16 = openCheckpoint(o.model),
  q8 = quantizeDense(bf16);
/** Milliseconds of one forward pass over `count` tokens that continue the cache. */
function pass(model, cache, at, count) {
  const tokens = Int32Array.from(
    { length: count },
    (_, i) => (((at + i) * 2654435761) >>> 8) % model.config.vocab_size,
  );
  const batch = { tokens, positions: Int32Array.from(tokens, (_, i) => at + i), starts: Int32Array.of(0, count) };
  const s = new Scope(),
    from = performance.now();
  logits(
    s,
    model,
    forwardHidden(s, model, null, batch, { precision, cache, rows: Int32Array.of(count - 1) }),
    precision,
  );
  const ms = performance.now() - from;
  s.close();
  return ms;
}
function alternate(name, n, tokens, run) {
  const times = [[], []];
  for (let i = 0; i < n; i++)
    for (const which of i % 2 ? [1, 0] : [0, 1]) times[which].push(run([bf16, q8][which], which, i));
  const [a, b] = times.map((t) => t.slice(n >> 3)); // the first ones meet cold pages
  print({
    work: name,
    pairs: a.length,
    bf16TokensPerSecond: (1000 * tokens) / median(a),
    q8TokensPerSecond: (1000 * tokens) / median(b),
    ratio: median(a.map((t, i) => t / b[i])),
  });
}
const short = (_, v) => (typeof v === 'number' ? Number(v.toPrecision(4)) : v);
const print = (row) =>
  process.stdout.write(`${JSON.stringify({ bench: 'q8 speed', threads: getThreads(), ...row }, short)}\n`);

const caches = [0, 1].map(() => new KvCache(bf16.config, 1, pairs + 1));
alternate('decode, batch 1, from depth 0', pairs, 1, (model, which, i) => pass(model, caches[which], i, 1));
for (const cache of caches) cache.close();
if (prompt > 0)
  alternate(`prefill ${prompt}`, Math.max(8, pairs >> 5), prompt, (model) => {
    const cache = new KvCache(bf16.config, 1, prompt);
    try {
      return pass(model, cache, 0, prompt);
    } finally {
      cache.close();
    }
  });
q8.close();
