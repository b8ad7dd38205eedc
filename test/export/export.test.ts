// `temper export` as a seam: several formats at once, all or nothing, who can load what, adapters made elsewhere.
import { spawn } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { sha256File } from '../../src/base/digest.js';
import type { TemperError } from '../../src/base/errors.js';
import { packageRoot } from '../../src/base/machine.js';
import { exportRun, verify } from '../../src/export/export.js';
import { FORMATS } from '../../src/export/formats/index.js';
import { runExport } from '../../src/export/run-export.js';
import { createAdapter } from '../../src/lora/adapter.js';
import { readPeft, writePeft } from '../../src/lora/peft.js';
import { type AdapterChoice, adapterSpec } from '../../src/lora/spec.js';
import { readConfig } from '../../src/model/config.js';
import { ops } from '../../src/native/ops.js';
import type { Tensor } from '../../src/native/tensor.js';
import { train } from '../../src/train/train.js';
import { temperProcess } from '../cli/run.js';
import { goldenRoot } from '../model/golden.js';
import { tinyRun } from '../train/tiny.js';

const root = mkdtempSync(join(tmpdir(), 'temper-export-'));
let dir = '';
afterAll(() => {
  rmSync(root, { recursive: true, force: true });
  rmSync(dir, { recursive: true, force: true });
});
const base = join(goldenRoot, 'odd');
const NANO = join(packageRoot, 'models', 'nano');
const config = readConfig(base);
/** These bases have no tokenizer, without which there is no whole model in GGUF: gguf.test.ts. */
const HERE = FORMATS.filter((f) => !['gguf', 'gguf-f32'].includes(f.name));
let count = 0;
const fresh = (): string => join(root, `o${count++}`);
const failing = async (promise: Promise<unknown>): Promise<TemperError> =>
  promise.then(
    () => {
      throw new Error('it did not fail');
    },
    (e: unknown) => e as TemperError,
  );
/** A PEFT folder that changes what the base says. */
async function adapterFolder(over: Partial<AdapterChoice> = {}, config = readConfig(base)): Promise<string> {
  const choice = { rank: 2, alpha: 4, targets: ['attention', 'experts'], rsLora: false, dropout: 0, ...over };
  const a = createAdapter(config, adapterSpec(config, choice), { seed: 1 });
  a.entries.forEach((e, i) => {
    if (e.part === 'B') ops.random_uniform(a.tensors[i] as Tensor, 7 + i, -0.2, 0.2);
  });
  const folder = fresh();
  await writePeft(a, folder, { baseModel: 'them/odd' });
  a.close();
  return folder;
}
interface Provenance {
  readonly format: string;
  readonly run?: string;
  readonly adapter?: string;
  readonly files: Readonly<Record<string, string>>;
  readonly digests: Readonly<Record<string, string>>;
}
const provenance = (folder: string): Provenance =>
  JSON.parse(readFileSync(join(folder, 'temper.json'), 'utf8')) as Provenance;
async function digestsHold(folder: string): Promise<void> {
  const { files } = provenance(folder);
  expect(Object.keys(files).sort()).toEqual(
    readdirSync(folder)
      .filter((n) => n !== 'temper.json')
      .sort(),
  );
  for (const [name, digest] of Object.entries(files)) expect(await sha256File(join(folder, name)), name).toBe(digest);
}

beforeAll(async () => {
  dir = await tinyRun();
  await train(join(dir, 'recipe.yaml'), { out: join(dir, 'runs', 'a') });
});

describe('an adapter made elsewhere', () => {
  it('is exported on its base, carries a card and digests, and verifies', async () => {
    const adapter = await adapterFolder(),
      out = fresh();
    const result = await exportRun({ adapter, model: base, out, baseModel: 'openai/gpt-oss-20b' });
    expect(result.step).toBeNull();
    await digestsHold(out);
    const said = provenance(out);
    expect(said).toMatchObject({ format: 'peft' });
    expect(said.run).toBeUndefined();
    expect(said.digests.adapter).toBe(await sha256File(join(adapter, 'adapter_model.safetensors')));
    const card = readFileSync(join(out, 'README.md'), 'utf8');
    for (const part of ['base_model: openai/gpt-oss-20b', said.digests.base ?? '?', '| q_proj | all | 2 | 4 |', 'vllm'])
      expect(card).toContain(part);
    const [one, two] = [readPeft(out, config), readPeft(adapter, config)];
    expect(one.params.toFloat32()).toEqual(two.params.toFloat32());
    expect(await verify(out)).toMatchObject({ ok: true, run: null, step: null, maxDifference: 0 });
  });
  it('without its base, of another base, or beside a run it is refused', async () => {
    const adapter = await adapterFolder();
    expect(await failing(exportRun({ adapter, out: fresh() }))).toMatchObject({ code: 'bad_option' });
    expect(await failing(exportRun({ out: fresh() }))).toMatchObject({ code: 'bad_option' });
    expect(await failing(exportRun({ adapter, model: join(dir, 'base'), out: fresh() }))).toMatchObject({
      exitCode: 2,
    });
    expect(await failing(exportRun({ run: join(dir, 'runs', 'a'), adapter, model: base, out: fresh() }))).toMatchObject(
      { code: 'bad_option' },
    );
  });
  it('an export says which base it is for', async () => {
    const adapter = await adapterFolder(),
      out = fresh();
    await exportRun({ adapter, model: base, out });
    const other = fresh();
    cpSync(base, other, { recursive: true });
    const file = join(other, 'model-00000-of-00001.safetensors');
    const bytes = readFileSync(file);
    bytes[bytes.length - 1] = (bytes[bytes.length - 1] ?? 0) ^ 1;
    writeFileSync(file, bytes);
    expect(await failing(exportRun({ adapter: out, model: other, out: fresh() }))).toMatchObject({
      code: 'base_changed',
      exitCode: 40,
    });
  });
});

describe('who can load it', () => {
  const refused = async (over: Partial<AdapterChoice>, consumer: string): Promise<string> => {
    const out = fresh();
    const error = await failing(
      exportRun({ adapter: await adapterFolder(over), model: base, out, consumers: [consumer] }),
    );
    expect(error).toMatchObject({ code: 'export_refused', exitCode: 2 });
    expect(existsSync(out)).toBe(false);
    return error.message;
  };
  it.each<[string, Partial<AdapterChoice>, string, RegExp]>([
    [
      'ranks of their own',
      { targets: { attention: { rank: 1 }, experts: {} } },
      'vllm',
      /ignores rank_pattern and alpha_pattern \(rank 1, alpha 4 beside rank 2, alpha 4\)/,
    ],
    ['alphas of their own', { targets: { attention: { alpha: 9 }, experts: {} } }, 'vllm', /alpha 9 beside/],
    ['one expert matrix', { targets: ['down_proj'] }, 'vllm', /both expert matrices/],
    ['a router', { targets: ['router'] }, 'vllm', /no adapter to the router/],
    ['experts', { targets: ['experts'] }, 'sglang', /SGLang applies no adapter to gpt-oss's experts/],
    ['anything', { targets: ['attention'] }, 'llama.cpp', /GGUF/],
    ['nobody known', { targets: ['attention'] }, 'keras', /--for keras: does not load peft/],
  ])('%s for %s', async (_, over, consumer, message) => {
    expect(await refused(over, consumer)).toMatch(message);
  });
  it('one who can gets it; the card names those who cannot', async () => {
    const adapter = await adapterFolder({ targets: { attention: { rank: 1 }, experts: {} } }),
      out = fresh();
    await exportRun({ adapter, model: base, out, consumers: ['peft'] });
    expect(readFileSync(join(out, 'README.md'), 'utf8')).toMatch(/\| vllm \| vLLM reads one rank/);
  });
  it('every format names its consumers and says what it is', () => {
    for (const f of FORMATS) {
      expect(f.consumers.length, f.name).toBeGreaterThan(0);
      expect(f.summary.length, f.name).toBeGreaterThan(20);
    }
    expect(new Set(FORMATS.map((f) => f.name)).size).toBe(FORMATS.length);
  });
});

describe('all or nothing', () => {
  it('several formats make one folder', async () => {
    const out = fresh();
    const formats = HERE.map((f) => f.name);
    if (formats.length < 2) return;
    const result = await exportRun({ run: join(dir, 'runs', 'a'), out, format: formats });
    expect(readdirSync(out).sort()).toEqual([...formats].sort());
    expect(result.exports.map((e) => e.format)).toEqual(formats);
    for (const f of formats) {
      await digestsHold(join(out, f));
      expect(await verify(join(out, f)), f).toMatchObject({ ok: true, format: f, step: 12 });
    }
  });
  it(
    'an unknown format, a place that is taken and one inside an input are refused before ' + 'anything is written',
    async () => {
      const run = join(dir, 'runs', 'a');
      expect(await failing(exportRun({ run, out: fresh(), format: ['peft', 'onnx'] }))).toMatchObject({
        code: 'unknown_format',
      });
      const taken = fresh();
      mkdirSync(taken);
      expect(await failing(exportRun({ run, out: taken }))).toMatchObject({ code: 'path_exists' });
      expect(await failing(exportRun({ run, out: join(dir, 'base', 'x') }))).toMatchObject({ code: 'output_clash' });
      expect(readdirSync(join(dir, 'base'))).not.toContain('x');
    },
  );
  it('one that is aborted or whose adapter is broken leaves nothing', async () => {
    const out = fresh();
    await expect(
      exportRun({ run: join(dir, 'runs', 'a'), out }, { signal: AbortSignal.abort() }),
    ).rejects.toHaveProperty('name', 'AbortError');
    const adapter = await adapterFolder();
    const file = join(adapter, 'adapter_model.safetensors');
    const bytes = readFileSync(file);
    bytes.writeUInt32LE(0x7fc00000, bytes.length - 4);
    writeFileSync(file, bytes);
    for (const f of HERE) {
      const error = await failing(exportRun({ adapter, model: base, out, format: [f.name] }));
      expect(error, f.name).toMatchObject({ code: 'not_finite' });
    }
    expect(existsSync(out)).toBe(false);
    expect(readdirSync(dirname(out)).filter((n) => n.startsWith('.'))).toEqual([]);
  });
  it('nothing is in its place before all of it is, whatever the format and however many', async () => {
    const names = HERE.map((f) => f.name);
    const out = fresh();
    const told = new Map<string, number>();
    const onProgress = ({ format }: { readonly format: string }): void => {
      told.set(format, (told.get(format) ?? 0) + 1);
      expect(existsSync(out)).toBe(false);
    };
    // In this thread: what is told is told at that moment.
    await runExport({ run: join(dir, 'runs', 'a'), out, format: names, evalTokens: 0 }, { onProgress });
    for (const name of names) await digestsHold(join(out, name));
    expect([...told.keys()].sort()).toEqual([...names].sort());
  });
  it.each([
    ['merged-bf16', async () => [join(dir, 'runs', 'a')]],
    ['gguf', async () => ['--adapter', await adapterFolder({}, readConfig(NANO)), '--model', NANO, '--candidate']],
  ])(
    'kill -9 leaves no folder that looks whole, and the next export sweeps up: %s',
    async (format, source) => {
      const cli = join(packageRoot, 'dist', 'cli', 'main.js');
      const given = await source();
      const killed: string[] = [];
      // Milliseconds after what is being written is first seen.
      for (const delay of [0, 4, 40]) {
        const out = fresh();
        const args = ['export', ...given, '--format', format, '--out', out];
        const child = spawn(process.execPath, [cli, ...args], { stdio: 'ignore' });
        const ended = new Promise<NodeJS.Signals | null>((done) => child.on('close', (_, signal) => done(signal)));
        const hidden = new Set(readdirSync(root));
        const looking = setInterval(() => {
          if (!readdirSync(root).some((name) => name.startsWith('.') && !hidden.has(name))) return;
          clearInterval(looking);
          setTimeout(() => child.kill('SIGKILL'), delay);
        }, 2);
        const signal = await ended;
        clearInterval(looking);
        if (existsSync(out)) await digestsHold(out);
        else if (signal === 'SIGKILL') killed.push(out);
      }
      expect(killed.length).toBeGreaterThan(0);
      for (const out of killed.slice(-1)) {
        expect((await temperProcess(['export', ...given, '--format', format, '--out', out])).code).toBe(0);
        await digestsHold(out);
        expect(readdirSync(root).filter((name) => name.startsWith(`.${basename(out)}.`))).toEqual([]);
      }
    },
    180_000,
  );
});
