// How pages are compressed. Each gives exactly the bytes that the page's header says, or throws; none takes much more
// memory than that.
import { brotliDecompressSync, gunzipSync } from 'node:zlib';
import { snappyUncompressor } from 'hysnappy';
import { unLz4Block } from '../lz4.js';
import { unzstd, ZstdFrames } from '../zstd-frames.js';

export type Unpack = (input: Buffer, size: number) => Buffer;
const wrong = (name: string, got: number, size: number): Error =>
  new Error(`a ${name} page has ${got} bytes and says ${size}, it is damaged`);
/** Before memory is taken: so many bytes cannot come out of so few. */
function plausible(name: string, input: Buffer, size: number, ratio: number): void {
  if (size > ratio * input.length + 64) throw wrong(name, input.length, size);
}

const snappy = snappyUncompressor();
function unSnappy(input: Buffer, size: number): Buffer {
  plausible('snappy', input, size, 64);
  let [said, at] = [0, 0];
  for (let shift = 0; shift < 35; shift += 7) {
    const byte = input[at++];
    if (byte === undefined) throw wrong('snappy', 0, size);
    said += (byte & 0x7f) * 2 ** shift;
    if (byte < 0x80) break;
  }
  if (said !== size) throw wrong('snappy', said, size);
  if (size === 0) return Buffer.alloc(0);
  const out = snappy(input, size);
  return Buffer.from(out.buffer, out.byteOffset, out.byteLength);
}

/** Hadoop's framing, or a block as it stands. */
function unLz4(input: Buffer, size: number): Buffer {
  const out = Buffer.alloc(size);
  let [at, to] = [0, 0];
  while (input.length - at >= 8) {
    const [unpacked, packed] = [input.readUInt32BE(at), input.readUInt32BE(at + 4)];
    if (packed > input.length - at - 8 || to + unpacked > size) break;
    try {
      if (unLz4Block(input.subarray(at + 8, at + 8 + packed), out, to) !== to + unpacked) break;
    } catch {
      break;
    }
    at += 8 + packed;
    to += unpacked;
    if (at === input.length && to === size) return out;
  }
  return unLz4Raw(input, size);
}
function unLz4Raw(input: Buffer, size: number): Buffer {
  plausible('LZ4', input, size, 255);
  const out = Buffer.alloc(size);
  const got = unLz4Block(input, out, 0);
  if (got !== size) throw wrong('LZ4', got, size);
  return out;
}

const inflating =
  (name: string, inflate: (input: Buffer, options: { maxOutputLength: number }) => Buffer): Unpack =>
  (input, size) => {
    const out = inflate(input, { maxOutputLength: Math.max(size, 1) });
    if (out.length !== size) throw wrong(name, out.length, size);
    return out;
  };

/** By the number of the codec. */
export async function codecs(): Promise<readonly (Unpack | null)[]> {
  // Opened once: a frame that failed leaves another one nothing.
  const frames = await ZstdFrames.open();
  const unZstd: Unpack = (input, size) => unzstd(frames.fresh(), input, size);
  const stored: Unpack = (input, size) => {
    if (input.length !== size) throw wrong('stored', input.length, size);
    return input;
  };
  return [
    stored,
    unSnappy,
    inflating('gzip', gunzipSync),
    null,
    inflating('brotli', brotliDecompressSync),
    (input, size) => {
      plausible('LZ4', input, size, 255);
      return unLz4(input, size);
    },
    unZstd,
    unLz4Raw,
  ];
}
