// A pull of one file of 1 GB from a local server, its sha256 checked, beside curl and sha256sum on the same file from
// the same server, in turns. Writes nothing but a temporary folder.
// usage: node bench/pull.mjs [--bytes N] [--rounds N] [--json]
import { execFileSync, fork } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream, mkdtempSync, rmSync, statSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const COMMIT = 'c0ffee0123456789c0ffee0123456789c0ffee01';

/** The child: a hub of one file, given in ranges from the disk. */
function serve(file, digest) {
  const { size } = statSync(file);
  const json = (response, value) =>
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(value));
  const server = createServer((request, response) => {
    const { url } = request;
    if (url.includes('/revision/')) return json(response, { sha: COMMIT });
    if (url.includes('/tree/'))
      return json(response, [
        { type: 'file', path: 'model.bin', size, oid: 'e'.repeat(40), lfs: { oid: digest, size, pointerSize: 130 } },
      ]);
    const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? [];
    const [start, end] = from === undefined ? [0, size - 1] : [Number(from), Number(to)];
    response.writeHead(from === undefined ? 200 : 206, {
      'content-length': end - start + 1,
      'accept-ranges': 'bytes',
      ...(from === undefined ? {} : { 'content-range': `bytes ${start}-${end}/${size}` }),
    });
    createReadStream(file, { start, end, highWaterMark: 1 << 20 }).pipe(response);
  });
  server.listen(0, '127.0.0.1', () =>
    process.send?.(/** @type {import('node:net').AddressInfo} */ (server.address()).port),
  );
}

async function makeFile(file, bytes) {
  const hash = createHash('sha256');
  const handle = await open(file, 'w');
  const block = Buffer.alloc(1 << 20);
  for (let at = 0, x = 1; at < bytes; at += block.length) {
    for (let i = 0; i < block.length; i += 4) {
      x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
      block.writeUInt32LE(x, i);
    }
    const piece = block.subarray(0, Math.min(block.length, bytes - at));
    await handle.write(piece);
    hash.update(piece);
  }
  await handle.close();
  return hash.digest('hex');
}

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];

async function main() {
  const { values } = parseArgs({
    options: {
      bytes: { type: 'string', default: '1000000000' },
      rounds: { type: 'string', default: '5' },
      json: { type: 'boolean', default: false },
    },
  });
  const [bytes, rounds] = [Number(values.bytes), Number(values.rounds)];
  const folder = mkdtempSync(join(tmpdir(), 'bench-pull-'));
  try {
    const file = join(folder, 'source.bin');
    const digest = await makeFile(file, bytes);
    const server = fork(fileURLToPath(import.meta.url), ['--serve', file, digest]);
    const port = await new Promise((done) => server.once('message', done));
    const url = `http://127.0.0.1:${port}`;
    const { pull } = await import('../dist/index.js');
    const [ours, theirs] = [[], []];
    for (let i = 0; i < rounds; i++) {
      const to = join(folder, 'curl.bin');
      let began = performance.now();
      execFileSync('curl', ['-s', '-o', to, `${url}/o/n/resolve/${COMMIT}/model.bin`]);
      const line = execFileSync('sha256sum', [to]).toString();
      theirs.push((performance.now() - began) / 1000);
      if (!line.startsWith(digest)) throw new Error('curl: other bytes');
      rmSync(to);
      began = performance.now();
      await pull({ repo: 'o/n', dir: join(folder, 'pulled'), endpoint: url });
      ours.push((performance.now() - began) / 1000);
      rmSync(join(folder, 'pulled'), { recursive: true });
    }
    server.kill();
    const [a, b] = [median(theirs), median(ours)];
    const result = {
      bytes,
      rounds,
      curlSeconds: theirs,
      pullSeconds: ours,
      curlBytesPerSecond: bytes / a,
      pullBytesPerSecond: bytes / b,
      share: a / b,
    };
    if (values.json) console.log(JSON.stringify(result));
    else
      console.log(
        `curl + sha256sum ${(bytes / a / 1e6).toFixed(0)} MB/s, temper pull ${(bytes / b / 1e6).toFixed(0)} MB/s: ` +
          `${((100 * a) / b).toFixed(0)} % (medians of ${rounds})`,
      );
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

if (process.argv[2] === '--serve') serve(process.argv[3], process.argv[4]);
else await main();
