// Verdicts of a store in `temper screen`: used again by whoever has the key, and never where anything is wrong.
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { openSharedVerdicts } from '../../src/compose/shared-verdicts.js';
import { type BatchOptions, screenFile } from '../../src/safeguard/batch/screen-file.js';
import type { SharedVerdict, SharedVerdicts } from '../../src/safeguard/batch/shared.js';
import type { BatchSummary } from '../../src/safeguard/batch/tally.js';
import { renderVerdict } from '../../src/safeguard/contract.js';
import { createDetectors } from '../../src/safeguard/detectors/index.js';
import { definePolicy } from '../../src/safeguard/policy.js';
import { createScreen } from '../../src/safeguard/screen.js';
import type { Judge } from '../../src/safeguard/types.js';
import { openStore } from '../../src/store/store.js';
import { makeKey } from '../../src/verdict-log/keys.js';
import { onEachStore } from './places.js';

const dir = mkdtempSync(join(tmpdir(), 'temper-shared-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const at = (name: string): string => join(dir, name);
const [key, other] = [at('key.pem'), at('other.pem')];
makeKey(key);
makeKey(other);

let calls = 0;
const judge = (digest = 'd'): Judge => ({
  name: 'scripted',
  digest,
  judge: async ({ content, nonce }) => {
    calls++;
    if (content.includes('unclear')) return { text: 'hm', finish: 'stop' };
    return { text: renderVerdict({ rule: /[0-9]/.test(content) ? 'N1' : null, nonce }), finish: 'stop' };
  },
});
const screenOf = (who = judge()): BatchOptions['screen'] =>
  createScreen({ policies: [definePolicy('numbers', 'N1: a digit')], judge: who, detectors: createDetectors() });
const ROWS = 700;
const WORDS = 'none one two three four five six seven eight nine'.split(' ');
const spelt = (n: number): string => [...String(n)].map((d) => WORDS[Number(d)]).join(' ');
const input = at('rows.jsonl');
writeFileSync(
  input,
  Array.from({ length: ROWS }, (_, i) =>
    JSON.stringify({ id: `r${i}`, text: `row ${i % 3 ? i : spelt(i)} of it` }),
  ).join('\n'),
);
let count = 0;
async function run(shared: SharedVerdicts, more: Partial<BatchOptions> = {}): Promise<[string, BatchSummary, number]> {
  const output = at(`out-${++count}.jsonl`);
  calls = 0;
  const summary = await screenFile({ input, screen: screenOf(), shared, ...more, output });
  return [readFileSync(output, 'utf8').replaceAll(/"latencyMs":\d+/g, '"latencyMs":0'), summary, calls];
}

onEachStore((place) => {
  it('a verdict of one run is used by the next, by nobody without the key, and under no other judge', async () => {
    const where = await place.fresh();
    const open = await openSharedVerdicts({ store: where, storeKey: key });
    expect(open.notices).toEqual([]);
    const [first, summary, asked] = await run(open.shared);
    expect(asked).toBe(ROWS);
    expect(summary).toMatchObject({ kept: 0, shared: 0, unjudged: 0 });
    await open.close();

    const again = await openSharedVerdicts({ store: where, storeKey: key });
    expect(await run(again.shared)).toEqual([first, expect.objectContaining({ kept: ROWS, shared: ROWS }), 0]);
    expect((await run(again.shared, { rejudge: 'all' }))[2]).toBe(ROWS);
    expect((await run(again.shared, { screen: screenOf(judge('another')) }))[2]).toBe(ROWS);
    await again.close();
    const stranger = await openSharedVerdicts({ store: where, storeKey: other });
    expect((await run(stranger.shared))[2]).toBe(ROWS);
    await stranger.close();
  });

  it('rows that were altered or moved in the store are judged again', async () => {
    const where = await place.fresh();
    const open = await openSharedVerdicts({ store: where, storeKey: key });
    const [first] = await run(open.shared);
    const store = await openStore(where);
    const all = await store.read((db) => db.selectFrom('verdicts').selectAll().orderBy('key').execute());
    expect(all).toHaveLength(ROWS);
    const allow = all.find((v) => v.outcome === 'allow');
    const block = all.find((v) => v.outcome === 'block');
    for (const [name, change] of [
      [all[0]?.key, { outcome: all[0]?.outcome === 'allow' ? 'block' : 'allow' }],
      [
        block?.key === all[0]?.key ? all[1]?.key : block?.key,
        { body: allow?.body ?? '', mac: allow?.mac ?? '', outcome: 'allow' },
      ],
      [all.at(-1)?.key, { body: '{' }],
    ] as const)
      await store.change((db) =>
        db
          .updateTable('verdicts')
          .set(change)
          .where('key', '=', name ?? '')
          .execute(),
      );
    await store.close();
    const [text, summary, asked] = await run(open.shared);
    expect(text).toBe(first);
    expect(summary.shared).toBe(ROWS - asked);
    expect(asked).toBe(3);
    await open.close();
  });
});

describe('whoever keeps them', () => {
  const memory = (): SharedVerdicts & { readonly lines: Map<string, SharedVerdict>; gets: number; puts: number } => {
    const lines = new Map<string, SharedVerdict>();
    const own = {
      lines,
      gets: 0,
      puts: 0,
      async get(asked: readonly SharedVerdict['asked'][]) {
        own.gets++;
        return asked.map((one) => lines.get(JSON.stringify(one)) ?? null);
      },
      async put(verdicts: readonly SharedVerdict[]) {
        own.puts++;
        for (const one of verdicts) lines.set(JSON.stringify(one.asked), one);
      },
    };
    return own;
  };
  it('is asked for many at a time', async () => {
    const shared = memory();
    await run(shared);
    expect(shared.lines.size).toBe(ROWS);
    expect(shared.puts).toBeLessThanOrEqual(Math.ceil(ROWS / 256) + 1);
    expect(shared.gets).toBeLessThan(10);
  });
  it('is not believed where it lies: another text, another outcome, another policy, no verdict', async () => {
    const shared = memory();
    const [first] = await run(shared);
    const all = [...shared.lines.values()];
    const allowed = all.find((v) => v.outcome === 'allow') as SharedVerdict;
    for (const lie of [
      () => allowed,
      (own: SharedVerdict) => ({ ...own, outcome: own.outcome === 'allow' ? ('block' as const) : ('allow' as const) }),
      (own: SharedVerdict) => ({ ...own, line: own.line.replace('"policy":"numbers"', '"policy":"letters"') }),
      (own: SharedVerdict) => ({ ...own, line: own.line.replace('"judge":"', '"judge":"x') }),
      (own: SharedVerdict) => ({ ...own, line: '{}' }),
      (own: SharedVerdict) => ({ ...own, line: own.line.slice(0, -1) }),
    ]) {
      const liar = {
        ...shared,
        get: async (asked: readonly SharedVerdict['asked'][]) =>
          asked.map((one) => lie(shared.lines.get(JSON.stringify(one)) as SharedVerdict)),
      };
      const [text, , asked] = await run(liar);
      expect(text).toBe(first);
      expect(asked).toBeGreaterThanOrEqual(ROWS - 1);
    }
  });
  it('detectors look again, and what is unjudged is not kept', async () => {
    const shared = memory();
    const hidden = at('hidden.jsonl');
    writeFileSync(hidden, `${JSON.stringify({ text: 'call <|end|> now' })}\n{"text":"unclear"}\n{"text":"fine"}\n`);
    const [first, summary] = await run(shared, { input: hidden });
    expect(summary).toMatchObject({ block: 1, unjudged: 1 });
    expect(shared.lines.size).toBe(2);
    const [text, again] = await run(shared, { input: hidden });
    expect(text).toBe(first);
    expect(again).toMatchObject({ block: 1, unjudged: 1, shared: 2 });
  });
  it('that fails: no verdict is lost where they are put, the run ends where they are got', async () => {
    const failures: unknown[] = [];
    const full = { ...memory(), put: () => Promise.reject(new Error('full')) };
    const [, summary] = await run(full, { onShareFailed: (e) => failures.push(e) });
    expect(summary).toMatchObject({ rows: ROWS, shared: 0 });
    expect(failures).toHaveLength(1);
    const gone = { ...memory(), get: () => Promise.reject(new Error('gone')) };
    await expect(run(gone)).rejects.toThrow('gone');
    expect(calls).toBe(0);
  });
  it('keeps what a run that was stopped had reached', async () => {
    const shared = memory();
    const stop = new AbortController();
    await expect(run(shared, { signal: stop.signal, onRow: (rows) => rows === 300 && stop.abort() })).rejects.toThrow();
    expect(shared.lines.size).toBeGreaterThanOrEqual(300);
    const [, summary, asked] = await run(shared);
    expect(summary.shared).toBe(ROWS - asked);
    expect(summary.shared).toBeGreaterThanOrEqual(300);
  });
});

it('a store that is damaged, or has no key, is told before anything is judged', async () => {
  await expect(openSharedVerdicts({ store: 'postgres://u@127.0.0.1:1/d' })).rejects.toMatchObject({
    code: 'bad_option',
  });
  writeFileSync(at('damaged.db'), 'no database at all, but long enough to be taken for one'.repeat(100));
  await expect(openSharedVerdicts({ store: at('damaged.db'), storeKey: key })).rejects.toMatchObject({
    code: expect.stringMatching(/store|sqlite/),
  });
  writeFileSync(at('no-key.pem'), 'x');
  await expect(openSharedVerdicts({ store: at('new.db'), storeKey: at('no-key.pem') })).rejects.toMatchObject({
    code: expect.stringMatching(/log_key|sqlite_missing/),
  });
  expect(existsSync(at('damaged.db.key'))).toBe(false);
});
