// Kinds of file that hold no rows, or not in a way that is read, told apart by their first bytes.

/** Files that are no rows, or pack them in a way that is not read: by their first bytes, what they are, what to do. */
const OTHERS: readonly (readonly [mark: string, kind: string, next: string])[] = [
  ['504b0304', 'a zip archive', 'unpack it and give the file inside'],
  ['04224d18', 'an LZ4 file', 'unpack it (lz4 -d), or compress it with zstd'],
  ['425a68', 'a bzip2 file', 'unpack it (bunzip2), or compress it with gzip'],
  ['fd377a585a', 'an xz file', 'unpack it (unxz), or compress it with gzip'],
  ['47475546', 'a GGUF file: weights, no rows', 'give a file of rows'],
  ['53514c69746520666f726d6174', 'an SQLite database', 'export its rows as JSON lines'],
  ['894844460d0a', 'an HDF5 file', 'export its rows as JSON lines'],
  ['80', 'a Python pickle', 'write its rows as JSON lines'],
  ...['fffe', 'feff', '7b00', '5b00', '007b', '005b', '0a00', '0d00', '000a', '000d'].map(
    (mark) => [mark, 'text in UTF-16', 'save it as UTF-8'] as const,
  ),
];

const SAFETENSORS = { kind: 'a safetensors file: weights, no rows', next: 'give a file of rows' };
/** 8 bytes that say how long a header of JSON is, then that. */
const isSafetensors = (head: Buffer): boolean =>
  head.length > 9 && head.readBigUInt64LE(0) < 2n ** 27n && /^\{\s*"/.test(head.toString('latin1', 8, 64));

export function otherKind(head: Buffer): { readonly kind: string; readonly next: string } | null {
  if (isSafetensors(head)) return SAFETENSORS;
  const hex = head.toString('hex', 0, 16);
  const other = OTHERS.find(([mark]) => hex.startsWith(mark));
  return other ? { kind: other[1], next: other[2] } : null;
}
