// 22,000 damaged or random files: each is opened or refused with a CheckpointError; none crashes, hangs or takes memory
// for what it merely claims.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { CheckpointError } from '../../src/base/errors.js';
import { addon } from '../../src/native/addon.js';
import { openSafetensors, writeSafetensors } from '../../src/native/safetensors.js';
import { parseHeader } from '../../src/native/safetensors-header.js';
import { Scope } from '../../src/native/tensor.js';

const folder = mkdtempSync(join(tmpdir(), 'temper-safetensors-fuzz-'));
afterAll(() => rmSync(folder, { recursive: true }));
const path = join(folder, 'x.safetensors');

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
const pick = <T>(random: (n: number) => number, of: readonly T[]): T => of[random(of.length)] as T;

function validFiles(): Buffer[] {
  const out: Buffer[] = [];
  const save = (entries: Parameters<typeof writeSafetensors>[1], metadata?: Record<string, string>): void => {
    const bytes = Buffer.alloc(writeSafetensors(path, entries, metadata));
    const file = addon.mapFile(path);
    addon.readFile(file, 0, bytes);
    addon.unmapFile(file);
    out.push(bytes);
  };
  save([]);
  save([{ name: 'a', dtype: 'F32', shape: [2, 3], data: new Float32Array(6) }]);
  save(
    [
      {
        name: 'model.layers.0.mlp.experts.down_proj_blocks',
        dtype: 'U8',
        shape: [2, 4, 1, 16],
        data: new Uint8Array(128),
      },
      { name: 'b', dtype: 'BF16', shape: [5], data: new Uint16Array(5) },
      { name: 'é\n', dtype: 'I32', shape: [], data: new Int32Array(1) },
      { name: 'z', dtype: 'F64', shape: [0], data: new Float64Array(0) },
    ],
    { format: 'pt', k: '' },
  );
  return out;
}

const TOKENS = [
  '{',
  '}',
  '[',
  ']',
  ',',
  ':',
  '"',
  '\\',
  '\\u0061',
  '"dtype"',
  '"shape"',
  '"data_offsets"',
  '"F32"',
  '"BF16"',
  '"__metadata__"',
  '0',
  '1',
  '4',
  '-1',
  '1e9',
  '9007199254740993',
  '0.5',
  'null',
  'true',
  '"a"',
  '"__proto__"',
  ' ',
  '\n',
  '\ufeff',
  '\u0000',
  '😀',
  '[1]',
  '[0,4]',
  '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}',
  '"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},',
  '"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]},',
  '"c":{"dtype":"U8","shape":[],"data_offsets":[23,24]},',
] as const;

function mutate(valid: Buffer, random: (n: number) => number): Buffer {
  let bytes = Buffer.from(valid);
  for (let edits = 1 + random(4); edits > 0; edits--) {
    const at = bytes.length ? random(bytes.length) : 0;
    switch (random(7)) {
      case 0:
        bytes[at] = random(256);
        break;
      case 1:
        if (bytes.length) bytes[at] = (bytes[at] ?? 0) ^ (1 << random(8));
        break;
      case 2:
        bytes = bytes.subarray(0, at);
        break;
      case 3:
        bytes = Buffer.concat([bytes.subarray(0, at), Buffer.from(pick(random, TOKENS)), bytes.subarray(at)]);
        break;
      case 4:
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(Math.min(bytes.length, at + 1 + random(20)))]);
        break;
      case 5: {
        const to = random(bytes.length + 1);
        bytes = Buffer.concat([bytes, bytes.subarray(Math.min(at, to), Math.max(at, to))]);
        break;
      }
      default:
        if (bytes.length >= 8)
          bytes.writeBigUInt64LE(
            pick(random, [
              0n,
              1n,
              8n,
              BigInt(bytes.length),
              BigInt(bytes.length - 8),
              99_999_999n,
              100_000_001n,
              1n << 53n,
              (1n << 64n) - 1n,
            ]),
            0,
          );
    }
  }
  return bytes;
}

const tally = { opened: 0, refused: new Map<string, number>() };
function attempt(run: () => void, what: () => string): void {
  try {
    run();
    tally.opened++;
  } catch (e) {
    if (!(e instanceof CheckpointError))
      throw new Error(`not a CheckpointError for ${what()}: ${String(e)}`, { cause: e });
    if (e.message.includes('\n')) throw new Error(`more than one line for ${what()}: ${e.message}`);
    tally.refused.set(e.code, (tally.refused.get(e.code) ?? 0) + 1);
  }
}

it('20,000 headers: mutated, and random token by token', () => {
  const random = generator(11);
  const valid = validFiles().map((f) => f.subarray(8, 8 + Number(f.readBigUInt64LE(0))));
  const entries = TOKENS.filter((t) => t.endsWith(','));
  for (let i = 0; i < 20_000; i++) {
    const header =
      i % 4 === 0
        ? Buffer.from(
            `{${Array.from({ length: random(4) }, () => pick(random, entries))
              .join('')
              .slice(0, -1)}}`,
          )
        : i % 2
          ? mutate(pick(random, valid), random)
          : Buffer.from(
              [
                random(8) ? '{' : '',
                ...Array.from({ length: random(40) }, () => pick(random, TOKENS)),
                random(2) ? '}' : '',
              ].join(''),
            );
    attempt(
      () => {
        const { tensors } = parseHeader(header, 'x', 8 + header.length + pick(random, [0, 4, 24, 142]));
        for (const e of tensors.values()) expect(e.end).toBeLessThanOrEqual(8 + header.length + 142);
      },
      () => JSON.stringify(header.toString('latin1')),
    );
  }
});

it('2,000 files: opened through the mapping, every tensor of what opens is read', () => {
  const random = generator(12);
  const valid = validFiles();
  const before = process.memoryUsage().rss;
  for (let i = 0; i < 2000; i++) {
    const bytes = mutate(pick(random, valid), random);
    writeFileSync(path, bytes);
    attempt(
      () => {
        using file = openSafetensors(path);
        using scope = new Scope();
        for (const name of file.tensors.keys()) {
          file.bytes(name);
          file.map(name, scope).read();
        }
      },
      () => bytes.toString('base64'),
    );
  }
  expect(process.memoryUsage().rss - before).toBeLessThan(300e6);
});

it('the cases reached both sides and most kinds of damage', () => {
  expect(tally.opened).toBeGreaterThan(100);
  expect([...tally.refused.keys()].sort()).toEqual(
    expect.arrayContaining([
      'dtype_unknown',
      'duplicate_tensor',
      'file_trailing',
      'file_truncated',
      'header_invalid',
      'header_oversize',
      'tensor_gap',
      'tensor_overlap',
      'tensor_size',
    ]),
  );
  expect(tally.opened + [...tally.refused.values()].reduce((a, b) => a + b, 0)).toBe(22_000);
});

it('deep nesting and endless strings are refused at once', () => {
  const from = Date.now();
  for (const header of [
    '{"a":'.repeat(100_000),
    `{"a":${'['.repeat(1_000_000)}`,
    `{"${'a'.repeat(5_000_000)}`,
    `{"a":{"dtype":"F32","shape":[${'1,'.repeat(500_000)}`,
  ])
    attempt(
      () => {
        parseHeader(Buffer.from(header), 'x', 1e9);
      },
      () => header.slice(0, 20),
    );
  expect(Date.now() - from).toBeLessThan(5000);
});
