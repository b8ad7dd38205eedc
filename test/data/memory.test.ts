// A dataset of 200 MB in a process of its own: what it holds is 5 bytes a token, not the rows.
import { execFileSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';

const dir = mkdtempSync(join(tmpdir(), 'temper-data-memory-'));
afterAll(() => rmSync(dir, { recursive: true }));
const dist = join(import.meta.dirname, '../../dist/data');

/** Rows of 500 token ids until the file has so many bytes. */
function generate(name: string, bytes: number): string {
  const path = join(dir, name);
  const file = openSync(path, 'w');
  const rows = Array.from({ length: 2000 }, (_, r) =>
    JSON.stringify({ tokens: Array.from({ length: 500 }, (_, i) => (r * 7919 + i * 104_729) % 200_000) }),
  );
  const block = Buffer.from(`${rows.join('\n')}\n`);
  for (let at = 0; at < bytes; at += block.length) writeSync(file, block);
  closeSync(file);
  return path;
}

interface Measured {
  readonly tokens: number;
  readonly storeBytes: number;
  readonly peakRss: number;
}
/** Peak resident memory of a process that reads the file whole. */
function measure(code: string): Measured {
  const script = `
    const loss = { analysis: 1, commentary: 1, final: 1 };
    const context = { tokenizer: null, vocabSize: 200000, maxTokens: 4096, loss };
    const r = await (async () => { ${code} })();
    console.log(JSON.stringify({ ...r, peakRss: process.resourceUsage().maxRSS * 1024 }));`;
  return JSON.parse(
    execFileSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' }),
  ) as Measured;
}
const load = (path: string): Measured =>
  measure(`
    const { loadDataset } = await import(${JSON.stringify(join(dist, 'load.js'))});
    const { examples } = await loadDataset([{ path: ${JSON.stringify(path)}, format: 'tokens' }], context);
    return { tokens: examples.tokens, storeBytes: examples.bytes };`);
const check = (path: string): Measured =>
  measure(`
    const { checkFile } = await import(${JSON.stringify(join(dist, 'check.js'))});
    const { tokens } = await checkFile({ path: ${JSON.stringify(path)}, format: 'tokens' }, context);
    return { tokens, storeBytes: 0 };`);

const MiB = 2 ** 20;
/** What V8 lets lie of the rows that went by. */
const SLACK = 120 * MiB;

it('loading holds 5 bytes a token and what the collector has not yet taken', () => {
  const small = load(generate('small.jsonl', 2 * MiB));
  const big = load(generate('big.jsonl', 200 * MiB));
  expect(big.tokens).toBeGreaterThan(25e6);
  expect(big.storeBytes / big.tokens).toBeLessThan(5.2);
  expect(big.peakRss - small.peakRss).toBeLessThan(big.storeBytes + SLACK);
  // The bound can fail: the rows as objects take 8 bytes a token for the ids alone, and weights as much again.
  expect(big.storeBytes + SLACK).toBeLessThan(16 * big.tokens);
});

it('a line of 60 MB costs a few times its bytes, not what its tokens would take', () => {
  const row = (words: number): string => {
    const path = join(dir, `line-${words}.jsonl`);
    const messages = [
      { role: 'user', content: 'word and '.repeat(words) },
      { role: 'assistant', content: 'b' },
    ];
    writeFileSync(path, JSON.stringify({ messages }));
    return path;
  };
  const read = (path: string): Measured =>
    measure(`
      const { checkFile } = await import(${JSON.stringify(join(dist, 'check.js'))});
      const { loadTokenizer } = await import(${JSON.stringify(join(dist, '../harmony/tokenizer.js'))});
      const tokenizer = loadTokenizer(${JSON.stringify(join(dist, '../../models/nano'))});
      const with_ = { ...context, tokenizer: () => tokenizer };
      const { badRows } = await checkFile({ path: ${JSON.stringify(path)}, format: 'chat' }, with_);
      return { tokens: badRows, storeBytes: 0 };`);
  const [small, big] = [read(row(1)), read(row((60 * MiB) / 9))];
  expect([small.tokens, big.tokens]).toEqual([0, 1]);
  // Bytes, joined bytes, text, value; its 30 million tokens, with a place and a mask each, take 9 bytes a token more.
  expect(big.peakRss - small.peakRss).toBeLessThan(6 * 60 * MiB);
});

it('checking holds nothing of the rows', () => {
  expect(check(join(dir, 'big.jsonl')).peakRss - check(join(dir, 'small.jsonl')).peakRss).toBeLessThan(SLACK);
});
