// node bench/gguf.mjs [--model /data/random-20b] [--adapter DIR] [--format gguf] [--out DIR]: writes a model as GGUF
// and says how fast, with which private memory, beside a plain sequential write of as many bytes to the same disk. The
// export is removed afterwards. Needs the build.
import { closeSync, fsyncSync, mkdtempSync, openSync, rmSync, statSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { PrivateMemory } from '../dist/bench/private-memory.js';
import { exportRun } from '../dist/export/export.js';

const { values: o } = parseArgs({
  options: {
    model: { type: 'string', default: 'models/nano' },
    adapter: { type: 'string' },
    format: { type: 'string', default: 'gguf' },
    out: { type: 'string', default: tmpdir() },
  },
});
const folder = mkdtempSync(join(o.out, 'temper-gguf-'));

/** Seconds for a plain write of that many bytes, flushed. */
function plainWrite(bytes) {
  const path = join(folder, 'plain'),
    piece = Buffer.alloc(2 ** 24, 0x5a),
    from = performance.now(),
    fd = openSync(path, 'w');
  for (let at = 0; at < bytes; at += piece.length) writeSync(fd, piece, 0, Math.min(piece.length, bytes - at));
  fsyncSync(fd);
  closeSync(fd);
  const seconds = (performance.now() - from) / 1000;
  rmSync(path);
  return seconds;
}

try {
  const memory = new PrivateMemory();
  memory.reset();
  const from = performance.now();
  const { exports } = await exportRun({
    model: o.model,
    ...(o.adapter ? { adapter: o.adapter } : {}),
    format: [o.format],
    out: join(folder, 'export'),
  });
  const seconds = (performance.now() - from) / 1000,
    peakBytes = memory.peak();
  const bytes = exports[0].bytes,
    file = Object.keys(exports[0].files).find((name) => name.endsWith('.gguf'));
  const size = statSync(join(folder, 'export', file)).size;
  rmSync(join(folder, 'export'), { recursive: true });
  const plain = plainWrite(size);
  const perSecond = (s) => Math.round(size / s / 1e6);
  process.stdout.write(
    `${JSON.stringify({
      bench: 'gguf',
      model: o.model,
      adapter: o.adapter ?? null,
      format: o.format,
      bytes,
      seconds: Number(seconds.toFixed(2)),
      mbPerSecond: perSecond(seconds),
      plainWriteMbPerSecond: perSecond(plain),
      privateMib: Math.round(peakBytes / 2 ** 20),
    })}\n`,
  );
} finally {
  rmSync(folder, { recursive: true, force: true });
}
