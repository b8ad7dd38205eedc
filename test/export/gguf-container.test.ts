// GGUF as a container: what is written is read back, what is damaged is refused by name and in bounded memory.
import { existsSync, mkdtempSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { TemperError } from '../../src/base/errors.js';
import { type ByteSource, GgufFile, type GgufHeader, parseGguf } from '../../src/export/gguf/reader.js';
import { everySecondRow, packBlocks, unpackBlocks } from '../../src/export/gguf/repack.js';
import {
  bool,
  f32,
  i32s,
  type Metadata,
  text,
  texts,
  u32,
  VALUE_TYPES,
  type Value,
} from '../../src/export/gguf/types.js';
import { type GgufTensor, layoutGguf, writeGguf } from '../../src/export/gguf/writer.js';

const folder = mkdtempSync(join(tmpdir(), 'temper-gguf-'));
const inMemory = (bytes: Uint8Array): ByteSource => ({
  size: bytes.length,
  read: (at, into) => into.set(bytes.subarray(at, at + into.length)),
});
const parse = (bytes: Uint8Array): GgufHeader => parseGguf(inMemory(bytes), 'x.gguf');
const failure = (f: () => unknown): TemperError => {
  try {
    f();
  } catch (e) {
    if (e instanceof TemperError) return e;
    throw e;
  }
  throw new Error('it did not fail');
};

const METADATA: Metadata = new Map<string, Value>([
  ['general.architecture', text('gpt-oss')],
  ['a.u8', { type: 'u8', value: 255 }],
  ['a.i8', { type: 'i8', value: -128 }],
  ['a.u16', { type: 'u16', value: 65535 }],
  ['a.i16', { type: 'i16', value: -32768 }],
  ['a.u32', u32(4294967295)],
  ['a.i32', { type: 'i32', value: -2147483648 }],
  ['a.f32', f32(Math.fround(0.1))],
  ['a.f64', { type: 'f64', value: 0.1 }],
  ['a.u64', { type: 'u64', value: 2n ** 64n - 1n }],
  ['a.i64', { type: 'i64', value: -(2n ** 63n) }],
  ['a.bool', bool(true)],
  ['a.text', text('Größe\u0000 🦙')],
  ['a.texts', texts(['', 'Ġthe', 'ĊĊ'])],
  ['a.i32s', i32s(Int32Array.of(1, -1, 3))],
  ['a.none', texts([])],
  ['a.bools', { type: 'array', of: 'bool', value: [true, false] }],
  ['a.u64s', { type: 'array', of: 'u64', value: [1n, 2n] }],
]);
const bytes = (n: number, seed = 1): Uint8Array => Uint8Array.from({ length: n }, (_, i) => (i * 7 + seed) & 255);
const TENSORS: readonly GgufTensor[] = [
  { name: 'one', type: 'F32', ne: [3], data: () => [bytes(12)] },
  { name: 'two.weight', type: 'BF16', ne: [5, 2], data: () => [bytes(10, 2), bytes(10, 3)] },
  { name: 'blk.0.ffn_up_exps.weight', type: 'MXFP4', ne: [64, 3, 2], data: () => [bytes(204, 4)] },
  { name: 'last', type: 'F16', ne: [1, 1, 1, 1], data: () => [bytes(2, 5)] },
];
/** The whole file in memory. */
async function sample(metadata = METADATA, tensors = TENSORS): Promise<Uint8Array> {
  const path = join(folder, 'sample.gguf');
  await writeGguf(path, metadata, tensors);
  return new Uint8Array(readFileSync(path));
}

describe('a GGUF file', () => {
  it('is read back as it was written: every type of value, every tensor, its digest', async () => {
    const path = join(folder, 'whole.gguf');
    const written = await writeGguf(path, METADATA, TENSORS);
    expect(readFileSync(path).length).toBe(written.bytes);
    expect(new Set([...METADATA.values()].map((v) => v.type))).toEqual(new Set(VALUE_TYPES));
    using file = GgufFile.open(path);
    const plain = (v: Value | undefined): unknown =>
      v?.type === 'array' ? [v.of, [...v.value]] : v && [v.type, v.value];
    expect([...file.header.metadata.keys()]).toEqual([...METADATA.keys()]);
    for (const [key, value] of METADATA)
      expect([key, plain(file.header.metadata.get(key))]).toEqual([key, plain(value)]);
    expect([...file.header.tensors.values()].map(({ name, type, ne }) => ({ name, type, ne }))).toEqual(
      TENSORS.map(({ name, type, ne }) => ({ name, type, ne })),
    );
    for (const t of TENSORS) {
      expect(file.entry(t.name).begin % 32).toBe(0);
      expect(file.bytes(t.name)).toEqual(new Uint8Array(Buffer.concat([...t.data()])));
    }
    expect(file.bytes('two.weight', 3, 4)).toEqual(
      new Uint8Array(Buffer.concat([bytes(10, 2), bytes(10, 3)])).slice(3, 7),
    );
    expect(failure(() => file.bytes('two.weight', 18, 4)).code).toBe('tensor_size');
    expect(failure(() => file.bytes('three')).code).toBe('tensor_missing');
  });

  it('is cut where the read-ahead ends without a difference', async () => {
    const long = new Map<string, Value>(METADATA);
    long.set('b.long', texts(Array.from({ length: 30000 }, (_, i) => `token ${i}`)));
    const header = parse(await sample(long));
    const read = header.metadata.get('b.long')?.value as readonly string[] | undefined;
    expect(read?.at(-1)).toBe('token 29999');
  });

  it('is refused before anything is written where no reader would take it', async () => {
    const one = (t: Partial<GgufTensor>): Promise<unknown> =>
      writeGguf(join(folder, 'never.gguf'), METADATA, [{ ...(TENSORS[0] as GgufTensor), ...t }]);
    await expect(one({ name: 'x'.repeat(64) })).rejects.toMatchObject({ code: 'tensor_shape' });
    await expect(one({ ne: [] })).rejects.toMatchObject({ code: 'tensor_shape' });
    await expect(one({ ne: [3, 0] })).rejects.toMatchObject({ code: 'tensor_shape' });
    await expect(one({ type: 'MXFP4', ne: [33] })).rejects.toMatchObject({ code: 'tensor_shape' });
    await expect(
      writeGguf(join(folder, 'never.gguf'), METADATA, [TENSORS[0] as GgufTensor, TENSORS[0] as GgufTensor]),
    ).rejects.toMatchObject({ code: 'duplicate_tensor' });
    expect(existsSync(join(folder, 'never.gguf'))).toBe(false);
    await expect(one({ data: () => [bytes(8)] })).rejects.toMatchObject({ code: 'tensor_size' });
    const stop = AbortSignal.abort(new Error('stopped'));
    await expect(writeGguf(join(folder, 'never.gguf'), METADATA, TENSORS, { signal: stop })).rejects.toThrow('stopped');
  });

  it('that changes while it is read is no file with zeros in it', async () => {
    const path = join(folder, 'shrinks.gguf');
    await writeGguf(path, METADATA, TENSORS);
    using file = GgufFile.open(path);
    truncateSync(path, file.entry('last').begin);
    expect(failure(() => file.bytes('last')).code).toBe('file_changed');
  });
});

/** A file with these bytes put over those at a place. */
function patched(from: Uint8Array, at: number, put: Uint8Array | readonly number[]): Uint8Array {
  const out = Uint8Array.from(from);
  out.set(put, at);
  return out;
}
const u64 = (n: bigint): Uint8Array => new Uint8Array(BigUint64Array.of(n).buffer);

describe('a damaged file', () => {
  /** Only one tensor and one key, so that places are known: key at 24, tensor after it. */
  const small = (): Uint8Array => {
    const { header } = layoutGguf('x', new Map([['k', u32(7)]]), [{ name: 't', type: 'F32', ne: [8] }]);
    return new Uint8Array(Buffer.concat([header, bytes(32)]));
  };
  const KEY = 24,
    VALUE = KEY + 8 + 1,
    TENSOR = VALUE + 8,
    DIMS = TENSOR + 8 + 1,
    TYPE = DIMS + 4 + 8,
    OFFSET = TYPE + 4;
  const cases: readonly [string, (good: Uint8Array) => Uint8Array, string][] = [
    ['nothing', () => new Uint8Array(0), 'file_truncated'],
    ['another magic', (b) => patched(b, 0, [0x47, 0x47, 0x4d, 0x4c]), 'header_invalid'],
    ['version 2', (b) => patched(b, 4, [2]), 'header_invalid'],
    ['big-endian', (b) => patched(b, 4, [0, 0, 0, 3]), 'header_invalid'],
    ['2^60 tensors', (b) => patched(b, 8, u64(2n ** 60n)), 'header_invalid'],
    ['70,000 tensors', (b) => patched(b, 8, u64(70_000n)), 'header_oversize'],
    ['70,000 keys', (b) => patched(b, 16, u64(70_000n)), 'header_oversize'],
    ['a key longer than the file', (b) => patched(b, KEY, u64(60_000n)), 'file_truncated'],
    ['a key of 2^62 bytes', (b) => patched(b, KEY, u64(2n ** 62n)), 'header_invalid'],
    ['a key of 70,000 bytes', (b) => patched(b, KEY, u64(70_000n)), 'header_invalid'],
    ['a key that is no UTF-8', (b) => patched(b, KEY + 8, [0xff]), 'header_invalid'],
    ['a key with a line end', (b) => patched(b, KEY + 8, [0x0a]), 'header_invalid'],
    ['a type of value that does not exist', (b) => patched(b, VALUE, [13]), 'header_invalid'],
    ['an element type that does not exist', (b) => patched(b, TYPE, [99]), 'dtype_unsupported'],
    ['five dimensions', (b) => patched(b, DIMS, [5]), 'header_invalid'],
    ['no dimension', (b) => patched(b, DIMS, [0]), 'header_invalid'],
    ['a dimension of 0', (b) => patched(b, DIMS + 4, u64(0n)), 'tensor_shape'],
    ['a dimension of 2^52', (b) => patched(b, DIMS + 4, u64(2n ** 52n)), 'tensor_size'],
    ['a row that is no whole block', (b) => patched(b, TYPE, [39]), 'tensor_shape'],
    ['an offset behind the end', (b) => patched(b, OFFSET, u64(32n)), 'tensor_gap'],
    ['a shorter file', (b) => b.slice(0, -1), 'file_truncated'],
    ['a longer file', (b) => Uint8Array.from([...b, 0]), 'file_trailing'],
  ];
  it.each(cases)('%s: refused, with place and next step', (_, damage, code) => {
    parse(small());
    const e = failure(() => parse(damage(small())));
    expect(e.code).toBe(code);
    expect(e.message).toMatch(/^x\.gguf: .*; export it again or download it again$/);
  });

  const keyed = (value: Value): Uint8Array => {
    const { header } = layoutGguf('x', new Map([['k', value]]), []);
    return new Uint8Array(header);
  };
  it('arrays are bounded before they are made', () => {
    const of = keyed({ type: 'array', of: 'u8', value: [1, 2] });
    const COUNT = VALUE + 4 + 4;
    expect(failure(() => parse(patched(of, COUNT, u64(2n ** 40n)))).message).toContain('elements');
    expect(failure(() => parse(patched(of, COUNT, u64(4_000_000n)))).code).toBe('file_truncated');
    expect(failure(() => parse(patched(of, VALUE + 4, [9]))).message).toContain('array of arrays');
    expect(failure(() => parse(patched(keyed(bool(true)), VALUE + 4, [2]))).message).toContain('wanted 0 or 1');
  });
  it('a string may not be larger than any that a model has', () => {
    const source: ByteSource = {
      size: 2 ** 33,
      read: (at, into) => {
        into.fill(0);
        const head = keyed(text('x'));
        into.set(patched(head, VALUE + 4, u64(2n ** 32n)).subarray(at, at + into.length));
      },
    };
    expect(failure(() => parseGguf(source, 'x.gguf')).message).toContain('at most 16777216');
  });
  it('two keys or two tensors of one name, an alignment that is none', () => {
    const two = (b: Uint8Array, from: string, to: string): Uint8Array =>
      new Uint8Array(Buffer.from(Buffer.from(b).toString('latin1').replace(from, to), 'latin1'));
    const header = (m: Metadata, names: readonly string[]): Uint8Array => {
      const laid = layoutGguf(
        'x',
        m,
        names.map((name) => ({ name, type: 'F32' as const, ne: [8] })),
      );
      return new Uint8Array(Buffer.concat([laid.header, bytes(laid.total - laid.header.length)]));
    };
    const keys = header(
      new Map([
        ['ka', u32(1)],
        ['kb', u32(2)],
      ]),
      [],
    );
    expect(failure(() => parse(two(keys, 'kb', 'ka'))).message).toContain('key ka is there twice');
    expect(failure(() => parse(two(header(new Map(), ['ta', 'tb']), 'tb', 'ta'))).code).toBe('duplicate_tensor');
    for (const value of [u32(0), u32(24), u32(2 ** 20), text('32')])
      expect(failure(() => parse(keyed2('general.alignment', value))).message).toContain('general.alignment');
    function keyed2(key: string, value: Value): Uint8Array {
      return new Uint8Array(layoutGguf('x', new Map([[key, value]]), []).header);
    }
  });

  it('20,000 damaged files are read or refused by a typed error, none hangs', async () => {
    const good = await sample();
    let state = 12345;
    const random = (below: number): number => {
      state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
      return Math.floor((state / 0x80000000) * below);
    };
    const header = parse(good);
    const start = Math.min(...[...header.tensors.values()].map((t) => t.begin));
    const codes = new Map<string, number>();
    for (let i = 0; i < 20_000; i++) {
      const copy = Uint8Array.from(good);
      for (let n = 1 + random(4); n > 0; n--) {
        const at = random(start);
        const kind = random(4);
        if (kind === 0) copy[at] = random(256);
        else if (kind === 1) copy[at] = (copy[at] ?? 0) ^ (1 << random(8));
        else if (kind === 2) copy.fill(random(2) * 255, at, Math.min(start, at + 1 + random(8)));
        else copy.copyWithin(at, random(start), random(start));
      }
      const cut = random(10) === 0 ? copy.subarray(0, random(copy.length)) : copy;
      try {
        parse(cut);
        codes.set('read', (codes.get('read') ?? 0) + 1);
      } catch (e) {
        if (!(e instanceof TemperError)) throw e;
        codes.set(e.code, (codes.get(e.code) ?? 0) + 1);
      }
    }
    expect([...codes.values()].reduce((a, b) => a + b, 0)).toBe(20_000);
    // It reaches the places that differ.
    for (const code of [
      'read',
      'header_invalid',
      'file_truncated',
      'dtype_unsupported',
      'tensor_gap',
      'tensor_overlap',
    ])
      expect([code, codes.get(code) ?? 0]).toEqual([code, expect.toSatisfy((n: number) => n > 0)]);
  });
});

describe('MXFP4 blocks', () => {
  // Blocks of gpt-oss-20b (first expert, gate_up, first group of rows 0…7): HF's 16 bytes, scale, ggml's 17.
  const RELEASED = [
    ['00c080a9101b812293e4a0b23b19b231', '7a', '7a309040ec00a829bab0319b1121b81232'],
    ['82f8cea86e82a20fc576c27acc8cc224', '79', '7952c8687f2ecca87acec6c28822ca4f20'],
    ['4565ddf5c22981f566e743ca04b15291', '78', '78656475e63d4da5cf420c19b22158159f'],
    ['040a5844684582c762267a788d02400c', '79', '7924606a20a8758474d886250402 48c70c'],
    ['4ec6a85da2450a26aad244e756472edf', '78', '78aea426dc484a7de5625a7544ea20f6d2'],
    ['5bcca9ad59e403514de4545829 1a28aa', '79', '79db454cec495a8d5a9925a41e8320a1a5'],
    ['11211812cc2500c808e1883b52a10c13', '79', '79810111e28881b2312c5c15a2c000381c'],
    ['c56dd66ade6d280accc8fadd6da2f6ac', '79', '79c5cc8dc6a6fddad6de6d2da668f2caa0'],
  ].map((row) => row.map((hex) => new Uint8Array(Buffer.from(hex.replaceAll(' ', ''), 'hex'))));
  it.each(RELEASED.map((row, i) => [i, ...row] as const))(
    'released row %i: the bytes that ggml has',
    (_, hf, scale, ggml) => {
      expect(packBlocks(hf as Uint8Array, scale as Uint8Array)).toEqual(ggml);
      expect(unpackBlocks(ggml as Uint8Array)).toEqual({ blocks: hf, scales: scale });
    },
  );
  it('many at once, every code at every place', () => {
    const n = 512,
      blocks = Uint8Array.from({ length: n * 16 }, (_, i) => (i * 131 + (i >> 4)) & 255),
      scales = Uint8Array.from({ length: n }, (_, i) => i & 255),
      packed = packBlocks(blocks, scales);
    const code = (b: number, j: number): number => ((blocks[b * 16 + (j >> 1)] ?? 0) >> (4 * (j & 1))) & 15;
    for (let b = 0; b < n; b++) {
      expect(packed[b * 17]).toBe(scales[b]);
      for (let j = 0; j < 16; j++)
        if (packed[b * 17 + 1 + j] !== (code(b, j) | (code(b, j + 16) << 4))) throw new Error(`block ${b}, byte ${j}`);
    }
    expect(unpackBlocks(packed)).toEqual({ blocks, scales });
  });
  it('every second row', () => {
    const rows = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);
    expect(everySecondRow(rows, 2, 0)).toEqual(Uint8Array.of(1, 2, 5, 6));
    expect(everySecondRow(rows, 2, 1)).toEqual(Uint8Array.of(3, 4, 7, 8));
  });
});

it('a file of another kind says so', () => {
  const path = join(folder, 'text.gguf');
  writeFileSync(path, 'hello, this is no model at all');
  expect(failure(() => GgufFile.open(path)).message).toContain('this is no GGUF file');
});
