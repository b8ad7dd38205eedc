// Every way a file is read, on every kind of node that is no file, and on files that are too large.
import { execFileSync } from 'node:child_process';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { sha256File } from '../../src/base/digest.js';
import { INPUT_BYTES, type InputKind, inputPieces, readHead, readInput, readStream } from '../../src/base/inputs.js';
import { packageRoot } from '../../src/base/machine.js';

let dir: string;
const at = (name: string): string => join(dir, name);
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'inputs-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

async function drain(path: string): Promise<number> {
  let bytes = 0;
  for await (const piece of inputPieces(path)) bytes += piece.length;
  return bytes;
}
const readers: Readonly<Record<string, (path: string) => unknown>> = {
  readInput: (path) => readInput(path, 'config').length,
  readHead: (path) => readHead(path, 8).length,
  inputPieces: drain,
  sha256File,
};

describe.each(Object.entries(readers))('%s', (_, read) => {
  it('reads a file, also behind a link', async () => {
    writeFileSync(at('f'), 'abc');
    symlinkSync('f', at('link'));
    for (const name of ['f', 'link']) expect(await read(at(name))).toBeTruthy();
  });
  it.each([
    ['a FIFO', async (path: string) => execFileSync('mkfifo', [path])],
    ['a device without an end', async (path: string) => symlinkSync('/dev/zero', path)],
    [
      'a socket',
      (path: string) =>
        new Promise((done) => {
          const server = createServer().listen(path, () => done(server));
          server.unref();
        }),
    ],
  ] as const)('refuses %s at once', async (_name, make) => {
    await make(at('node'));
    const began = performance.now();
    await expect((async () => read(at('node')))()).rejects.toMatchObject({ code: 'file_not_regular', exitCode: 2 });
    expect(performance.now() - began).toBeLessThan(20_000); // a FIFO would wait for good
  });
  it('what is not there or a folder says so', async () => {
    mkdirSync(at('folder'));
    await expect((async () => read(at('missing')))()).rejects.toMatchObject({ code: 'ENOENT' });
    await expect((async () => read(at('folder')))()).rejects.toMatchObject({ code: 'EISDIR' });
  });
});

it.each(Object.entries(INPUT_BYTES))('a %s file has at most %i bytes', (kind, most) => {
  writeFileSync(at('f'), '');
  truncateSync(at('f'), most + 1);
  expect(() => readInput(at('f'), kind as InputKind)).toThrow(/more than \d+ bytes/);
});
it('files that do not say how large they are are read to their end', () => {
  expect(readInput('/proc/self/status', 'config').toString()).toContain('VmRSS');
});
it('a stated stream has a limit too', async () => {
  expect(await readStream(Readable.from(['ä', Buffer.from('b')]), 'stdin')).toBe('äb');
  const endless = Readable.from(
    (function* () {
      for (;;) yield Buffer.alloc(1 << 20);
    })(),
  );
  await expect(readStream(endless, 'stdin')).rejects.toMatchObject({ code: 'file_too_large' });
});

/** Files of the package or of the machine, and what lock.ts, folder-digest.ts, hub/, infer/ and serve/ have written. */
const OWN = [
  'base/inputs.ts',
  'base/files.ts',
  'base/machine.ts',
  'base/outputs.ts',
  'base/temporary.ts',
  'base/folder-digest.ts',
  'data/sources/parquet/column.ts',
  'bench/private-memory.ts',
  'cli/main.ts',
  'data/sources/parquet.ts', // reads at places of what inputs.ts opened
  'base/lock.ts',
  'demo/rows.ts',
  'hub/folder.ts',
  'hub/hash-worker.ts',
  'hub/part.ts',
  'infer/prefix-files.ts', // of the size it wrote, and with its own checksum
  'report/plots.ts',
  'runs/code-digest.ts', // code of this package
  'safeguard/batch/kept.ts',
  'safeguard/policies/init.ts',
  'serve/openapi.ts',
  'serve/page-files.ts',
  'serve/response-files.ts',
];
it('no file opens another one for reading by itself', () => {
  const src = join(packageRoot, 'src');
  const own = (readdirSync(src, { recursive: true }) as string[]).filter((name) => {
    if (!name.endsWith('.ts')) return false;
    const text = readFileSync(join(src, name), 'utf8');
    return [
      /\b(?:readFileSync|createReadStream|copyFileSync|readSync)\(/,
      /\breadFile\([^,]+, 'utf8'/,
      /\bopen(?:Sync)?\([^)]*, 'r'\)/,
    ].some((read) => read.test(text));
  });
  expect(own.filter((name) => !OWN.includes(name))).toEqual([]);
});
