// Zstandard, a block at a time: fzstd unpacks the blocks, here is what it leaves to others: frames one after the other
// and such to skip, how large a window may be, content checksums, and that a file ends where it should (RFC 8878).
import { Decompress } from 'fzstd';
import xxhash from 'xxhash-wasm';

/** What `zstd` itself unpacks without being asked for more. */
const MAX_WINDOW = 128 * 2 ** 20;
const MAX_BLOCK = 2 ** 17;
const MAGIC = 0xfd2fb528;
const damaged = (what: string): Error => new Error(`Zstandard: ${what}, it is damaged`);

type Hasher = Awaited<ReturnType<typeof xxhash>>;
let hasher: Promise<Hasher> | undefined;
const hashes = (): Promise<Hasher> => (hasher ??= xxhash());

interface Frame {
  readonly unpack: Decompress;
  readonly checksum: ReturnType<Hasher['create64']> | null;
  /** Bytes that the frame says it holds; null: it does not say. */
  readonly content: bigint | null;
  given: bigint;
}

/** Bytes of the header at the beginning, and what it says; null: there are too few. */
function headerOf(
  b: Buffer,
): { readonly bytes: number; readonly window: bigint; readonly content: bigint | null } | null {
  if (b.length < 5) return null;
  const flags = b.readUInt8(4);
  if (flags & 8) throw damaged('a reserved bit is set');
  const single = (flags & 32) !== 0;
  const dictionary = [0, 1, 2, 4][flags & 3] ?? 0;
  const sizeBytes = [single ? 1 : 0, 2, 4, 8][flags >> 6] ?? 0;
  const bytes = 5 + (single ? 0 : 1) + dictionary + sizeBytes;
  if (b.length < bytes) return null;
  if (dictionary > 0 && b.readUIntLE(5 + (single ? 0 : 1), dictionary) !== 0)
    throw new Error('Zstandard: it needs a dictionary, which is not there');
  const at = bytes - sizeBytes;
  const content =
    sizeBytes === 0
      ? null
      : sizeBytes === 8
        ? b.readBigUInt64LE(at)
        : BigInt(b.readUIntLE(at, sizeBytes)) + (sizeBytes === 2 ? 256n : 0n);
  const descriptor = single ? 0 : b.readUInt8(5);
  const base = 2n ** BigInt(10 + (descriptor >> 3));
  const window = single ? (content ?? 0n) : base + (base / 8n) * BigInt(descriptor & 7);
  return { bytes, window, content };
}

/** Takes the bytes of frames in pieces of any size and gives what they hold, at most 128 KiB at a time. */
export class ZstdFrames {
  #held: Buffer = Buffer.alloc(0);
  #frame: Frame | null = null;
  #skip = 0;
  #out: Buffer[] = [];
  private constructor(readonly hasher: Hasher) {}
  static async open(): Promise<ZstdFrames> {
    return new ZstdFrames(await hashes());
  }
  /** Another one, at its beginning. */
  fresh(): ZstdFrames {
    return new ZstdFrames(this.hasher);
  }

  /** @throws {Error} what is wrong with the bytes */
  *push(piece: Buffer): Generator<Buffer, void, void> {
    this.#held = this.#held.length === 0 ? piece : Buffer.concat([this.#held, piece]);
    for (let at = 0; ; ) {
      const used = this.#step(this.#held.subarray(at));
      yield* this.#out.splice(0);
      if (used === 0) {
        this.#held = this.#held.subarray(at);
        return;
      }
      at += used;
    }
  }
  /** @throws {Error} it was cut off */
  end(): void {
    if (this.#frame || this.#held.length > 0 || this.#skip > 0) throw new Error('Zstandard: it was cut off');
  }

  /** Bytes that were used; 0: more are needed. */
  #step(b: Buffer): number {
    if (this.#skip > 0) {
      const used = Math.min(this.#skip, b.length);
      this.#skip -= used;
      return used;
    }
    return this.#frame ? this.#block(b, this.#frame) : this.#header(b);
  }

  #header(b: Buffer): number {
    if (b.length < 4) return 0;
    const magic = b.readUInt32LE(0);
    if ((magic & 0xfffffff0) >>> 0 === 0x184d2a50) {
      if (b.length < 8) return 0;
      this.#skip = b.readUInt32LE(4);
      return 8;
    }
    if (magic !== MAGIC) throw damaged('a frame begins with other bytes');
    const header = headerOf(b);
    if (!header) return 0;
    if (header.window > BigInt(MAX_WINDOW))
      throw new Error(
        `Zstandard: its window of ${header.window} bytes is above ${MAX_WINDOW}; compress it without --long or --ultra`,
      );
    const unpack = new Decompress((data) => this.#take(data));
    const checksum = (b.readUInt8(4) & 4) !== 0 ? this.hasher.create64() : null;
    this.#frame = { unpack, checksum, content: header.content, given: 0n };
    unpack.push(new Uint8Array(b.subarray(0, header.bytes)));
    return header.bytes;
  }

  #take(data: Uint8Array): void {
    const frame = this.#frame;
    if (!frame || data.length === 0) return;
    // fzstd may use the memory again.
    const copy = Buffer.from(data);
    frame.given += BigInt(copy.length);
    frame.checksum?.update(copy);
    this.#out.push(copy);
  }

  #block(b: Buffer, frame: Frame): number {
    if (b.length < 3) return 0;
    const head = b.readUIntLE(0, 3);
    const [last, kind, size] = [(head & 1) === 1, (head >> 1) & 3, head >> 3];
    if (size > MAX_BLOCK) throw damaged(`a block has ${size} bytes`);
    const bytes = 3 + (kind === 1 ? 1 : size) + (last && frame.checksum ? 4 : 0);
    if (b.length < bytes) return 0;
    frame.unpack.push(new Uint8Array(b.subarray(0, bytes)), last);
    if (last) {
      const wanted = frame.checksum ? b.readUInt32LE(bytes - 4) : 0;
      const got = frame.checksum ? Number(frame.checksum.digest() & 0xffffffffn) : 0;
      if (got !== wanted) throw damaged('its checksum is another');
      if (frame.content !== null && frame.content !== frame.given)
        throw damaged(`a frame holds ${frame.given} bytes and says ${frame.content}`);
      this.#frame = null;
    }
    return bytes;
  }
}

/** All of what frames hold, exactly `size` bytes. @throws {Error} they give more, fewer, or are none */
export function unzstd(frames: ZstdFrames, input: Buffer, size: number): Buffer {
  const out: Buffer[] = [];
  let total = 0;
  for (const piece of frames.push(input)) {
    total += piece.length;
    if (total > size) throw damaged(`it holds more than the ${size} bytes it says`);
    out.push(piece);
  }
  frames.end();
  if (total !== size) throw damaged(`it holds ${total} bytes and says ${size}`);
  return out.length === 1 ? (out[0] as Buffer) : Buffer.concat(out);
}
