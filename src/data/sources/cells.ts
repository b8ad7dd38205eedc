// Values of tables as the JSON they stand for. null and what is not there is undefined; in a list it is null.
const MS_LIMIT = 8_640_000_000_000_000n;

/** A 64-bit integer as a number where that is exact, else whole. */
export const integer = (v: bigint): number | bigint =>
  v >= BigInt(Number.MIN_SAFE_INTEGER) && v <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(v) : v;

/** A decimal as a number where it reads the same, else as its digits. */
export function decimal(unscaled: bigint, scale: number): number | string {
  if (!(Number.isInteger(scale) && Math.abs(scale) <= 1000)) throw new Error(`a decimal has scale ${scale}`);
  const digits = (unscaled < 0n ? -unscaled : unscaled).toString().padStart(scale + 1, '0');
  const whole = scale <= 0 ? `${digits}${'0'.repeat(-scale)}` : digits.slice(0, -scale);
  const fraction = scale <= 0 ? '' : digits.slice(-scale).replace(/0+$/, '');
  const text = `${unscaled < 0n ? '-' : ''}${whole.replace(/^0+(?=\d)/, '')}${fraction ? `.${fraction}` : ''}`;
  return String(Number(text)) === text ? Number(text) : text;
}

/** Integer of little- or big-endian bytes in two's complement. */
export function signedBytes(bytes: Uint8Array, littleEndian: boolean): bigint {
  let value = 0n;
  for (let i = 0; i < bytes.length; i++)
    value = (value << 8n) | BigInt(bytes[littleEndian ? bytes.length - 1 - i : i] ?? 0);
  return BigInt.asIntN(8 * bytes.length, value);
}

/**
 * A moment in ISO 8601, UTC, with as many digits as it has; the number itself where no calendar has it.
 * @param digits of a second that one unit is: 0, 3, 6 or 9
 */
export function moment(value: bigint, digits: 0 | 3 | 6 | 9): string | number | bigint {
  const perMs = digits > 3 ? 10n ** BigInt(digits - 3) : 1n;
  const scaled = digits === 0 ? value * 1000n : value;
  let ms = scaled / perMs;
  let rest = scaled % perMs;
  if (rest < 0n) {
    rest += perMs;
    ms--;
  }
  if (ms > MS_LIMIT || ms < -MS_LIMIT) return integer(value);
  const iso = new Date(Number(ms)).toISOString();
  return rest === 0n
    ? iso
    : `${iso.slice(0, -1)}${rest
        .toString()
        .padStart(digits - 3, '0')
        .replace(/0+$/, '')}Z`;
}

/** A day of the calendar, counted from 1970-01-01. */
export const day = (days: number): string | number =>
  Math.abs(days) > 100_000_000 ? days : new Date(days * 86_400_000).toISOString().replace(/T.*$/, '');

/** An IEEE half. */
export function half(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1,
    exponent = (bits >> 10) & 0x1f,
    fraction = bits & 0x3ff;
  if (exponent === 0) return sign * 2 ** -24 * fraction;
  if (exponent === 0x1f) return fraction ? Number.NaN : sign * Infinity;
  return sign * 2 ** (exponent - 15) * (1 + fraction / 1024);
}

/** Of 16 bytes. */
export const uuid = (bytes: Buffer): string =>
  bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');

const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
/** @throws {Error} the bytes are not UTF-8 */
export function utf8(bytes: Buffer): string {
  const text = bytes.toString('utf8');
  if (!text.includes('\ufffd')) return text;
  try {
    return strict.decode(bytes); // that character may be what the text says
  } catch {
    throw new Error('a text is not UTF-8');
  }
}

/**
 * What is made of a part of a file may cost so much: its bytes, several times. Values that lie over one another, or
 * that take no bytes at all, would cost more than any memory.
 */
export class Budget {
  #left: number;
  constructor(bytes: number) {
    this.#left = 16 * bytes + 2 ** 20;
  }
  /** @throws {Error} it is used up */
  take(bytes: number): void {
    this.#left -= bytes;
    if (this.#left < 0) throw new Error('its values are far more than its bytes, it is damaged');
  }
}
