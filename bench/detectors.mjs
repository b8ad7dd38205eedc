// Speed of the detectors on one core, all rules on, over mixed text, in CPU time of this process; `npm run build`
// first.
// node bench/detectors.mjs                 JSON on stdout: MB of UTF-8 a second by kind of text, of short texts of some
//                                          150 bytes without and with something to find, of texts written to be slow,
//                                          10 MB each, and of a loop over characters that does nothing else
// node bench/detectors.mjs --count PATH…   what the usual rules find in the files under the paths, line by line
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { cpus } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createDetectors, DETECTOR_NAMES } from '../dist/safeguard/detectors/index.js';
import { corpus } from '../test/harmony/corpus.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const all = createDetectors({
  choices: Object.fromEntries(DETECTOR_NAMES.filter((n) => n !== 'canary').map((n) => [n, true])),
});
const usual = createDetectors();
const MB = 1e6;

/** CPU seconds of this process: other work on the machine does not count. */
function seconds(act) {
  const before = process.cpuUsage();
  act();
  const used = process.cpuUsage(before);
  return (used.user + used.system) / 1e6;
}
const median = (list) => [...list].sort((a, b) => a - b)[list.length >> 1];
const round = (x) => Number(x.toPrecision(3));

function filesUnder(path) {
  if (!statSync(path).isDirectory()) return [path];
  return readdirSync(path, { recursive: true, withFileTypes: true })
    .filter((f) => f.isFile() && /\.(?:jsonl?|csv|txt|md|yaml|ts|mjs|py|html)$/.test(f.name))
    .map((f) => join(f.parentPath, f.name));
}

function count(paths) {
  const found = {};
  let [texts, withSomething, bytes] = [0, 0, 0];
  for (const file of paths.flatMap(filesUnder))
    for (const [n, line] of readFileSync(file, 'utf8').split('\n').entries()) {
      texts++;
      bytes += Buffer.byteLength(line);
      const hits = usual.lookNow(line).flatMap((d) => d.findings.map((f) => `${d.detector}/${f.rule}/${f.view}`));
      if (hits.length > 0) withSomething++;
      for (const hit of new Set(hits)) {
        found[hit] ??= { texts: 0, first: [] };
        const entry = found[hit];
        entry.texts++;
        if (entry.first.length < 3) entry.first.push(`${file}:${n + 1}`);
      }
    }
  return { texts, bytes, withSomething, found };
}

const WORST = [
  'a',
  '1',
  '1 ',
  '4111 ',
  '+1',
  'a@a.',
  '<|a',
  '-----BEGIN PRIVATE KEY-----',
  'ghp_a',
  'sk-a',
  'a://a:',
  'eyJhbGciOi.',
];
WORST.push(
  'DE89 ',
  'a\u200b',
  'ａ',
  'аa',
  'MTIzNDU2Nzg5MDEyMzQ1Njc4.',
  Buffer.from('hello '.repeat(9)).toString('base64'),
);

const SHORT = Array.from(
  { length: 10_000 },
  (_, i) =>
    `The table for ${2 + (i % 7)} people is laid for friday at 19:30, number ${i}; more will follow soon, says she.`,
);
const HITS = ['card 4111 1111 1111 1111', 'mail me: a.b@mail.org', '<|start|>system', 'AKIAIOSFODNN7ABCDEFG'];

/** MB a second, the median of some rounds. */
function speedOf(texts, rounds = 5) {
  const bytes = texts.reduce((n, t) => n + Buffer.byteLength(t), 0);
  const times = Array.from({ length: rounds }, () =>
    seconds(() => {
      for (const t of texts) all.lookNow(t);
    }),
  );
  return { bytes, time: median(times), mbPerSecond: round(bytes / MB / median(times)) };
}

function speed() {
  const kinds = {};
  let [allBytes, allTime] = [0, 0];
  // The first texts find code that is not compiled yet.
  const kindsOfText = [...corpus(root)];
  for (const [, texts] of kindsOfText) for (const t of texts.slice(0, 300)) all.lookNow(t);
  for (const [name, texts] of kindsOfText) {
    const { bytes, time, mbPerSecond } = speedOf(texts);
    kinds[name] = { bytes, mbPerSecond };
    allBytes += bytes;
    allTime += time;
  }
  const short = speedOf(SHORT).mbPerSecond;
  const shortWithHits = speedOf(SHORT.map((text, i) => `${text} ${HITS[i % HITS.length]}`)).mbPerSecond;
  const worst = WORST.map((unit) => {
    const text = unit.repeat(Math.ceil(1e7 / Buffer.byteLength(unit)));
    return { unit, mbPerSecond: round(10 / seconds(() => all.lookNow(text))) };
  }).sort((a, b) => a.mbPerSecond - b.mbPerSecond);
  // What this machine gives at the moment: a loop that only adds up the characters.
  const plain = 'hello world foo bar '.repeat(5e5);
  let sum = 0;
  const loop = () => {
    for (let i = 0; i < plain.length; i++) sum = (sum + plain.charCodeAt(i)) | 0;
  };
  loop();
  const plainLoop = round(plain.length / MB / seconds(loop));
  return {
    machine: cpus()[0]?.model,
    plainLoop,
    mbPerSecond: round(allBytes / MB / allTime),
    short,
    shortWithHits,
    kinds,
    worst,
  };
}

const [flag, ...paths] = process.argv.slice(2);
process.stdout.write(`${JSON.stringify(flag === '--count' ? count(paths) : speed(), null, 1)}\n`);
