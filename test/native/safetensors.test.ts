// safetensors: what is written is read back to the bit; every way a file can be wrong is a named error; nothing
// half-written stays.
import fs, { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { CheckpointError } from '../../src/base/errors.js';
import {
  MAX_HEADER_BYTES,
  openSafetensors,
  tensorEntry,
  type WriteEntry,
  writeSafetensors,
} from '../../src/native/safetensors.js';
import { Scope } from '../../src/native/tensor.js';

const fail = { after: Infinity };
const { writeSync } = fs;
fs.writeSync = ((fd: number, data: Uint8Array, offset: number, length: number) => {
  fail.after -= length;
  if (fail.after < 0) throw Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });
  return writeSync(fd, data, offset, length);
}) as typeof writeSync;
syncBuiltinESMExports();

const folder = mkdtempSync(join(tmpdir(), 'temper-safetensors-'));
afterAll(() => rmSync(folder, { recursive: true }));
const path = join(folder, 'x.safetensors');

/** A file with any header text and data, for the cases the writer refuses to make. */
function raw(header: string, data = new Uint8Array(0), length = BigInt(Buffer.byteLength(header))): string {
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(length);
  writeFileSync(path, Buffer.concat([prefix, Buffer.from(header), data]));
  return path;
}
function codeOf(run: () => unknown): string {
  try {
    run();
  } catch (e) {
    expect(e).toBeInstanceOf(CheckpointError);
    expect((e as Error).message).not.toContain('\n');
    return (e as CheckpointError).code;
  }
  return 'no error';
}
const entry = (shape: string, offsets: string, dtype = 'F32'): string =>
  `{"dtype":"${dtype}","shape":${shape},"data_offsets":${offsets}}`;

describe('round trip', () => {
  it('writes tensors and raw bytes and maps the same bits', () => {
    using scope = new Scope('weights');
    const a = scope.from(Float32Array.of(1, -2.5, Infinity, 0), [2, 2]);
    const b = scope.empty('bf16', [3]).write(Uint16Array.of(0x3f80, 0xc000, 0x7fc0));
    const entries: WriteEntry[] = [
      tensorEntry('a', a),
      tensorEntry('b "quoted"\n', b),
      {
        name: '__proto__',
        dtype: 'U8',
        shape: [2, 3],
        data: function* () {
          yield Uint8Array.of(1, 2);
          yield scope.from(Uint8Array.of(3, 4, 5, 6));
        },
      },
      { name: 'empty', dtype: 'I32', shape: [0, 5], data: new Uint8Array(0) },
      { name: 'scalar', dtype: 'F64', shape: [], data: Float64Array.of(3) },
    ];
    const size = writeSafetensors(path, entries, { format: 'pt' });
    expect(readFileSync(path).length).toBe(size);
    using file = openSafetensors(path);
    expect([...file.tensors.keys()].sort()).toEqual(entries.map((e) => e.name).sort());
    expect(file.metadata.get('format')).toBe('pt');
    expect(file.map('a', scope).read()).toEqual(a.read());
    expect(file.map('b "quoted"\n', scope).read()).toEqual(b.read());
    expect([...file.map('__proto__', scope).read()]).toEqual([1, 2, 3, 4, 5, 6]);
    expect(file.map('empty', scope).shape).toEqual([0, 5]);
    expect(new Float64Array(file.bytes('scalar').buffer)[0]).toBe(3);
  });
  it('every tensor lies aligned, whatever the order given', () => {
    writeSafetensors(path, [
      { name: 'odd', dtype: 'U8', shape: [3], data: Uint8Array.of(1, 2, 3) },
      { name: 'f', dtype: 'F32', shape: [1], data: Float32Array.of(7) },
    ]);
    using file = openSafetensors(path);
    expect(file.entry('f').begin % 4).toBe(0);
    expect([...file.bytes('odd')]).toEqual([1, 2, 3]);
  });
  it('reads an unaligned tensor by copying it', () => {
    using scope = new Scope('weights');
    const header = `{"u":${entry('[1]', '[0,1]', 'U8')},"f":${entry('[2]', '[1,9]')}}`;
    raw(header, Buffer.concat([Buffer.of(9), Buffer.from(Float32Array.of(1.5, -4).buffer)]));
    using file = openSafetensors(path);
    expect([...file.map('f', scope).toFloat32()]).toEqual([1.5, -4]);
  });
  it('a mapped tensor outlives its file, but cannot be written', () => {
    using scope = new Scope('weights');
    writeSafetensors(path, [{ name: 'f', dtype: 'F32', shape: [2], data: Float32Array.of(1, 2) }]);
    const file = openSafetensors(path);
    const t = file.map('f', scope);
    file.close();
    rmSync(path);
    expect([...t.toFloat32()]).toEqual([1, 2]);
    expect(() => t.write(Float32Array.of(0, 0))).toThrow(expect.objectContaining({ code: 'read_only_tensor' }));
  });
});

describe('bad files', () => {
  const four = new Uint8Array(4);
  const cases: Record<string, [string, () => unknown]> = {
    missing: ['file_missing', () => openSafetensors(join(folder, 'nowhere'))],
    'a folder': ['file_not_regular', () => openSafetensors(folder)],
    empty: [
      'file_truncated',
      () => {
        writeFileSync(path, '');
        openSafetensors(path);
      },
    ],
    'header longer than the file': ['file_truncated', () => openSafetensors(raw('{}', four, 1000n))],
    'header over the limit': ['header_oversize', () => openSafetensors(raw('{}', four, BigInt(MAX_HEADER_BYTES) + 1n))],
    'header length of 2^64 − 1': ['header_oversize', () => openSafetensors(raw('{}', four, (1n << 64n) - 1n))],
    truncated: ['file_truncated', () => openSafetensors(raw(`{"a":${entry('[2]', '[0,8]')}}`, four))],
    'trailing bytes': [
      'file_trailing',
      () => openSafetensors(raw(`{"a":${entry('[1]', '[0,4]')}}`, new Uint8Array(5))),
    ],
    overlapping: [
      'tensor_overlap',
      () => openSafetensors(raw(`{"a":${entry('[2]', '[0,8]')},"b":${entry('[1]', '[4,8]')}}`, new Uint8Array(8))),
    ],
    'the same range twice': [
      'tensor_overlap',
      () => openSafetensors(raw(`{"a":${entry('[1]', '[0,4]')},"b":${entry('[1]', '[0,4]')}}`, four)),
    ],
    hole: [
      'tensor_gap',
      () => openSafetensors(raw(`{"a":${entry('[1]', '[0,4]')},"b":${entry('[1]', '[8,12]')}}`, new Uint8Array(12))),
    ],
    'unknown dtype': ['dtype_unknown', () => openSafetensors(raw(`{"a":${entry('[1]', '[0,4]', 'F33')}}`, four))],
    'dtype named like a method': [
      'dtype_unknown',
      () => openSafetensors(raw(`{"a":${entry('[1]', '[0,4]', 'toString')}}`, four)),
    ],
    'shape against range': ['tensor_size', () => openSafetensors(raw(`{"a":${entry('[2]', '[0,4]')}}`, four))],
    'shape that overflows': [
      'tensor_size',
      () => openSafetensors(raw(`{"a":${entry('[4294967296,4294967296]', '[0,0]')}}`)),
    ],
    'end before begin': ['tensor_size', () => openSafetensors(raw(`{"a":${entry('[1]', '[4,0]')}}`, four))],
    duplicate: [
      'duplicate_tensor',
      () => openSafetensors(raw(`{"a":${entry('[1]', '[0,4]')},"a":${entry('[1]', '[0,4]')}}`, four)),
    ],
    'escaped duplicate': [
      'duplicate_tensor',
      () => openSafetensors(raw(`{"a":${entry('[1]', '[0,4]')},"\\u0061":${entry('[1]', '[0,4]')}}`, four)),
    ],
    'negative dimension': ['header_invalid', () => openSafetensors(raw(`{"a":${entry('[-1]', '[0,4]')}}`, four))],
    fraction: ['header_invalid', () => openSafetensors(raw(`{"a":${entry('[1.0]', '[0,4]')}}`, four))],
    'not JSON': ['header_invalid', () => openSafetensors(raw('{"a":', four))],
    'not UTF-8': [
      'header_invalid',
      () => {
        writeFileSync(path, Buffer.from([2, 0, 0, 0, 0, 0, 0, 0, 0x7b, 0xff]));
        openSafetensors(path);
      },
    ],
    'byte order mark': ['header_invalid', () => openSafetensors(raw('\ufeff{}'))],
    'key twice': [
      'header_invalid',
      () => openSafetensors(raw('{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', four)),
    ],
    'unknown key': [
      'header_invalid',
      () => openSafetensors(raw('{"a":{"dtype":"F32","strides":[1],"shape":[1],"data_offsets":[0,4]}}', four)),
    ],
    'text after the header': ['header_invalid', () => openSafetensors(raw('{} {}'))],
    'numbers in metadata': ['header_invalid', () => openSafetensors(raw('{"__metadata__":{"a":1}}'))],
  };
  for (const [what, [code, run]] of Object.entries(cases))
    it(`${what} → ${code}`, () => expect(codeOf(run)).toBe(code));

  it('asks for a tensor that is missing, or of a dtype no op reads', () => {
    using scope = new Scope();
    writeSafetensors(path, [
      { name: 'i', dtype: 'I64', shape: [1], data: BigInt64Array.of(1n) },
      { name: 'd', dtype: 'F32', shape: [1, 1, 1, 1, 1], data: Float32Array.of(1) },
    ]);
    using file = openSafetensors(path);
    expect(codeOf(() => file.map('x', scope))).toBe('tensor_missing');
    expect(codeOf(() => file.map('i', scope))).toBe('dtype_unsupported');
    expect(codeOf(() => file.map('d', scope))).toBe('too_many_dimensions');
  });
});

describe('writing', () => {
  const big: WriteEntry = { name: 'a', dtype: 'U8', shape: [1000], data: new Uint8Array(1000) };
  it('a full disk is disk_full, the old file stays, nothing is left behind', () => {
    writeFileSync(path, 'old');
    for (const room of [0, 50, 600]) {
      fail.after = room;
      expect(codeOf(() => writeSafetensors(path, [big, { ...big, name: 'b' }]))).toBe('disk_full');
      fail.after = Infinity;
      expect(readFileSync(path, 'utf8')).toBe('old');
      expect(readdirSync(folder)).toEqual(['x.safetensors']);
    }
  });
  it('refuses a source of another size, a name twice, and leaves nothing', () => {
    expect(codeOf(() => writeSafetensors(path, [{ ...big, shape: [999] }]))).toBe('tensor_size');
    expect(codeOf(() => writeSafetensors(path, [big, big]))).toBe('duplicate_tensor');
    expect(codeOf(() => writeSafetensors(path, [{ ...big, name: '__metadata__' }]))).toBe('duplicate_tensor');
    expect(readdirSync(folder)).toEqual(['x.safetensors']);
  });
});
