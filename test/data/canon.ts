// Rows as a text that test/golden/conformance/make.py makes of pyarrow's values too: numbers by their bits, texts by
// their bytes, keys in order.
import { createHash } from 'node:crypto';

const hex = (text: string): string => Buffer.from(text).toString('hex');
function number(x: number): string {
  if (Number.isNaN(x)) return 'dNaN';
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleBE(x);
  return `d${bytes.toString('hex')}`;
}

export function canon(v: unknown): string {
  if (v === null || v === undefined) return 'n';
  if (typeof v === 'boolean') return v ? 't' : 'f';
  if (typeof v === 'number') return number(v);
  if (typeof v === 'bigint') return `i${v}`;
  if (typeof v === 'string') return `s${hex(v)}`;
  if (Array.isArray(v)) return `[${v.map(canon).join(',')}]`;
  const members = Object.entries(v).flatMap(([k, x]) => (x === undefined ? [] : [`${hex(k)}:${canon(x)}`]));
  return `{${members.sort((a, b) => ((a.split(':')[0] ?? '') < (b.split(':')[0] ?? '') ? -1 : 1)).join(',')}}`;
}

export function rowsDigest(rows: readonly unknown[]): { readonly rows: number; readonly sha256: string } {
  const hash = createHash('sha256');
  for (const row of rows) hash.update(`${canon(row)}\n`);
  return { rows: rows.length, sha256: hash.digest('hex') };
}
