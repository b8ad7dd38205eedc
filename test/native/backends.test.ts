// The registry: what a device may be called, and what each backend says of itself. test/cuda/auto.test.ts opens them.
import { readdirSync, readFileSync } from 'node:fs';
import { join, sep } from 'node:path';
import { describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import {
  BACKENDS,
  backendOf,
  DEVICE_BACKENDS,
  DEVICE_NAMES,
  describeDevice,
  HOST,
  type Place,
  parseDevice,
  placeNumber,
} from '../../src/native/backends.js';
import { parseRecipe } from '../../src/recipe/load.js';

const failure = (f: () => unknown): { code: string; message: string } => {
  try {
    f();
  } catch (e) {
    return e as { code: string; message: string };
  }
  throw new Error('it did not fail');
};
const recipe = (device: string) =>
  parseRecipe(
    `model: { base: . }\ndata: { train: [{ path: x, format: chat }] }\ndevice: ${JSON.stringify(device)}\n`,
    'r.yaml',
    { checkPaths: false },
  ).recipe.device;

describe('the registry of backends', () => {
  it('has the host first, one of each name, and each library behind a variable of its own', () => {
    expect(BACKENDS[0].name).toBe(HOST);
    expect(BACKENDS.filter((b) => b.library === null).map((b) => b.name)).toEqual([HOST]);
    expect(new Set(BACKENDS.map((b) => b.name)).size).toBe(BACKENDS.length);
    expect(DEVICE_BACKENDS).toHaveLength(BACKENDS.length - 1);
    expect(new Set(DEVICE_BACKENDS.flatMap((b) => [b.library.file, b.library.variable])).size).toBe(
      2 * DEVICE_BACKENDS.length,
    );
  });

  it('gives every name to recipes and command line alike, and each place its number', () => {
    for (const { name, library } of BACKENDS) {
      expect(parseDevice(name)).toEqual({ place: name, index: -1 });
      expect(backendOf(name).name).toBe(name);
      expect(placeNumber(name)).toBe(library ? 1 : 0);
      expect(recipe(name)).toBe(name);
    }
    for (const { name } of DEVICE_BACKENDS) {
      expect(parseDevice(`${name}:12`)).toEqual({ place: name, index: 12 });
      expect(recipe(`${name}:12`)).toBe(`${name}:12`);
    }
    expect(parseDevice('auto')).toBe('auto');
    expect(recipe('auto')).toBe('auto');
  });

  it.each(['', 'gpu', 'CUDA', 'cuda:', 'cuda:-1', 'cuda:1000', 'cpu:0', 'auto:0', ' cpu', 'cpu\n'])(
    'refuses %j and names those that are known',
    (name) => {
      expect(failure(() => parseDevice(name))).toMatchObject({
        code: 'bad_device',
        message: expect.stringContaining(`wanted ${DEVICE_NAMES}`) as string,
      });
      expect(failure(() => recipe(name))).toMatchObject({
        code: 'bad_recipe',
        message: expect.stringContaining(DEVICE_NAMES) as string,
      });
    },
  );
  it('names what is known of a place that is not', () => {
    expect(DEVICE_NAMES).toBe('auto, cpu, cuda or cuda:N');
    expect(failure(() => backendOf('hip' as Place))).toMatchObject({
      code: 'bad_device',
      message: 'place "hip", wanted cpu, cuda',
    });
  });

  it('is asked for what a backend can do: no code above src/native names one', () => {
    const src = join(packageRoot, 'src');
    const files = readdirSync(src, { recursive: true, encoding: 'utf8' }).filter(
      (f) => f.endsWith('.ts') && !f.startsWith(`native${sep}`),
    );
    expect(files.length).toBeGreaterThan(100);
    const named = new RegExp(`['"\`](${BACKENDS.map((b) => b.name).join('|')})[:'"\`]`);
    const naming = (text: string): boolean => named.test(text.replaceAll(/\/\*[\s\S]*?\*\/|\/\/.*/g, ''));
    expect(naming("place === 'cuda'")).toBe(true);
    expect(files.filter((f) => naming(readFileSync(join(src, f), 'utf8')))).toEqual([]);
  });

  it('says a device in words', () => {
    const cpu = { place: HOST, name: 'cpu', hardware: null, reason: null };
    expect(describeDevice(cpu)).toBe('cpu');
    expect(describeDevice({ ...cpu, reason: 'no GPU: no driver' })).toBe('cpu (no GPU: no driver)');
    expect(describeDevice({ place: 'cuda', name: 'cuda:0', hardware: 'NVIDIA H100', reason: null })).toBe(
      'cuda:0 NVIDIA H100',
    );
  });
});
