// What a new schema costs the streams of others: the worst gap between tokens of running streams, with requests that
// bring schemas nobody has seen, of the median gap without them.
//   node bench/structures.mjs [--model models/nano] [--streams 4] [--seconds 5]
import { parseArgs } from 'node:util';
import { openEngine } from '../dist/infer/engine.js';
import { openStructures } from '../dist/infer/structures.js';

const { values } = parseArgs({
  options: {
    model: { type: 'string', default: 'models/nano' },
    streams: { type: 'string', default: '4' },
    seconds: { type: 'string', default: '5' },
  },
});
const engine = await openEngine({ model: values.model, slots: 16 });
const structures = openStructures({ model: values.model, vocabSize: engine.info.vocabSize });
/** @returns {import('../dist/harmony/types.js').Message[]} */
const message = (content) => [{ role: 'user', content }];
let made = 0;
/** Patterns, members and names that no other has. */
const schema = () => {
  const n = made++;
  const properties = Object.fromEntries(
    Array.from({ length: 40 }, (_, i) => [
      `m${n}_${i}`,
      i % 4 === 0
        ? { type: 'string', pattern: `^[a-z]{${3 + (i % 5)},12}-${n}-\\p{L}+$` }
        : { type: 'integer', minimum: n },
    ]),
  );
  return { type: 'object', properties, required: Object.keys(properties).slice(0, 10), additionalProperties: false };
};

async function gapsOf(withSchemas) {
  const stop = new AbortController();
  const gaps = [];
  const streams = Array.from({ length: Number(values.streams) }, async (_, i) => {
    for (let round = 0; !stop.signal.aborted; round++) {
      let last = 0;
      const request = { messages: message(`count ${i} ${round}`), maxTokens: 200, sampling: { seed: i } };
      for await (const _event of engine.generate(request, stop.signal)) {
        const now = performance.now();
        if (last > 0) gaps.push(now - last);
        last = now;
      }
    }
  });
  const quiet = (e) => {
    if (!stop.signal.aborted) throw e;
  };
  const end = performance.now() + 1000 * Number(values.seconds);
  let asked = 0;
  while (performance.now() < end) {
    if (withSchemas) {
      const { structure } = await structures.prepare({ answer: schema(), calls: [], mustCall: false });
      for await (const _event of engine.generate({ messages: message('json'), maxTokens: 24, structure })) {
        // its tokens are nobody's
      }
      asked++;
    } else await new Promise((done) => setTimeout(done, 100));
  }
  stop.abort();
  await Promise.all(streams.map((s) => s.catch(quiet)));
  const sorted = gaps.toSorted((a, b) => a - b);
  const at = (q) => Number(sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))].toFixed(2));
  return { asked, gaps: sorted.length, medianMs: at(0.5), p99Ms: at(0.99), worstMs: at(1) };
}
await structures.prepare({ answer: {}, calls: [], mustCall: false });
console.log(JSON.stringify({ without: await gapsOf(false), with: await gapsOf(true), again: await gapsOf(false) }));
await structures.close();
await engine.close();
