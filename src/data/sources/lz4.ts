// LZ4 frames, as Arrow compresses its buffers: the format's blocks, which may reach back into one another, written into
// one buffer of a size that is known before. https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md
const MAGIC = 0x184d2204;
const damaged = (what: string): Error => new Error(`LZ4: ${what}, it is damaged`);

/** @returns exactly `size` bytes. @throws {Error} the frame gives more, fewer, or is none */
export function unLz4Frame(input: Buffer, size: number): Buffer {
  if (size > 255 * input.length) throw damaged(`${input.length} bytes cannot hold ${size}`);
  if (input.length < 7 || input.readUInt32LE(0) !== MAGIC) throw damaged('it is no frame');
  const flags = input.readUInt8(4);
  if (flags >> 6 !== 1) throw damaged(`version ${flags >> 6}`);
  if (flags & 1) throw damaged('it needs a dictionary');
  const out = Buffer.allocUnsafe(size);
  let at = 6 + (flags & 8 ? 8 : 0) + 1;
  let to = 0;
  for (;;) {
    const head = input.readUInt32LE(at);
    at += 4;
    if (head === 0) break;
    const bytes = head & 0x7fffffff;
    if (at + bytes > input.length) throw damaged('a block leaves it');
    const block = input.subarray(at, at + bytes);
    if (head >>> 31) {
      if (to + bytes > size) throw damaged('it holds more than it says');
      block.copy(out, to);
      to += bytes;
    } else to = unLz4Block(block, out, to);
    at += bytes + (flags & 16 ? 4 : 0);
  }
  if (to !== size) throw damaged(`it holds ${to} bytes and says ${size}`);
  return out;
}

/** Writes a block's bytes at `to`. @returns where they end */
export function unLz4Block(input: Buffer, out: Buffer, to: number): number {
  let at = 0;
  const longer = (length: number): number => {
    let sum = length;
    if (length === 15)
      for (let byte = 255; byte === 255; ) {
        byte = input.readUInt8(at++);
        sum += byte;
      }
    return sum;
  };
  while (at < input.length) {
    const token = input.readUInt8(at++);
    const literals = longer(token >> 4);
    if (at + literals > input.length || to + literals > out.length) throw damaged('its literals leave it');
    input.copy(out, to, at, at + literals);
    at += literals;
    to += literals;
    if (at === input.length) break;
    const back = input.readUInt16LE(at);
    at += 2;
    const length = longer(token & 15) + 4;
    if (back === 0 || back > to || to + length > out.length) throw damaged('a match leaves it');
    if (back >= length) out.copyWithin(to, to - back, to - back + length);
    else for (let i = 0; i < length; i++) out[to + i] = out[to + i - back] as number;
    to += length;
  }
  return to;
}
