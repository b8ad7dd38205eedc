// node bench/data.mjs [--mb 2000] [--dir DIR]: how fast rows of JSON lines are read and checked without being tokenised
// (`temper data check FILE`), per second and per second of CPU, and the private memory that it takes. The file is made
// in a temporary folder and removed. Needs the build.
import { spawnSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync, statSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { PrivateMemory } from '../dist/bench/private-memory.js';
import { checkFile } from '../dist/data/check.js';

const { values: o } = parseArgs({
  options: {
    mb: { type: 'string', default: '2000' },
    dir: { type: 'string', default: tmpdir() },
    // What this process makes for the one that measures.
    make: { type: 'string' },
  },
});
const bytes = Number(o.mb) * 1e6;
if (o.make) {
  make(o.make);
  process.exit();
}
const folder = mkdtempSync(join(o.dir, 'temper-bench-data-'));
const stop = () => rmSync(folder, { recursive: true, force: true });
process.on('exit', stop);
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(130));

const path = join(folder, 'rows.jsonl');
const made = spawnSync(process.execPath, [import.meta.filename, '--make', path, '--mb', o.mb], { stdio: 'inherit' });
if (made.status !== 0) process.exit(1);
const written = statSync(path).size;

const memory = new PrivateMemory();
memory.reset();
const [began, cpu] = [performance.now(), process.cpuUsage()];
const loss = { analysis: 1, commentary: 1, final: 1 };
const found = await checkFile({ path, format: 'auto' }, { tokenizer: null, vocabSize: 2 ** 31, maxTokens: 4096, loss });
const seconds = (performance.now() - began) / 1000;
const { user, system } = process.cpuUsage(cpu);
if (found.badRows > 0) throw new Error(found.errors[0].message);
process.stdout.write(
  `${JSON.stringify({
    bench: 'data',
    megabytes: Math.round(written / 1e6),
    rows: found.rows,
    megabytesPerSecond: Number((written / 1e6 / seconds).toPrecision(3)),
    megabytesPerCpuSecond: Number((written / (user + system)).toPrecision(3)),
    privateMiB: Math.round(memory.peak() / 2 ** 20),
  })}\n`,
);
process.exit();

function make(path) {
  const WORDS = 'the desk opens at ten on sunday and closes when nobody asks for a table near the window'.split(' ');
  const MARKS = ['\n', '"so"', '\\', 'l\u2019on', '\u201cd\u00eene\u201d', '\u2014', '\u6f22\u5b57'];
  let seed = 7;
  const random = (n) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return Math.floor((seed / 2 ** 32) * n);
  };
  /** A third of the rows is not ASCII. */
  let foreign = false;
  const word = () => (random(24) > 0 ? WORDS[random(WORDS.length)] : MARKS[random(foreign ? MARKS.length : 3)]);
  const text = (most) => Array.from({ length: 8 + random(most) }, () => word()).join(' ');
  /** Conversations of some 1.5 kB, one in eight with thinking, one in sixteen with a call. */
  function row(i) {
    foreign = random(3) === 0;
    const messages = random(3) === 0 ? [{ role: 'system', content: text(20) }] : [];
    for (let turn = 0; turn <= random(3); turn++) {
      messages.push({ role: 'user', content: `${i} ${text(60)}` });
      if (random(16) === 0) {
        const call = { id: `c${turn}`, type: 'function', function: { name: 'look', arguments: `{"n":${random(99)}}` } };
        messages.push({ role: 'assistant', content: null, tool_calls: [call] });
        messages.push({ role: 'tool', tool_call_id: `c${turn}`, content: text(20) });
      }
      messages.push({
        role: 'assistant',
        ...(random(8) === 0 ? { thinking: text(60) } : {}),
        content: text(120),
      });
    }
    return { messages };
  }

  const file = openSync(path, 'w');
  // The rows of a block differ from those of the next in their number alone.
  const block = Array.from({ length: 20_000 }, (_, i) => JSON.stringify(row(i)));
  for (let [written, at] = [0, 0]; written < bytes; ) {
    const lines = block.map((line) => line.replace(/"content":"/, `"content":"${at++} `));
    written += writeSync(file, Buffer.from(`${lines.join('\n')}\n`));
  }
  closeSync(file);
}
