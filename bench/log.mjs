// Speed of the verdict log; `npm run build` first. JSON on stdout:
//   verify   records/s a core, in CPU time of this process, of logs whose groups have so many records
//   append   records/s and the time of an append, with so many writers that wait for each of their records
//   floor    time of one write and flush of a group's bytes alone, in the same folder
// node bench/log.mjs [--records N] [--dir FOLDER]
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { recordOf } from '../dist/compose/verdict-log.js';
import { openVerdictLog } from '../dist/verdict-log/log.js';
import { verifyLog } from '../dist/verdict-log/verify.js';

const { values } = parseArgs({ options: { records: { type: 'string' }, dir: { type: 'string' } } });
const RECORDS = Number(values.records ?? 300_000);
const root = mkdtempSync(join(values.dir ?? tmpdir(), 'temper-log-bench-'));
const round = (x) => Number(x.toPrecision(3));
const hex = () => randomBytes(32).toString('hex');
const [policy, judge, detectors] = [hex(), hex(), hex()];
/** One verdict over one channel, as a batch has them; or two over two. */
/** @returns {any} */
const entry = (n, channels) => ({
  verdicts: channels.map((channel) => ({
    policy: 'contact',
    channel,
    outcome: n % 9 === 0 ? 'block' : 'allow',
    rule: n % 9 === 0 ? 'C2' : null,
    rationale: '',
    cause: null,
    detail: '',
    digests: { policy, content: hex(), judge, detectors },
    latencyMs: 120 + (n % 50),
    detectors: { secrets: 'clear', personal: 'clear', control: 'clear', invisible: 'clear', repetition: 'clear' },
  })),
  action: /** @type {const} */ ('report'),
  subject: { row: n },
});
const add = (log, n, channels) => log.append('verdict', recordOf(entry(n, channels), log.digest));
const cpu = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
};

async function verifies(group, channels, records) {
  const dir = join(root, `verify-${group}-${channels.length}`);
  const log = await openVerdictLog({ dir, by: 'bench' });
  const before = cpu();
  for (let n = 0; n < records; n += group)
    await Promise.all(Array.from({ length: group }, (_, i) => add(log, n + i, channels)));
  const writing = cpu() - before;
  await log.close();
  const rates = [];
  let report;
  for (let turn = 0; turn < 3; turn++) {
    const from = cpu();
    report = verifyLog({ dir });
    rates.push(report.records / (cpu() - from));
    if (!report.ok) throw new Error(JSON.stringify(report.faults));
  }
  const { bytes } = report;
  rmSync(dir, { recursive: true });
  return {
    group,
    verdicts: channels.length,
    records,
    bytesPerRecord: Math.round(bytes / records),
    perSecond: round(rates.sort((a, b) => a - b)[1]),
    mbPerSecond: round((rates[1] * bytes) / records / 1e6),
    writtenPerCpuSecond: round(records / writing),
  };
}

async function appends(writers, seconds) {
  const dir = join(root, `append-${writers}`);
  const groups = [];
  const log = await openVerdictLog({ dir, by: 'bench', onCommit: (c) => groups.push(c) });
  const times = [];
  const end = performance.now() + seconds * 1000;
  const from = cpu();
  await Promise.all(
    Array.from({ length: writers }, async (_, w) => {
      for (let n = 0; performance.now() < end; n++) {
        const began = performance.now();
        await add(log, w + n, ['final']);
        times.push(performance.now() - began);
      }
    }),
  );
  const used = cpu() - from;
  await log.close();
  times.sort((a, b) => a - b);
  const at = (q) => round(times[Math.min(times.length - 1, Math.floor(q * times.length))]);
  return {
    writers,
    perSecond: round(times.length / seconds),
    p50Ms: at(0.5),
    p95Ms: at(0.95),
    p99Ms: at(0.99),
    recordsPerGroup: round(times.length / groups.length),
    cpuMicrosecondsPerRecord: round((used / times.length) * 1e6),
  };
}

/** What a group costs where nothing but its bytes are written. */
async function floor(bytes, seconds) {
  const file = await open(join(root, 'floor'), 'w');
  const data = Buffer.alloc(bytes, 'x');
  const times = [];
  for (const end = performance.now() + seconds * 1000; performance.now() < end; ) {
    const began = performance.now();
    await file.write(data, 0, bytes);
    await file.datasync();
    times.push(performance.now() - began);
  }
  await file.close();
  times.sort((a, b) => a - b);
  return { bytes, p50Ms: round(times[times.length >> 1]), p95Ms: round(times[Math.floor(times.length * 0.95)]) };
}

try {
  const result = {
    cpu: cpus()[0]?.model,
    node: process.version,
    folder: { path: values.dir ?? tmpdir(), device: statSync(root).dev },
    verify: [
      await verifies(1000, ['final'], RECORDS),
      await verifies(1000, ['analysis', 'final'], RECORDS),
      await verifies(16, ['final'], Math.min(RECORDS, 48_000)),
      await verifies(1, ['final'], Math.min(RECORDS, 3000)),
    ],
    append: [await appends(1, 2), await appends(8, 2), await appends(64, 2), await appends(512, 2)],
    floor: [await floor(1000, 1), await floor(50_000, 1)],
  };
  process.stdout.write(`${JSON.stringify(result, null, 2)}\n`);
} finally {
  rmSync(root, { recursive: true, force: true });
}
