// node scripts/fuzz.mjs [--count 10000] [--seed N]: that many hostile requests and that many outputs of a model against
// the server, by the tests that CI runs with fewer: no status of 500, no crash, no stream without an end. Says how many
// of each were sent. Needs the build (npm run build).
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { root, say } from './prepare.mjs';

const { values } = parseArgs({
  options: { count: { type: 'string', default: '10000' }, seed: { type: 'string', default: String(Date.now() % 1e9) } },
});
const count = Number(values.count);
/** Answers that apis.test.ts asks for of each output: four APIs, whole and streamed, and a turn after it. */
const ANSWERS = 9;
/** A file, the tests in it, what says how many, and what was sent. */
const RUNS = [
  ['fuzz', 'odd bodies', 'TEMPER_FUZZ_REQUESTS', count, `${count} chat requests over HTTP, a model behind them`],
  [
    'fuzz',
    'of all APIs',
    'TEMPER_FUZZ_REQUESTS',
    count,
    `${count} requests of all APIs over HTTP, a model behind them`,
  ],
  ['hostile', '', 'TEMPER_HOSTILE_RUNS', count, `${count} requests of all APIs, answers that go on`],
  ['tools', 'outputs', 'TEMPER_FUZZ', count, `${count} outputs of a model to chat with tools`],
  [
    'apis',
    'is answered in the shape',
    'TEMPER_HOSTILE_RUNS',
    Math.ceil(count / ANSWERS),
    `${Math.ceil(count / ANSWERS)} outputs of a model to all APIs, ${ANSWERS} answers each`,
  ],
];

const folder = mkdtempSync(join(tmpdir(), 'fuzz-'));
let failed = 0;
say(`seed ${values.seed}`);
for (const [file, test, variable, runs, what] of RUNS) {
  const report = join(folder, 'report.json');
  const from = Date.now();
  const child = spawnSync(
    process.execPath,
    [
      ...[join('node_modules', 'vitest', 'vitest.mjs'), 'run', join('test', 'serve', `${file}.test.ts`)],
      ...(test === '' ? [] : ['-t', String(test)]),
      ...['--reporter=json', `--outputFile.json=${report}`],
    ],
    {
      cwd: root,
      env: { ...process.env, [String(variable)]: String(runs), TEMPER_FUZZ_SEED: values.seed },
      encoding: 'utf8',
      maxBuffer: 1 << 28,
    },
  );
  const { numPassedTests: passed, testResults } = JSON.parse(readFileSync(report, 'utf8'));
  const ok = child.status === 0 && passed > 0;
  if (!ok) failed++;
  say(`${ok ? '✓' : '✗'} ${what} (${((Date.now() - from) / 1000).toFixed(0)} s)`);
  if (ok) continue;
  const messages = testResults.flatMap((r) => r.assertionResults.flatMap((a) => a.failureMessages));
  say(`${messages.join('\n') || child.stderr}`.slice(0, 6000));
}
rmSync(folder, { recursive: true });
process.stdout.write(`${RUNS.length - failed} passed, ${failed} failed\n`);
process.exitCode = failed > 0 ? 1 : 0;
