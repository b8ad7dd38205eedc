// What it costs to hold a JSON text to its schema: µs to make the mask of each token, over gpt-oss's whole vocabulary.
// Every token of the text must be in its mask; texts are tokenized as the model's tokenizer does.
//   node bench/masks.mjs [SUITE-FOLDER]
import { readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { tokenizerFromRanks } from '../dist/harmony/tokenizer.js';
import { Masks } from '../dist/infer/grammar/masks.js';
import { compileSchema } from '../dist/infer/grammar/schema.js';
import { beginText, mayEnd, stepState } from '../dist/infer/grammar/values.js';
import { vocabularyOf } from '../dist/infer/grammar/vocabulary.js';

const file = createRequire(import.meta.url)('tiktoken/encoders/o200k_base.json');
const ranks = [];
for (const line of file.bpe_ranks.split('\n')) {
  const [mark, first, ...tokens] = line.split(' ');
  if (mark === '!') for (const [i, t] of tokens.entries()) ranks[Number(first) + i] = Buffer.from(t, 'base64');
}
const tokenizer = tokenizerFromRanks(ranks, { vocabSize: 201088 });
const from = performance.now();
const vocabulary = vocabularyOf(tokenizer, tokenizer.vocabSize);
const vocabularyMs = performance.now() - from;
const masks = new Masks(vocabulary, (t) => tokenizer.bytes(t));

const object = (properties, more = {}) => ({
  type: 'object',
  properties,
  required: Object.keys(properties),
  additionalProperties: false,
  ...more,
});
const text = 'Grüße aus Zürich: "alles" gut, 3 \\ 4?\nEin zweiter Satz, der etwas länger ist, damit viel Text da ist.';
const cases = [
  [object({ city: { type: 'string' }, days: { type: 'integer', minimum: 1, maximum: 14 } }), { city: 'Bern', days: 7 }],
  [object({ answer: { type: 'string' } }), { answer: text.repeat(4) }],
  [object({ answer: { type: 'string', maxLength: 600 } }), { answer: text.repeat(4) }],
  [
    { type: 'object', properties: { q: { type: 'string' }, limit: { type: 'number' } } },
    { q: text, other: [1, { a: null }], limit: 2.5 },
  ],
  [{}, { any: [text, 1e-7, true, { deep: { er: [[], {}] } }] }],
  [
    object({
      steps: { type: 'array', items: object({ explanation: { type: 'string' }, output: { type: 'string' } }) },
      final: { type: 'string' },
    }),
    { steps: Array.from({ length: 6 }, (_, i) => ({ explanation: text, output: `x = ${i}` })), final: 'x = 5' },
  ],
  [
    object({
      kind: { enum: ['red', 'green', 'blue'] },
      id: { type: 'string', pattern: '^[A-Z]{3}-\\d{4}$' },
      mail: { type: 'string', pattern: '^[\\w.+-]+@[\\w-]+\\.[\\w.]+$' },
    }),
    { kind: 'green', id: 'ABC-1234', mail: 'someone.else@example.org' },
  ],
  [
    {
      anyOf: [
        object({ type: { const: 'circle' }, r: { type: 'number' } }),
        object({ type: { const: 'box' }, w: { type: 'number' }, h: { type: 'number' } }),
      ],
    },
    { type: 'box', w: 3.25, h: 400 },
  ],
];
const suite = process.argv[2];
if (suite)
  for (const f of readdirSync(suite).filter((n) => n.endsWith('.json')))
    for (const g of JSON.parse(readFileSync(join(suite, f), 'utf8')))
      for (const t of g.tests) if (t.valid) cases.push([g.schema, t.data, true]);

/** CPU time of this process, ms: what others do on the machine does not count. */
const cpu = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
};
let times = [];
let tokens = 0,
  missed = 0,
  refused = 0,
  compileMs = 0,
  slowest = { us: 0 };
/** The first round is the first use of everything: schemas, sets of characters, the compiler of the runtime. */
const ROUNDS = suite ? 2 : 6;
let first;
const figures = () => {
  const sorted = times.toSorted((a, b) => a - b);
  const at = (q) => Number(sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))].toFixed(1));
  const mean = Number((sorted.reduce((a, b) => a + b, 0) / sorted.length).toFixed(1));
  return { meanUs: mean, p50Us: at(0.5), p99Us: at(0.99), mostUs: at(1) };
};
for (let round = 0; round < ROUNDS; round++) {
  if (round === 1) {
    first = figures();
    times = [];
    slowest = { us: 0 };
  }
  for (const [schema, value, lenient] of cases) {
    let root;
    const began = performance.now();
    try {
      root = compileSchema(schema).root;
    } catch (e) {
      if (!lenient || !e.code) throw e;
      refused++;
      continue;
    }
    compileMs = Math.max(compileMs, performance.now() - began);
    for (const written of [JSON.stringify(value), JSON.stringify(value, null, 2)]) {
      let state = beginText(root);
      const mask = new Int32Array(vocabulary.words);
      for (const token of tokenizer.encode(written)) {
        const t0 = cpu();
        mask.fill(0);
        masks.add(mask, state);
        const us = 1000 * (cpu() - t0);
        times.push(us);
        if (us > slowest.us) slowest = { us, written: written.slice(0, 80), token: tokenizer.decode([token]) };
        tokens++;
        if (!((mask[token >> 5] >> (token & 31)) & 1)) {
          missed++;
          if (missed <= 20)
            console.log(
              'not in its mask:',
              JSON.stringify(schema).slice(0, 80),
              written.slice(0, 60),
              JSON.stringify(tokenizer.decode([token])),
            );
          break;
        }
        for (const b of tokenizer.bytes(token)) state = stepState(state, b);
      }
      if (state.length > 0 && !mayEnd(state)) missed++;
    }
  }
}
console.log(
  JSON.stringify({
    schemas: cases.length,
    refused: refused / ROUNDS,
    tokens: tokens / ROUNDS,
    missed,
    ...figures(),
    first,
    slowest,
    compileMs: Number(compileMs.toFixed(1)),
    vocabularyMs: Number(vocabularyMs.toFixed(0)),
  }),
);
tokenizer.close();
