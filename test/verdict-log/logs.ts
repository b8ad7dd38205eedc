// Small logs for tests.
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import { type LogOptions, openVerdictLog, type VerdictLog } from '../../src/verdict-log/log.js';

/** A folder of the test file, gone after it. */
export function scratch(name: string): (...path: readonly string[]) => string {
  const dir = mkdtempSync(join(tmpdir(), `temper-${name}-`));
  afterAll(() => rmSync(dir, { recursive: true, force: true }));
  return (...path) => join(dir, ...path);
}
export const open = (dir: string, more: Partial<LogOptions> = {}): Promise<VerdictLog> =>
  openVerdictLog({ dir, by: 'test', ...more });
/** Records one after the other, each a group of its own; or all in one. */
export async function fill(log: VerdictLog, count: number, together = false): Promise<readonly string[]> {
  const append = (i: number) => log.append('verdict', { n: i, text: 'x'.repeat(i % 7) });
  if (together) return (await Promise.all(Array.from({ length: count }, (_, i) => append(i)))).map((r) => r.receipt);
  const receipts: string[] = [];
  for (let i = 0; i < count; i++) receipts.push((await append(i)).receipt);
  return receipts;
}
/** `log.json`, then the files of the streams. */
export const filesOf = (dir: string): readonly string[] => [
  'log.json',
  ...(readdirSync(dir, { recursive: true }) as string[]).filter((f) => f.endsWith('.jsonl')).sort(),
];
export const linesOf = (file: string): readonly string[] => readFileSync(file, 'utf8').split('\n').slice(0, -1);
