// How a generator leaves its files: JSONL, written whole or not at all, with the counts and digests on stdout.
import { createHash } from 'node:crypto';
import { closeSync, fsyncSync, mkdirSync, openSync, renameSync, writeSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

export function writeJsonl(path, rows) {
  mkdirSync(dirname(path), { recursive: true });
  const text = rows.map((r) => `${JSON.stringify(r)}\n`).join('');
  const temporary = `${path}.${process.pid}.part`;
  const fd = openSync(temporary, 'w');
  try {
    writeSync(fd, text);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  renameSync(temporary, path);
  return { path, rows: rows.length, sha256: createHash('sha256').update(text).digest('hex') };
}

/** Command line of every generator: each split `name` becomes `name.jsonl` beside the generator or in --out. */
export function writeSplit(moduleUrl, generate, defaults) {
  const text = /** @type {const} */ ({ type: 'string' });
  const options = { out: text, ...Object.fromEntries(Object.keys(defaults).map((k) => [k, text])) };
  const { values } = parseArgs({ options });
  const numbers = Object.fromEntries(
    Object.entries(defaults).map(([k, v]) => [k, values[k] === undefined ? v : Number(values[k])]),
  );
  const folder = values.out?.toString() ?? dirname(fileURLToPath(moduleUrl));
  for (const [name, rows] of Object.entries(generate(numbers))) {
    const written = writeJsonl(join(folder, `${name}.jsonl`), rows);
    process.stdout.write(`${written.path}  ${written.rows} rows  sha256 ${written.sha256}\n`);
  }
}
