// What a batch costs beside its judge: rows of conversations, a judge that answers at once, verdicts written whole;
// `npm run build` first.
// node bench/screen.mjs [--rows N] [--detectors] [--window N]
//   JSON on stdout: microseconds a row of wall and CPU time, what the null judge itself takes of them, RSS after a
//   tenth of the rows and at its highest; then of a second run that finds everything judged

import { once } from 'node:events';
import { createWriteStream, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { screenFile } from '../dist/safeguard/batch/screen-file.js';
import { createDetectors } from '../dist/safeguard/detectors/index.js';
import { definePolicy } from '../dist/safeguard/policy.js';
import { createScreen } from '../dist/safeguard/screen.js';

const { values } = parseArgs({
  options: {
    rows: { type: 'string', default: '1000000' },
    window: { type: 'string', default: '16' },
    detectors: { type: 'boolean', default: false },
  },
});
const rows = Number(values.rows);
const dir = mkdtempSync(join(tmpdir(), 'temper-bench-screen-'));
process.on('exit', () => rmSync(dir, { recursive: true, force: true }));

async function writeRows(path) {
  const out = createWriteStream(path);
  let piece = [];
  for (let i = 0; i < rows; i++) {
    const text = `The table for ${2 + (i % 7)} people is laid for friday at 19:30, number ${i}; more will follow soon.`;
    piece.push(`${JSON.stringify({ id: `row-${i}`, text })}\n`);
    if (piece.length < 4096) continue;
    if (!out.write(piece.join(''))) await once(out, 'drain');
    piece = [];
  }
  out.end(piece.join(''));
  await once(out, 'close');
}

let calls = 0;
const judge = {
  name: 'null',
  digest: 'null',
  judge: async ({ nonce }) => {
    calls++;
    return { text: `{"violation":0,"rule":null,"nonce":"${nonce}"}`, finish: /** @type {const} */ ('stop') };
  },
};
/** Microseconds of one answer of the judge, awaited as the screen does. */
async function judgeAlone(n = 200_000) {
  const start = process.hrtime.bigint();
  for (let i = 0; i < n; i++) await judge.judge({ nonce: '1a2b3c' });
  return Number(process.hrtime.bigint() - start) / 1e3 / n;
}

async function measured(input, output) {
  const screen = createScreen({
    policies: [definePolicy('contact', 'C1: a phone number\nC2: an address')],
    judge,
    concurrency: Number(values.window),
    ...(values.detectors ? { detectors: createDetectors() } : {}),
  });
  let [early, peak, checked] = [0, 0, 0];
  const before = process.cpuUsage();
  const start = performance.now();
  calls = 0;
  const summary = await screenFile({
    input,
    output,
    screen,
    window: Number(values.window),
    onChecked: () => {
      checked = performance.now() - start;
    },
    onRow: (done) => {
      if (done % 4096 !== 0) return;
      const { rss } = process.memoryUsage();
      if (done >= rows / 10 && early === 0) early = rss;
      peak = Math.max(peak, rss);
    },
  });
  const wall = performance.now() - start;
  const { user, system } = process.cpuUsage(before);
  const round = (x) => Number(x.toPrecision(3));
  return {
    rows: summary.rows,
    calls,
    kept: summary.kept,
    usPerRow: round((1e3 * wall) / rows),
    usPerRowChecking: round((1e3 * checked) / rows),
    cpuUsPerRow: round((user + system) / rows),
    rssEarlyMiB: round(early / 2 ** 20),
    rssPeakMiB: round(peak / 2 ** 20),
    outputMB: round(statSync(output).size / 1e6),
  };
}

const [input, output] = [join(dir, 'rows.jsonl'), join(dir, 'verdicts.jsonl')];
await writeRows(input);
const judgeUs = Number((await judgeAlone()).toPrecision(3));
const fresh = await measured(input, output);
const again = await measured(input, output);
console.log(JSON.stringify({ bench: 'screen', inputMB: statSync(input).size / 1e6, judgeUs, fresh, again }, null, 1));
