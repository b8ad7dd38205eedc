// 20,000 damaged adapters: each is read, or refused with a typed error of one line; none crashes, hangs, or takes
// memory for what it merely claims. What is read holds finite numbers and every tensor of the file.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { CheckpointError, TemperError } from '../../src/base/errors.js';
import { checkPeftConfig } from '../../src/lora/peft-config.js';
import { openPeft } from '../../src/lora/peft-file.js';
import { pairsOf } from '../../src/lora/peft-pairs.js';
import type { PeftPair } from '../../src/lora/peft-slots.js';
import { type FloatEntry, readFloatFile } from '../../src/lora/tensor-reader.js';
import { parseConfig, readConfig } from '../../src/model/config.js';
import { type WriteEntry, writeSafetensors } from '../../src/native/safetensors.js';
import { parseHeader } from '../../src/native/safetensors-header.js';
import { goldenRoot } from '../model/golden.js';

const folder = mkdtempSync(join(tmpdir(), 'temper-peft-fuzz-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const { layer_types: _types, ...odd } = readConfig(join(goldenRoot, 'odd'));
/** Two of its layers: an adapter of both expert matrices, attention and router, with ranks and alphas of their own. */
const config = parseConfig({ ...odd, num_hidden_layers: 2 });
const source = join(goldenRoot, '..', 'train', 'adapter');
const goodConfig = JSON.parse(readFileSync(join(source, 'adapter_config.json'), 'utf8')) as Record<string, unknown>;
const goodFile = ((): Buffer => {
  using file = readFloatFile(join(source, 'adapter_model.safetensors'));
  const path = join(folder, 'good.safetensors');
  writeSafetensors(
    path,
    [...file.entries]
      .filter(([name]) => !name.includes('layers.2.'))
      .map(([name, e]): WriteEntry => ({ name, dtype: 'F32', shape: e.shape, data: e.read() })),
    { format: 'pt' },
  );
  return readFileSync(path);
})();
const headerLength = Number(goodFile.readBigUInt64LE(0));
type Header = Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }>;
const { __metadata__: _, ...goodHeader } = JSON.parse(goodFile.subarray(8, 8 + headerLength).toString()) as Header;

/** xorshift32: the same files on every run. */
function generator(seed: number): (n: number) => number {
  let x = seed;
  return (n) => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) % n;
  };
}
type Random = (n: number) => number;
const pick = <T>(random: Random, of: readonly T[]): T => of[random(of.length)] as T;

const VALUES: readonly unknown[] = [
  null,
  true,
  false,
  0,
  1,
  -1,
  2.5,
  1e300,
  4096,
  2 ** 53,
  '',
  'q_proj',
  'all-linear',
  '.*',
  '(((.*)*)*)*x',
  '(',
  '[',
  '\u0000',
  '__proto__',
  [],
  ['q_proj'],
  [0],
  [[]],
  ['mlp.experts.down_proj'],
  ['mlp.experts.gate_up_proj', 'mlp.experts.down_proj', 'mlp.router.weight'],
  {},
  { down_proj: 2 },
  { '.*': 1, q_proj: 2 },
  { '(a|a)*$': 3 },
  { x: 'y' },
  'LORA',
  '0.17.0',
  '0.20.0',
];
const KEYS = [...Object.keys(goodConfig), 'a_new_setting', 'constructor', 'fine_tune_type', 'lora_layers'];
function damagedConfig(random: Random): string {
  const c: Record<string, unknown> = { ...goodConfig };
  const times = random(3);
  for (let i = 0; i < times; i++) {
    const key = pick(random, KEYS);
    if (random(4) === 0) delete c[key];
    else c[key] = pick(random, VALUES);
  }
  const text = JSON.stringify(c);
  if (random(12) > 0) return text;
  const at = random(text.length);
  return (
    text.slice(0, at) + pick(random, ['', '{', '"', ',', '\u0000', 'é', text.slice(0, 40)]) + text.slice(at + random(3))
  );
}

const NAMES: readonly ((name: string, random: Random) => string)[] = [
  (n) => n.replace('base_model.model.', ''),
  (n) => n.replace('base_model.model.model.', ''),
  (n) => n.replace(/lora_([AB])/, 'lora_$1.default'),
  (n) => n.replace('.weight', ''),
  (n) => n.replace('lora_A', 'lora_B'),
  (n) => n.replace('lora_B', 'lora_A'),
  (n, r) => n.replace(/layers\.\d+/, `layers.${r(6)}`),
  (n) => n.replace(/layers\.\d+/, 'layers.99999999999999999999'),
  (n) => n.replace('experts.base_layer', 'experts'),
  (n) => n.replace('experts', 'experts.base_layer'),
  (n, r) => n.replace('experts.base_layer', `experts.gate_up_projs.${r(7)}`),
  (n, r) => n.replace(/experts(?=\.lora)/, `experts.down_projs.${r(7)}`),
  (n, r) => n.replace('experts.base_layer', `experts.${r(7)}.${pick(r, ['gate', 'up', 'gate_up'])}_proj`),
  (n) => n.replace('self_attn.q_proj', 'mlp.router.linear'),
  (n, r) => n.replace(/[qkvo]_proj/, `${pick(r, ['q', 'k', 'v', 'o', 'x'])}_proj`),
  (n) => `${n}\u0000`,
  () => '',
  () => '__metadata__x',
];
/** The golden's tensors with names, shapes and dtypes changed; offsets are laid out anew, or left, or made up. */
function damagedFile(random: Random): Buffer {
  const tensors = Object.entries(goodHeader).map(([name, t]) => ({ name, ...t, shape: [...t.shape] }));
  const times = random(4);
  for (let i = 0; i < times; i++) {
    const t = pick(random, tensors);
    if (!t) continue;
    switch (random(7)) {
      case 0:
        tensors.splice(tensors.indexOf(t), 1);
        break;
      case 1:
        t.name = pick(random, NAMES)(t.name, random);
        break;
      case 2:
        for (const u of tensors)
          u.name = u.name.replace(t.name.split('.lora')[0] ?? '', 'base_model.model.model.layers.1.mlp.experts');
        break;
      case 3:
        t.shape = pick(random, [t.shape.toReversed(), [...t.shape, 1], [t.shape[0] ?? 0], [0, 0], [2 ** 40, 2], []]);
        break;
      case 4:
        t.dtype = pick(random, ['BF16', 'F16', 'F64', 'I32', 'U8', 'F8_E4M3', 'X']);
        break;
      case 5: {
        const to = pick(random, NAMES);
        for (const u of tensors) u.name = to(u.name, random);
        break;
      }
      default:
        tensors.push({ ...t, name: pick(random, NAMES)(t.name, random) });
    }
  }
  const size: Record<string, number> = { F32: 4, BF16: 2, F16: 2, F64: 8, I32: 4, U8: 1 };
  const header: Record<string, unknown> =
    random(3) === 0 ? { __metadata__: { expert_layout: pick(random, ['natural', 'swapped', 'x']) } } : {};
  let at = 0;
  for (const { name, dtype, shape, data_offsets } of tensors) {
    const bytes = Math.min(
      shape.reduce((a, b) => a * b, size[dtype] ?? 1),
      goodFile.length,
    );
    header[name] = { dtype, shape, data_offsets: random(60) === 0 ? data_offsets : [at, at + bytes] };
    at += bytes;
  }
  const text = Buffer.from(JSON.stringify(header));
  const file = Buffer.alloc(8 + text.length + Math.min(at, 4 * goodFile.length));
  file.writeBigUInt64LE(BigInt(text.length), 0);
  text.copy(file, 8);
  goodFile.copy(file, 8 + text.length, 8 + headerLength);
  for (let i = random(3); i > 0; i--) file[random(file.length)] = pick(random, [0, 255, 127, 128, 192]);
  return random(20) === 0 ? file.subarray(0, random(file.length)) : file;
}

const FLOATS = ['F32', 'BF16', 'F16'];
/** The pairs of an adapter that lies in memory: what openPeft does after it has opened the files. */
function pairsInMemory(configText: string, file: Buffer): readonly PeftPair[] {
  const peft = checkPeftConfig(JSON.parse(configText), 'adapter_config.json');
  const length = file.length < 8 ? 0 : Number(file.readBigUInt64LE(0));
  if (length === 0 || length > file.length - 8)
    throw new CheckpointError('file_truncated', 'adapter_model.safetensors: shorter than its header');
  const { tensors, metadata } = parseHeader(file.subarray(8, 8 + length), 'adapter_model.safetensors', file.length);
  const entries = new Map<string, FloatEntry>();
  for (const [name, e] of tensors) {
    if (!FLOATS.includes(e.dtype))
      throw new CheckpointError('dtype_unsupported', `${JSON.stringify(name)}: ${e.dtype}`);
    const values = new Float32Array(e.shape.reduce((a, b) => a * b, 1)).fill(file[e.begin] === 255 ? Number.NaN : 1);
    entries.set(name, { shape: e.shape, read: () => values });
  }
  const where = { file: 'adapter_model.safetensors', configFile: 'adapter_config.json' };
  return pairsOf({ config, peft, entries, metadata, ...where });
}
/** The same through files. */
function pairsOfFiles(configText: string, tensors: Buffer, read: (pairs: readonly PeftPair[]) => void): void {
  writeFileSync(join(folder, 'adapter_config.json'), configText);
  writeFileSync(join(folder, 'adapter_model.safetensors'), tensors);
  using file = openPeft(folder, config);
  read(file.pairs);
}

it('20,000 damaged adapters are read or refused', () => {
  const random = generator(12345);
  const seen = new Map<string, number>();
  const count = (code: string): unknown => seen.set(code, (seen.get(code) ?? 0) + 1);
  let slowest = 0;
  let tensors: Buffer = goodFile;
  for (let i = 0; i < 20_000; i++) {
    const text = damagedConfig(random);
    // Half of the cases are about the config alone.
    if (i % 2 === 0) tensors = i % 20 === 0 ? goodFile : damagedFile(random);
    const start = performance.now();
    const read = (pairs: readonly PeftPair[]): void => {
      for (const p of pairs) {
        const { A, B } = p.read();
        if (A.length % p.rank !== 0 || B.length % p.rank !== 0) throw new Error(`case ${i}: a pair of odd size`);
      }
    };
    try {
      // Files are slow; what opens them has a fuzz test of its own.
      if (i % 10 < 2) pairsOfFiles(text, tensors, read);
      else read(pairsInMemory(text, tensors));
      count('read');
    } catch (e) {
      if (e instanceof SyntaxError && i % 10 >= 2) {
        count('bad_adapter_config');
        continue;
      }
      if (!(e instanceof TemperError)) throw new Error(`case ${i}`, { cause: e });
      if (e.message.includes('\n') || e.exitCode !== 2) throw new Error(`case ${i}`, { cause: e });
      count(e.code);
    }
    slowest = Math.max(slowest, performance.now() - start);
  }
  // The cases reach what they are about, and most of them do not end at the first check.
  for (const code of ['read', 'adapter_tensor_unknown', 'adapter_tensor_missing', 'tensor_shape', 'bad_adapter_config'])
    expect(seen.get(code) ?? 0, `${code}: ${JSON.stringify([...seen])}`).toBeGreaterThan(100);
  expect(slowest).toBeLessThan(5000);
}, 240_000);
