// JSON lines, or a JSON array, in gzip. The digest is that of the file as it lies there.
import { pipeline, Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { DataError } from '../../base/errors.js';
import type { Reading, Row, Source } from '../source.js';
import { hashedBytes } from './bytes.js';
import { beginsArray, readArray } from './json.js';
import { readLines } from './jsonl.js';

async function* inflated(file: string, chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer, void, void> {
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

/** How Parquet, Arrow and gzip itself begin. */
const PACKED = [Buffer.from('PAR1'), Buffer.from('ARROW1'), Buffer.from([0x1f, 0x8b])];

/** Lines, or the array that the first piece begins. @throws {DataError} file_kind: another kind of file inside */
async function* rowsIn(
  file: string,
  pieces: AsyncGenerator<Buffer, void, void>,
): AsyncGenerator<readonly Row[], void, void> {
  const first = await pieces.next();
  if (first.done) return;
  async function* all(): AsyncGenerator<Buffer, void, void> {
    yield first.value as Buffer;
    yield* pieces;
  }
  if (PACKED.some((mark) => first.value.subarray(0, mark.length).equals(mark)) || first.value.includes('ustar\0'))
    throw new DataError(
      'file_kind',
      `${file}: holds no text but another packed file; unpack it (gunzip) and give that`,
      {
        file,
      },
    );
  const array = beginsArray(first.value) && !/\.(jsonl|ndjson)\.gz$/i.test(file);
  yield* array ? readArray(file, all()) : readLines(file, all());
}

function read(file: string, signal?: AbortSignal): Reading {
  const { chunks, digest } = hashedBytes(file, signal);
  return { batches: rowsIn(file, inflated(file, chunks)), digest };
}

export const gzip: Source = {
  name: 'gzip',
  unit: 'line',
  accepts: (_, head) => head[0] === 0x1f && head[1] === 0x8b,
  read,
};
