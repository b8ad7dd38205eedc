// The peer's programs are played by scripts that check their arguments and answer as llama.cpp's do.
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { runPeer } from '../../src/bench/peer.js';

const folder = mkdtempSync(join(tmpdir(), 'temper-peer-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A program that prints `answer` (JavaScript over `args`). */
function program(name: string, answer: string): string {
  const path = join(folder, name);
  writeFileSync(
    path,
    `#!${process.execPath}\nconst args = process.argv.slice(2), after = (n) => args[args.indexOf(n) + 1];\n${answer}\n`,
  );
  chmodSync(path, 0o755);
  return path;
}
const single = program(
  'single',
  'console.log(JSON.stringify([{ avg_ts: Number(after("-p")) * 1000 + Number(after("-n")) + ' +
    '(args.includes("-d") ? Number(after("-d")) / 10 : 0) }]))',
);
const batched = program(
  'batched',
  `
  const [pp, tg, pl, c] = ['-npp', '-ntg', '-npl', '-c'].map((n) => Number(after(n)));
  if (pp < 1 || c < pl * (pp + tg) || c % (256 * pl) || after('--output-format') !== 'jsonl') process.exit(3);
  console.log('a line of its log');
  console.log(JSON.stringify({ pp, tg, pl, speed_tg: pl * 100 + pp }));`,
);
const peer = { llamaBench: single, llamaBatchedBench: batched, gguf: 'x.gguf', threads: 2 };

test('one sequence goes to llama-bench, several to llama-batched-bench', () => {
  expect(runPeer(peer, { prefill: 512 })).toBe(512_000);
  expect(runPeer(peer, { decode: 32, depth: 50, sequences: 1 })).toBe(37);
  expect(runPeer(peer, { decode: 32, depth: 0, sequences: 16 })).toBe(1601);
  expect(runPeer(peer, { decode: 32, depth: 2048, sequences: 4 })).toBe(2448);
});

test('a row whose program is not given has no peer', () => {
  expect(
    runPeer({ llamaBench: single, gguf: 'x', threads: 1 }, { decode: 32, depth: 0, sequences: 4 }),
  ).toBeUndefined();
  expect(runPeer({ llamaBatchedBench: batched, gguf: 'x', threads: 1 }, { prefill: 8 })).toBeUndefined();
});

test.each([
  ['that fails', program('fails', 'console.error("no such file"); process.exit(1)'), 'exit code 1: no such file'],
  ['that prints no JSON', program('text', 'console.log("{ hello")'), 'its output is not JSON'],
  ['that prints no rate', program('empty', 'console.log(JSON.stringify({ pl: 4 }))'), 'its output has no speed_tg'],
  ['that prints nothing', program('silent', ''), 'its output has no speed_tg'],
])('a program %s is one line', (_, path, message) => {
  expect(() =>
    runPeer({ llamaBatchedBench: path, gguf: 'x', threads: 1 }, { decode: 1, depth: 0, sequences: 4 }),
  ).toThrow(
    expect.objectContaining({ code: 'peer_failed', message: expect.stringContaining(message) as string }) as Error,
  );
});
