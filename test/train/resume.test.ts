// A run that is killed at any moment and resumed gives the bits of the run that was not.
import { spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { readMetrics } from '../../src/runs/metrics.js';
import { readRun } from '../../src/runs/run-folder.js';
import { tinyRun } from './tiny.js';

const main = join(packageRoot, 'dist', 'cli', 'main.js');
interface Ended {
  readonly code: number | null;
  readonly signal: string | null;
  readonly stderr: string;
  readonly stdout: string;
}

/** Runs the CLI and kills it once `until` holds. */
function temper(
  cwd: string,
  args: readonly string[],
  until?: () => boolean,
  signal: NodeJS.Signals = 'SIGKILL',
): Promise<Ended> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [main, ...args], { cwd, stdio: ['ignore', 'pipe', 'pipe'] });
    let stdout = '',
      stderr = '';
    child.stdout.on('data', (d: Buffer) => {
      stdout += d.toString();
    });
    child.stderr.on('data', (d: Buffer) => {
      stderr += d.toString();
    });
    const timer =
      until &&
      setInterval(() => {
        if (until()) {
          clearInterval(timer);
          child.kill(signal);
        }
      }, 1);
    child.on('exit', (code, sig) => {
      clearInterval(timer);
      resolve({ code, signal: sig, stdout, stderr });
    });
  });
}
const bytes = (run: string): string =>
  readFileSync(join(run, 'adapter', 'adapter_model.safetensors')).toString('base64');
const losses = (run: string): string =>
  readMetrics(run)
    .map((m) => `${m.step} ${m.loss} ${m.gradNorm}`)
    .join('\n');

describe('resume', () => {
  let dir = '';
  const recipe = ['train', 'recipe.yaml'];
  beforeAll(async () => {
    dir = await tinyRun({
      train: 'steps: 80, rowsPerStep: 6, lr: 3.0e-3, checkpointEvery: 5',
      adapter: ', dropout: 0.1, targets: [attention, experts, router]',
    });
    const whole = await temper(dir, [...recipe, '--out', 'runs/whole']);
    expect(whole.code, whole.stderr).toBe(0);
  });

  it('after kill -9 at many moments gives the same adapter and the same metrics', async () => {
    const run = join(dir, 'runs', 'killed');
    const args = [...recipe, '--out', 'runs/killed'];
    // Before the folder is there, while the first checkpoint is written, between and within later ones, and just before
    // the end.
    const moments: (() => boolean)[] = [
      () => existsSync(run),
      () => existsSync(join(run, 'metrics.jsonl')),
      () =>
        existsSync(join(run, 'checkpoints')) && readdirSync(join(run, 'checkpoints')).some((n) => n.endsWith('.tmp')),
      ...[17, 38, 61, 79].map((step) => () => (readMetrics(run).at(-1)?.step ?? 0) >= step),
    ];
    let killed = 0;
    for (const moment of moments) {
      const ended = await temper(dir, existsSync(run) ? [...args, '--resume'] : args, moment);
      if (ended.signal === 'SIGKILL') killed++;
      else expect(ended.code, ended.stderr).toBe(0);
    }
    const last = await temper(dir, [...args, '--resume']);
    expect(last.code, last.stderr).toBe(0);
    expect(killed).toBeGreaterThanOrEqual(4);
    const whole = join(dir, 'runs', 'whole');
    expect(bytes(run) === bytes(whole)).toBe(true);
    expect(losses(run)).toBe(losses(whole));
    expect(readMetrics(run)).toHaveLength(80);
    expect(readRun(run)?.status).toBe('done');
    expect(readdirSync(run).filter((n) => n.endsWith('.tmp'))).toEqual([]);
  });

  it('after kill -9 the codes and scales of 8-bit moments go on to the bit', async () => {
    const args = (out: string): string[] => [
      ...recipe,
      ...['--set', 'train.optimizer.name=adamw_8bit', '--set', 'train.steps=40', '--out', `runs/${out}`],
    ];
    const run = join(dir, 'runs', 'codes-killed'),
      whole = join(dir, 'runs', 'codes');
    expect((await temper(dir, args('codes'))).code).toBe(0);
    let killed = 0;
    for (const step of [8, 23]) {
      const going = existsSync(run) ? ['--resume'] : [];
      const ended = await temper(
        dir,
        [...args('codes-killed'), ...going],
        () => (readMetrics(run).at(-1)?.step ?? 0) >= step,
      );
      if (ended.signal === 'SIGKILL') killed++;
      else expect(ended.code, ended.stderr).toBe(0);
    }
    const last = await temper(dir, [...args('codes-killed'), '--resume']);
    expect(last.code, last.stderr).toBe(0);
    expect(killed).toBeGreaterThanOrEqual(1);
    expect(bytes(run) === bytes(whole)).toBe(true);
    expect(losses(run)).toBe(losses(whole));
    expect(readMetrics(run)).toHaveLength(40);
  });

  it('Ctrl-C saves a checkpoint and ends; going on gives the same bits', async () => {
    const run = join(dir, 'runs', 'stopped');
    const stopped = await temper(
      dir,
      [...recipe, '--out', 'runs/stopped'],
      () => (readMetrics(run).at(-1)?.step ?? 0) >= 7,
      'SIGINT',
    );
    expect(stopped.signal).toBeNull();
    expect(stopped.code, stopped.stderr).toBe(130);
    expect(stopped.stdout).toContain('--resume');
    expect(readRun(run)?.status).toBe('stopped');
    const resumed = await temper(dir, [...recipe, '--out', 'runs/stopped', '--resume']);
    expect(resumed.code, resumed.stderr).toBe(0);
    expect(bytes(run) === bytes(join(dir, 'runs', 'whole'))).toBe(true);
  });

  it('refuses a run that exists, and one whose recipe or data changed', async () => {
    const again = await temper(dir, [...recipe, '--out', 'runs/whole']);
    expect(again.code).toBe(2);
    expect(again.stderr).toMatch(/already holds a run; go on with --resume/);
    const changed = await temper(dir, [...recipe, '--out', 'runs/whole', '--resume', '--set', 'train.lr=1e-4']);
    expect(changed.code).toBe(40);
    expect(changed.stderr).toContain('train.lr is 0.0001, the run began with 0.003');
  });

  it('a full disk is named, and the checkpoint before it is good', async () => {
    // The limit on file size stands in for a full disk: adapters fit, the optimizer's state does not.
    const child = await new Promise<Ended>((resolve) => {
      const c = spawn(
        '/bin/sh',
        ['-c', 'ulimit -f 40; exec "$0" "$@"', process.execPath, main, ...recipe, '--out', 'runs/full', '--json'],
        { cwd: dir, stdio: ['ignore', 'pipe', 'pipe'] },
      );
      let stdout = '',
        stderr = '';
      c.stdout.on('data', (d: Buffer) => {
        stdout += d.toString();
      });
      c.stderr.on('data', (d: Buffer) => {
        stderr += d.toString();
      });
      c.on('exit', (code, signal) => resolve({ code, signal, stdout, stderr }));
    });
    expect(child.code, child.stderr).toBe(2);
    expect(JSON.parse(child.stdout)).toMatchObject({ error: { code: 'disk_full' } });
    expect(readdirSync(join(dir, 'runs', 'full', 'checkpoints'))).toEqual([]);
    const resumed = await temper(dir, [...recipe, '--out', 'runs/full', '--resume']);
    expect(resumed.code, resumed.stderr).toBe(0);
    expect(bytes(join(dir, 'runs', 'full')) === bytes(join(dir, 'runs', 'whole'))).toBe(true);
  });
});
