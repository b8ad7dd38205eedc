// JSON lines, or a JSON array, in gzip or Zstandard. The digest is that of the file as it lies there.
import { pipeline, Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { DataError } from '../../base/errors.js';
import type { Reading, Row, Source } from '../source.js';
import { hashedBytes } from './bytes.js';
import { beginsArray, readArray } from './json.js';
import { readLines } from './jsonl.js';
import { otherKind } from './kinds.js';

type Pieces = AsyncGenerator<Buffer, void, void>;

async function* gunzipped(file: string, chunks: AsyncIterable<Buffer>): Pieces {
  const gunzip = createGunzip();
  // Its error, or that of the chunks, is thrown where the pieces are taken.
  pipeline(Readable.from(chunks), gunzip, () => {});
  try {
    yield* gunzip as AsyncIterable<Buffer>;
  } catch (e) {
    if (!(e instanceof Error && 'code' in e && /^Z_/.test(String(e.code)))) throw e;
    throw new DataError(
      'bad_gzip',
      `${file}: not gzip to its end: ${e.message}; copy or compress it again`,
      { file },
      { cause: e },
    );
  }
}

async function* unzstded(file: string, chunks: AsyncIterable<Buffer>): Pieces {
  // Loaded when such a file is met.
  const { ZstdFrames } = await import('./zstd-frames.js');
  const frames = await ZstdFrames.open();
  const failed = (e: unknown): unknown =>
    e instanceof DataError || (e instanceof Error && e.name === 'AbortError')
      ? e
      : new DataError(
          'bad_zstd',
          `${file}: not Zstandard to its end: ${e instanceof Error ? e.message : String(e)}; copy or compress it again`,
          { file },
          { cause: e },
        );
  for await (const chunk of chunks) {
    const pieces = frames.push(chunk);
    for (;;) {
      let next: IteratorResult<Buffer, void>;
      try {
        next = pieces.next();
      } catch (e) {
        throw failed(e);
      }
      if (next.done) break;
      yield next.value;
    }
  }
  try {
    frames.end();
  } catch (e) {
    throw failed(e);
  }
}

/** The bytes of a text that lies in gzip or Zstandard, by the file's name; of any other they are as they come. */
export const unpackedPieces = (file: string, chunks: AsyncIterable<Buffer>): AsyncIterable<Buffer> =>
  /\.gz$/i.test(file) ? gunzipped(file, chunks) : /\.zst$/i.test(file) ? unzstded(file, chunks) : chunks;

/** How Parquet, Arrow and packed files begin. */
const PACKED = ['PAR1', 'ARROW1', '\x1f\x8b', '\x28\xb5\x2f\xfd', '\xff\xff\xff\xff'].map((m) =>
  Buffer.from(m, 'latin1'),
);

/** Lines, or the array that the first piece begins. @throws {DataError} file_kind: another kind of file inside */
async function* rowsIn(file: string, pieces: Pieces): AsyncGenerator<readonly Row[], void, void> {
  const first = await pieces.next();
  if (first.done) return;
  try {
    yield* rowsOfPieces(file, first.value, pieces);
  } finally {
    await pieces.return();
  }
}
async function* rowsOfPieces(file: string, first: Buffer, pieces: Pieces): AsyncGenerator<readonly Row[], void, void> {
  async function* all(): Pieces {
    yield first;
    yield* pieces;
  }
  if (PACKED.some((mark) => first.subarray(0, mark.length).equals(mark)) || first.includes('ustar\0'))
    throw new DataError('file_kind', `${file}: holds no text but another packed file; unpack it and give that`, {
      file,
    });
  const other = otherKind(first);
  if (other)
    throw new DataError('file_kind', `${file}: holds ${other.kind}, wanted JSON lines or an array; ${other.next}`, {
      file,
    });
  const array = beginsArray(first) && !/\.(jsonl|ndjson)\.(gz|zst)$/i.test(file);
  yield* array ? readArray(file, all()) : readLines(file, all());
}

const reader =
  (unpack: (file: string, chunks: AsyncIterable<Buffer>) => Pieces) =>
  (file: string, signal?: AbortSignal): Reading => {
    const { chunks, digest } = hashedBytes(file, signal);
    return { batches: rowsIn(file, unpack(file, chunks)), digest };
  };

export const gzip: Source = {
  name: 'gzip',
  unit: 'line',
  accepts: (_, head) => head[0] === 0x1f && head[1] === 0x8b,
  read: reader(gunzipped),
};

/** Frames of it, also those to skip, as some writers begin with. */
const isZstd = (head: Uint8Array): boolean => {
  if (head.length < 4) return false;
  const mark = Buffer.from(head.buffer, head.byteOffset, 4).readUInt32LE(0);
  return mark === 0xfd2fb528 || (mark & 0xfffffff0) >>> 0 === 0x184d2a50;
};
export const zstd: Source = { name: 'zstd', unit: 'line', accepts: (_, head) => isZstd(head), read: reader(unzstded) };
