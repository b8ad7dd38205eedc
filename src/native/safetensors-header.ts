// The JSON header of a safetensors file, parsed for exactly its own shape: JSON.parse would let duplicate keys pass and
// build whatever the file says.
import { CheckpointError } from '../base/errors.js';

/** Element types of the format, with their size in bytes. */
export const FILE_DTYPES = {
  F64: 8,
  I64: 8,
  U64: 8,
  F32: 4,
  I32: 4,
  U32: 4,
  F16: 2,
  BF16: 2,
  I16: 2,
  U16: 2,
  I8: 1,
  U8: 1,
  BOOL: 1,
  F8_E4M3: 1,
  F8_E5M2: 1,
} as const satisfies Record<string, number>;
export type FileDType = keyof typeof FILE_DTYPES;
/** Where a tensor lies; `begin` and `end` count from the start of the file. */
export interface TensorEntry {
  readonly dtype: FileDType;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

export interface Header {
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  readonly metadata: ReadonlyMap<string, string>;
}

class Reader {
  #at = 0;
  constructor(
    readonly text: string,
    readonly file: string,
  ) {}

  fail(wanted: string): never {
    const got = this.#at < this.text.length ? JSON.stringify(this.text.slice(this.#at, this.#at + 20)) : 'the end';
    throw new CheckpointError(
      'header_invalid',
      `${this.file}: header at byte ${8 + this.#at}: got ${got}, wanted ${wanted}`,
      { file: this.file },
    );
  }
  #space(): void {
    for (; ; this.#at++) {
      const c = this.text.charCodeAt(this.#at);
      if (c !== 0x20 && c !== 0x0a && c !== 0x0d && c !== 0x09) return;
    }
  }
  /** Takes `c` if it is next. */
  take(c: string): boolean {
    this.#space();
    if (this.text[this.#at] !== c) return false;
    this.#at++;
    return true;
  }
  need(c: string): void {
    if (!this.take(c)) this.fail(`"${c}"`);
  }
  end(): void {
    this.#space();
    if (this.#at < this.text.length) this.fail("nothing after the header's object");
  }

  string(): string {
    this.#space();
    const from = this.#at;
    if (this.text[from] !== '"') this.fail('a string');
    let at = from + 1;
    let plain = true;
    for (; at < this.text.length && this.text[at] !== '"'; at++) {
      if (this.text[at] === '\\') {
        plain = false;
        at++;
      } else if (this.text.charCodeAt(at) < 0x20) plain = false;
    }
    if (at >= this.text.length) this.fail('a string that ends');
    this.#at = at + 1;
    if (plain) return this.text.slice(from + 1, at);
    try {
      return JSON.parse(this.text.slice(from, at + 1)) as string;
    } catch {
      this.#at = from;
      return this.fail('a JSON string');
    }
  }
  /** A whole number from 0 to 2^53 − 1, written plainly. */
  size(): number {
    this.#space();
    const from = this.#at;
    while (this.#at - from < 17) {
      const c = this.text.charCodeAt(this.#at);
      if (!(c >= 0x30 && c <= 0x39)) break;
      this.#at++;
    }
    const digits = this.text.slice(from, this.#at);
    const value = Number(digits);
    const next = this.text[this.#at] ?? '';
    if (
      digits === '' ||
      (digits.length > 1 && digits[0] === '0') ||
      !Number.isSafeInteger(value) ||
      /[0-9.eE]/.test(next)
    ) {
      this.#at = from;
      this.fail('a whole number below 2^53');
    }
    return value;
  }
  sizes(limit: number): number[] {
    const out: number[] = [];
    this.need('[');
    if (this.take(']')) return out;
    do {
      if (out.length >= limit) this.fail(`at most ${limit} numbers`);
      out.push(this.size());
    } while (this.take(','));
    this.need(']');
    return out;
  }
  /** `{"key": value, …}`; `value` reads one value. */
  object(value: (key: string) => void): void {
    this.need('{');
    if (this.take('}')) return;
    do {
      const key = this.string();
      this.need(':');
      value(key);
    } while (this.take(','));
    this.need('}');
  }
}

function readEntry(r: Reader, name: string, dataStart: number): TensorEntry {
  let dtype: FileDType | undefined;
  let shape: number[] | undefined;
  let offsets: number[] | undefined;
  const where = { file: r.file, tensor: name };
  r.object((key) => {
    if (key === 'dtype' && dtype === undefined) {
      const got = r.string();
      if (!Object.hasOwn(FILE_DTYPES, got))
        throw new CheckpointError(
          'dtype_unknown',
          `${r.file}: tensor "${name}" has dtype ${JSON.stringify(got.slice(0, 40))}, wanted one of ` +
            `${Object.keys(FILE_DTYPES).join(', ')}`,
          where,
        );
      dtype = got as FileDType;
    } else if (key === 'shape' && shape === undefined) shape = r.sizes(16);
    else if (key === 'data_offsets' && offsets === undefined) offsets = r.sizes(2);
    else r.fail('"dtype", "shape" and "data_offsets", each once');
  });
  const [begin, end] = offsets ?? [];
  if (dtype === undefined || shape === undefined || begin === undefined || end === undefined)
    return r.fail('"dtype", "shape" and "data_offsets", each once');
  const bytes = shape.reduce((a, b) => a * b, FILE_DTYPES[dtype]);
  if (end < begin || !Number.isSafeInteger(bytes) || bytes !== end - begin)
    throw new CheckpointError(
      'tensor_size',
      `${r.file}: tensor "${name}" has ${end - begin} bytes, its shape [${shape.join(', ')}] of ` +
        `${dtype} needs ${bytes}`,
      where,
    );
  return { dtype, shape, begin: dataStart + begin, end: dataStart + end };
}

function checkRanges(
  file: string,
  tensors: ReadonlyMap<string, TensorEntry>,
  dataStart: number,
  fileSize: number,
): void {
  const byPlace = [...tensors].sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end);
  let at = dataStart;
  for (const [name, e] of byPlace) {
    const where = { file, tensor: name };
    if (e.begin < at)
      throw new CheckpointError(
        'tensor_overlap',
        `${file}: tensor "${name}" begins at byte ${e.begin}, inside the tensor before it, which ends at ${at}`,
        where,
      );
    if (e.begin > at)
      throw new CheckpointError(
        'tensor_gap',
        `${file}: tensor "${name}" begins at byte ${e.begin}, ${e.begin - at} bytes after the one before it ends`,
        where,
      );
    if (e.end > fileSize)
      throw new CheckpointError(
        'file_truncated',
        `${file}: tensor "${name}" ends at byte ${e.end}, the file at ${fileSize}; download it again`,
        where,
      );
    at = e.end;
  }
  if (at !== fileSize)
    throw new CheckpointError(
      'file_trailing',
      `${file}: the last tensor ends at byte ${at}, the file at ${fileSize}; it is damaged or no safetensors file`,
      { file },
    );
}

/**
 * @param bytes    the header, UTF-8 JSON, padded with spaces
 * @param fileSize size of the whole file in bytes
 * @throws {CheckpointError} header_invalid, dtype_unknown, duplicate_tensor, tensor_size, tensor_overlap, tensor_gap,
 * file_truncated, file_trailing
 */
export function parseHeader(bytes: Uint8Array, file: string, fileSize: number): Header {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new CheckpointError('header_invalid', `${file}: the header is not UTF-8; this is no safetensors file`, {
      file,
    });
  }
  const dataStart = 8 + bytes.length;
  const tensors = new Map<string, TensorEntry>();
  const metadata = new Map<string, string>();
  const r = new Reader(text, file);
  if (text[0] !== '{') r.fail('"{"');
  let sawMetadata = false;
  r.object((name) => {
    if (name !== '__metadata__') {
      if (tensors.has(name))
        throw new CheckpointError(
          'duplicate_tensor',
          `${file}: tensor ${JSON.stringify(name.slice(0, 200))} is listed twice`,
          { file, tensor: name },
        );
      tensors.set(name, readEntry(r, name, dataStart));
      return;
    }
    if (sawMetadata) r.fail('one "__metadata__"');
    sawMetadata = true;
    r.object((key) => {
      if (metadata.has(key)) r.fail('metadata keys once each');
      metadata.set(key, r.string());
    });
  });
  r.end();
  checkRanges(file, tensors, dataStart, fileSize);
  return { tensors, metadata };
}
