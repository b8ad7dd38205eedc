// The script for the day a GPU is there: what it makes of outputs, and that its steps run, end and are kept, on the
// emulated device.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { benchRows } from '../../bench/gpu-day.mjs';
import { packageRoot } from '../../src/base/machine.js';
import '../cuda/emulated.js';

const day = (...args: string[]) =>
  spawnSync(process.execPath, [join(packageRoot, 'bench/gpu-day.mjs'), ...args], { encoding: 'utf8' });

it('reads the rows of a bench, also of one that was stopped', () => {
  const head = '                        tokens/s          ms     GFLOP/s        GB/s  % of limit    peak MiB';
  const text = `${head}
LoRA step 4096           15123.4       270.8      400000       700.1      57 ari     14243.1        51.0        40.2
  copied beside the ops: 900.5 MiB, 97 % of the time hidden
decode 1 at 0              358.0        22.3          10       900.0      60 mem     12000.0        51.0        40.2
decode 8`;
  expect(benchRows(text, { 'LoRA step 4096': 15_000, 'decode 1 at 0': 600 })).toBe(
    'LoRA step 4096: 15123.4 tokens/s (15000 wanted: met), 57 % of limit, 14243.1 MiB, ' +
      'copied beside the ops: 900.5 MiB, 97 % of the time hidden; ' +
      'decode 1 at 0: 358.0 tokens/s (600 wanted: missed), 60 % of limit, 12000.0 MiB',
  );
  expect(benchRows(head)).toBeNull();
});

it('lists its steps, the most worth first, and refuses one that it does not have', () => {
  const { stdout, status } = day('--list');
  expect(status).toBe(0);
  expect(stdout.split('\n')[0]).toMatch(/^cases +\d+ s {2}/);
  const seconds = stdout.match(/ \d+ s /g)?.map((t) => Number.parseInt(t, 10)) ?? [];
  expect(seconds.length).toBeGreaterThan(10);
  const other = day('--only', 'cases,nothing');
  expect(other.status).toBe(2);
  expect(other.stderr).toMatch(/got nothing, wanted .* steps of cases, lora/);
});

it('trains under a limit, stops what takes too long, and keeps each row as it comes', () => {
  const out = mkdtempSync(join(tmpdir(), 'temper-gpu-day-test-'));
  const { stdout, status } = day('--emulated', '--out', out, '--only', 'train-16gb,memcheck', '--seconds', '300');
  expect(stdout).toMatch(
    /^train-16gb +passed +[\d.]+ s {2}3 steps, the last \d+ tokens\/s, \d+\.\d\d GiB of a limit of/m,
  );
  expect(stdout).toMatch(/^memcheck +not run +compute-sanitizer is not installed/m);
  expect(status).toBe(0);
  const rows = readFileSync(join(out, 'gpu-day.jsonl'), 'utf8').trim().split('\n');
  expect(rows.map((r) => JSON.parse(r).status)).toEqual(['passed', 'not run']);
  const cut = day('--emulated', '--out', out, '--only', 'lora,decode', '--seconds', '0.5');
  expect(cut.status).toBe(0);
  expect(cut.stdout).toMatch(/lora +not run +. s were left/);
});
