// `device: auto`: takes the (emulated) GPU where it opens and holds what is loaded, otherwise the CPU, and says why.
// Each opening has a process of its own, as a process keeps the library it loaded.
import { spawnSync } from 'node:child_process';
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import type { Device } from '../../src/native/device.js';
import type { TrainPlan } from '../../src/train/plan.js';
import { rows, tinyRun } from '../train/tiny.js';
import { emulatedLibrary } from './emulated.js';

type Env = Readonly<Record<string, string>>;
const gpu: Env = { TEMPER_CUDA_LIBRARY: emulatedLibrary };
const environment = (env: Env): NodeJS.ProcessEnv => {
  const { TEMPER_CUDA_LIBRARY: _own, ...rest } = process.env;
  return { ...rest, ...env };
};
let dir = '';
const at = (...p: string[]): string => join(dir, ...p);
beforeAll(async () => {
  dir = await tinyRun();
});

function useDevice(name: string, env: Env): Device & { readonly text: string } {
  const code = `
    const { useDevice, describeDevice } = await import(${JSON.stringify(join(packageRoot, 'dist/native/device.js'))});
    const device = useDevice(${JSON.stringify(name)});
    console.log(JSON.stringify({ ...device, text: describeDevice(device) }));`;
  const ran = spawnSync(process.execPath, ['--input-type=module', '-e', code], {
    encoding: 'utf8',
    env: environment(env),
  });
  if (ran.status !== 0) throw new Error(ran.stderr);
  return JSON.parse(ran.stdout) as Device & { text: string };
}
function temper(args: readonly string[], env: Env): { code: number | null; stdout: string; stderr: string } {
  const ran = spawnSync(process.execPath, [join(packageRoot, 'dist/cli/main.js'), ...args], {
    encoding: 'utf8',
    cwd: dir,
    env: environment(env),
  });
  return { code: ran.status, stdout: ran.stdout, stderr: ran.stderr };
}
const machineOf = (run: string): { readonly isa: string; readonly device: Device } =>
  (JSON.parse(readFileSync(at('runs', run, 'run.json'), 'utf8')) as { machine: { isa: string; device: Device } })
    .machine;
const train = (run: string, more: readonly string[], env: Env) =>
  temper(['train', 'recipe.yaml', '--out', at('runs', run), '--set', 'train.steps=4', ...more], env);

describe('auto', () => {
  it('takes the GPU', () => {
    expect(useDevice('auto', gpu)).toMatchObject({
      place: 'cuda',
      name: 'cuda:0',
      reason: null,
      text: 'cuda:0 emulated device',
    });
  });

  it.each<[string, Env, RegExp]>([
    ['the library is missing', { TEMPER_CUDA_LIBRARY: '/nowhere/absent.so' }, /cannot be loaded .*absent\.so/],
    [
      'the library is none',
      { TEMPER_CUDA_LIBRARY: join(packageRoot, 'package.json') },
      /cannot be loaded .*package\.json/,
    ],
    ['there is no device', { ...gpu, TEMPER_EMULATED_DEVICES: '0' }, /the driver sees no CUDA device/],
    ['the device is too old', { ...gpu, TEMPER_EMULATED_MAJOR: '7' }, /sm_70.* is too old/],
  ])('takes the CPU where %s, and says so', (_name, env, reason) => {
    const device = useDevice('auto', env);
    expect(device).toMatchObject({ place: 'cpu', name: 'cpu', hardware: null });
    expect(device.text).toMatch(/^cpu \(no GPU: [^;]*\)$/);
    expect(device.reason).toMatch(reason);
    expect(() => useDevice('cuda', env)).toThrow();
  });

  it('refuses a library of another version of Temper', () => {
    const source = at('other.c'),
      other = at('other.so');
    writeFileSync(source, 'int unrelated(void) { return 0; }\n');
    expect(spawnSync('cc', ['-shared', '-fPIC', '-o', other, source]).status).toBe(0);
    expect(useDevice('auto', { TEMPER_CUDA_LIBRARY: other }).reason).toMatch(/is no backend library of Temper/);
  });

  it('takes one of several GPUs', () => {
    expect(useDevice('auto', { ...gpu, TEMPER_EMULATED_DEVICES: '2' }).name).toBe('cuda:0');
  });

  it('never fails on this machine as it is, and agrees with asking for the GPU', () => {
    let there = true;
    try {
      useDevice('cuda', {});
    } catch {
      there = false;
    }
    expect(useDevice('auto', {}).place).toBe(there ? 'cuda' : 'cpu');
  });
});

describe('auto in a run', () => {
  it('trains on the GPU, says and records it, and resumes there alone', () => {
    const ran = train('auto', ['--device', 'auto'], gpu);
    expect(ran.stderr).toMatch(/^device: cuda:0 emulated device$/m);
    expect(ran.code).toBe(0);
    expect(machineOf('auto')).toMatchObject({ isa: 'cuda', device: { place: 'cuda', name: 'cuda:0' } });

    cpSync(at('runs', 'auto'), at('runs', 'gone'), { recursive: true });
    const gone = train('gone', ['--device', 'auto', '--resume'], { TEMPER_CUDA_LIBRARY: '/nowhere/absent.so' });
    expect(gone.code).toBe(40);
    expect(gone.stderr).toMatch(/gone: the run began on cuda:0 emulated device, which cannot be used now: .*absent/);
    const other = train('gone', ['--device', 'cpu', '--resume'], gpu);
    expect(other.code).toBe(40);
    expect(other.stderr).toMatch(/began on cuda:0 emulated device, now it would go on on cpu; .*--device cuda/);
    expect(train('gone', ['--device', 'cuda', '--resume'], gpu).code).toBe(0);
  });

  it('goes on on the CPU where it began there, GPU or none', () => {
    const none = { ...gpu, TEMPER_EMULATED_DEVICES: '0' };
    const ran = train('began', ['--device', 'auto'], none);
    expect(ran.stderr).toMatch(/^device: cpu \(no GPU: .*the driver sees no CUDA device\)$/m);
    const recorded = machineOf('began').device;
    expect(recorded).toMatchObject({ place: 'cpu', reason: expect.stringContaining('no GPU') as string });
    expect(train('began', ['--device', 'auto', '--resume'], gpu).code).toBe(0);
    expect(machineOf('began').device.place).toBe('cpu');
    expect(train('began', ['--device', 'cuda', '--resume'], gpu).stderr).toMatch(/began on cpu.*--device cpu/);
  });

  it('takes the CPU where the GPU has too little memory for what is loaded', () => {
    const ran = train('small', ['--device', 'auto', '--memory-limit', '4KiB'], gpu);
    expect(ran.code).toBe(0);
    expect(ran.stderr).toMatch(/^device: cpu \(no GPU: cuda:0 emulated device has too little memory: /m);
    expect(machineOf('small').device.place).toBe('cpu');
    expect(train('refused', ['--device', 'cuda', '--memory-limit', '4KiB'], gpu).stderr).toMatch(/do not fit/);
  });

  it('takes the CPU where a step does not fit the GPU, and plan says the same', () => {
    // Large enough for what a device takes at a time, 1 MiB, to be little.
    writeFileSync(at('many.jsonl'), rows(400));
    const set = [
      'device=auto',
      'data.train.0.path=many.jsonl',
      'data.maxTokens=20000',
      'train.rowsPerStep=400',
      'train.steps=1',
      'train.offloadActivations=never',
      'train.offloadOptimizer=never',
      'train.recompute=always',
    ];
    const edits = set.flatMap((s) => ['--set', s]);
    const plan = (limit: number): TrainPlan =>
      JSON.parse(
        temper(['plan', 'recipe.yaml', '--no-time', '--json', ...edits, '--set', `memoryLimit=${limit}B`], gpu).stdout,
      ) as TrainPlan;
    const needed = plan(2 ** 30).device?.totalPeakBytes ?? Number.NaN;
    const limit = Math.floor(0.6 * needed); // what is loaded at the start takes less
    expect(plan(limit)).toMatchObject({
      device: null,
      computesOn: expect.stringMatching(/^cpu \(no GPU: cuda:0 emulated device may take .*, a step needs /) as string,
    });
    const tight = train('tight', [...edits, '--memory-limit', `${limit}`], gpu);
    expect(tight.code).toBe(0);
    expect(tight.stderr).toMatch(/^device: cpu \(no GPU: cuda:0 emulated device may take .*, a step needs .*\)$/m);
    expect(machineOf('tight').device.place).toBe('cpu');
  });

  it('plans for the device it would take', () => {
    const plan = (env: Env): TrainPlan => {
      const ran = temper(['plan', 'recipe.yaml', '--set', 'device=auto', '--no-time', '--json'], env);
      return JSON.parse(ran.stdout) as TrainPlan;
    };
    const there = plan(gpu),
      here = plan({ ...gpu, TEMPER_EMULATED_DEVICES: '0' });
    expect(there.computesOn).toBe('cuda:0 emulated device');
    expect(there.device?.totalPeakBytes).toBeGreaterThan(0);
    expect(there.device?.limitBytes).toBe(2 ** 32 - 2 ** 29); // 4 GiB less the driver's half
    expect(here.computesOn).toMatch(/^cpu \(no GPU: /);
    expect(here.device).toBeNull();
  });

  it('is told by doctor', () => {
    const last = (env: Env): string => temper(['doctor', '--no-measure'], env).stdout.trim().split('\n').at(-1) ?? '';
    expect(last(gpu)).toBe('auto      cuda:0 emulated device');
    expect(last({ ...gpu, TEMPER_EMULATED_DEVICES: '0' })).toMatch(/^auto {6}cpu \(no GPU: .*\)$/);
  });
});
