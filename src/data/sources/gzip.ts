// JSON lines in gzip. The digest is that of the file as it lies there.
import { pipeline, Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { DataError } from '../../base/errors.js';
import type { Reading, Source } from '../source.js';
import { hashedBytes } from './bytes.js';
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

function read(file: string, signal?: AbortSignal): Reading {
  const { chunks, digest } = hashedBytes(file, signal);
  return { batches: readLines(file, inflated(file, chunks)), digest };
}

export const gzip: Source = {
  name: 'gzip',
  unit: 'line',
  accepts: (_, head) => head[0] === 0x1f && head[1] === 0x8b,
  read,
};
