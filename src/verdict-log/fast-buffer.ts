// What a Buffer does for each line, without the ways round of `toString` and `write`; where a Node has no such methods,
// by way of these.
interface Direct {
  latin1Slice?(from: number, to: number): string;
  hexWrite?(hex: string, at: number, length: number): number;
}

export const latin1At: (buffer: Buffer, from: number, length: number) => string =
  'latin1Slice' in Buffer.prototype
    ? (buffer, from, length) => (buffer as Direct).latin1Slice?.(from, from + length) ?? ''
    : (buffer, from, length) => buffer.toString('latin1', from, from + length);

export const writeHex: (buffer: Buffer, hex: string, at: number, bytes: number) => void =
  'hexWrite' in Buffer.prototype
    ? (buffer, hex, at, bytes) => void (buffer as Direct).hexWrite?.(hex, at, bytes)
    : (buffer, hex, at, bytes) => void buffer.write(hex, at, bytes, 'hex');
