// node bench/q8-error.mjs [--model models/nano] [--data datasets/desk/heldout.jsonl] [--rows 200] [--random DIR]: what
// 8-bit attention and head (--dense-dtype q8) change against bf16. On held-out rows, over the tokens the model must
// write: |Δ log-probability| of the token, KL(bf16 ‖ q8) and top-1 agreement; and the relative error of logits, also on
// the checkpoint in DIR with random tokens. Products in bf16 on both sides unless said. Needs the build.
import { parseArgs } from 'node:util';
import { loadDataset } from '../dist/data/load.js';
import { loadTokenizer } from '../dist/harmony/tokenizer.js';
import { openCheckpoint } from '../dist/model/checkpoint.js';
import { readConfig } from '../dist/model/config.js';
import { forwardHidden, logits } from '../dist/model/gpt-oss.js';
import { quantizeDense } from '../dist/model/q8.js';
import { Scope } from '../dist/native/tensor.js';

const { values: o } = parseArgs({
  options: {
    model: { type: 'string', default: 'models/nano' },
    data: { type: 'string', default: 'datasets/desk/heldout.jsonl' },
    rows: { type: 'string', default: '200' },
    random: { type: 'string' },
  },
});

/** @param {'f32' | 'bf16'} [precision] */
function run(model, tokens, rows, precision = 'bf16') {
  const s = new Scope();
  const batch = { tokens, positions: Int32Array.from(tokens, (_, i) => i), starts: Int32Array.of(0, tokens.length) };
  try {
    return logits(s, model, forwardHidden(s, model, null, batch, { precision, rows }), precision).toFloat32();
  } finally {
    s.close();
  }
}
function logSoftmax(x) {
  const peak = x.reduce((a, b) => Math.max(a, b), -Infinity),
    lse = peak + Math.log(x.reduce((sum, v) => sum + Math.exp(v - peak), 0));
  return Float64Array.from(x, (v) => v - lse);
}
/** Adds the squares of the difference and of the logits less their mean, which is what a softmax sees. */
function addSquares(to, a, b) {
  const mean = a.reduce((s, v) => s + v, 0) / a.length,
    meanB = b.reduce((s, v) => s + v, 0) / b.length;
  a.forEach((v, i) => {
    to.square += (v - mean) ** 2;
    to.off += (v - mean - (b[i] - meanB)) ** 2;
  });
}
const relative = ({ off, square }) => Number(Math.sqrt(off / square).toPrecision(3));
const print = (value) => process.stdout.write(`${JSON.stringify({ bench: 'q8 error', ...value })}\n`);

function both(dir, body) {
  const bf16 = openCheckpoint(dir),
    q8 = quantizeDense(bf16);
  try {
    return body(bf16, q8);
  } finally {
    q8.close();
  }
}

const tokenizer = loadTokenizer(o.model);
const vocabSize = readConfig(o.model).vocab_size;
const { examples } = await loadDataset([{ path: o.data, format: 'chat' }], {
  tokenizer: () => tokenizer,
  vocabSize,
  maxTokens: 4096,
  loss: { analysis: 1, commentary: 1, final: 1 },
});
both(o.model, (bf16, q8) => {
  const V = vocabSize,
    sum = { square: 0, off: 0 };
  let count = 0,
    delta = 0,
    worst = 0,
    kl = 0,
    same = 0,
    nll = 0,
    nllQ8 = 0;
  for (const { tokens, weights } of [...examples].slice(0, Number(o.rows))) {
    const rows = Int32Array.from(weights.keys())
      .filter((i) => i > 0 && weights[i] > 0)
      .map((i) => i - 1);
    const a = run(bf16, tokens, rows),
      b = run(q8, tokens, rows);
    rows.forEach((at, r) => {
      const x = a.subarray(r * V, (r + 1) * V),
        y = b.subarray(r * V, (r + 1) * V);
      addSquares(sum, x, y);
      const p = logSoftmax(x),
        q = logSoftmax(y),
        target = tokens[at + 1],
        d = Math.abs(p[target] - q[target]);
      count++;
      delta += d;
      worst = Math.max(worst, d);
      nll -= p[target];
      nllQ8 -= q[target];
      p.forEach((l, i) => {
        kl += Math.exp(l) * (l - q[i]);
      });
      if (p.indexOf(p.reduce((m, v) => Math.max(m, v))) === q.indexOf(q.reduce((m, v) => Math.max(m, v)))) same++;
    });
  }
  print({
    model: o.model,
    data: o.data,
    rows: Math.min(examples.length, Number(o.rows)),
    tokens: count,
    meanAbsDeltaLogprob: delta / count,
    maxAbsDeltaLogprob: worst,
    kl: kl / count,
    top1Agreement: same / count,
    nllBf16: nll / count,
    nllQ8: nllQ8 / count,
    relativeLogitError: relative(sum),
  });
});
if (o.random)
  both(o.random, (bf16, q8) => {
    // With random weights many tokens stand between two experts, and any rounding sends some of them the other way:
    // hence quantiles over the rows, and what rounding operands to bf16 does by itself, for comparison.
    const V = bf16.config.vocab_size,
      tokens = Int32Array.from({ length: 256 }, (_, i) => ((i * 2654435761) >>> 8) % V);
    const exact = run(bf16, tokens, null, 'f32');
    const error = (logits, want) => {
      const rows = Array.from(tokens, (_, r) => {
        const sum = { square: 0, off: 0 };
        addSquares(sum, want.subarray(r * V, (r + 1) * V), logits.subarray(r * V, (r + 1) * V));
        return relative(sum);
      }).sort((x, y) => x - y);
      return {
        median: rows[tokens.length >> 1],
        p90: rows[Math.floor(tokens.length * 0.9)],
        max: rows[tokens.length - 1],
      };
    };
    const rounded = run(bf16, tokens, null);
    print({
      model:
        `${bf16.config.num_hidden_layers} layers, hidden ${bf16.config.hidden_size}, vocabulary ` +
        `${V}, random weights and tokens`,
      tokens: tokens.length,
      relativeLogitErrorPerRow: {
        q8Products32: error(run(q8, tokens, null, 'f32'), exact),
        bf16Products: error(rounded, exact),
        q8Bf16ProductsAgainstBf16: error(run(q8, tokens, null), rounded),
      },
    });
  });
