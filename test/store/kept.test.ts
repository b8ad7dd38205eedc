// What is kept for later: documents within their bounds, verdicts that nobody can forge, sessions that end.
import { spawn } from 'node:child_process';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { createDocuments } from '../../src/store/documents.js';
import { createSessions, IDLE_MS, LONGEST_MS } from '../../src/store/sessions.js';
import { openStore } from '../../src/store/store.js';
import { createVerdictStore, verdictKey } from '../../src/store/verdicts.js';
import { onEachStore } from './places.js';

onEachStore((place) => {
  it('keeps documents within number, bytes and time, the oldest go first, each for its owner alone', async () => {
    let now = 0;
    const store = await openStore(await place.fresh());
    const kept = createDocuments(store, { entries: 3, bytes: 100, keepMs: 1000 }, () => now);
    for (const id of ['a', 'b', 'c', 'd']) {
      now++;
      await kept.put(id, id === 'b' ? null : 'ann', `body of ${id}`);
    }
    expect(await kept.get('a', 'ann')).toBeNull();
    expect(await kept.get('b', null)).toBe('body of b');
    expect([await kept.get('b', 'ann'), await kept.get('c', 'ben'), await kept.get('c', null)]).toEqual([
      null,
      null,
      null,
    ]);
    now++;
    await kept.put('e', 'ann', 'é'.repeat(46)); // 92 bytes
    expect([await kept.get('d', 'ann'), await kept.get('e', 'ann')]).toEqual([null, 'é'.repeat(46)]);
    await kept.put('f', 'ann', 'x'.repeat(101));
    expect(await kept.get('f', 'ann')).toBeNull();
    await kept.put('e', 'ann', 'again');
    expect(await kept.get('e', 'ann')).toBe('again');
    const changes = [
      await kept.replace('e', 'ann', 'changed', 'before'),
      await kept.replace('e', 'ben', 'changed'),
      await kept.replace('e', 'ann', 'changed', 'again'),
      await kept.replace('no', 'ann', 'changed'),
    ];
    expect([changes, await kept.get('e', 'ann')]).toEqual([[false, false, true, false], 'changed']);
    expect([await kept.delete('e', 'ben'), await kept.delete('e', 'ann'), await kept.delete('e', 'ann')]).toEqual([
      ...[false, true, false],
    ]);
    await kept.put('g', 'ann', 'g');
    now += 1000;
    expect(await kept.get('g', 'ann')).toBeNull();
    // Many at once stay within the bounds.
    await Promise.all(Array.from({ length: 12 }, (_, i) => kept.put(`h${i}`, null, 'x'.repeat(30))));
    const rows = await store.read((db) => db.selectFrom('documents').select('id').execute());
    expect(rows.length).toBe(3);
    await store.close();
  });

  it('uses verdicts again while they count, and none that was altered, moved or made elsewhere', async () => {
    let now = 0;
    const store = await openStore(await place.fresh());
    const secret = Buffer.from('a secret of sixteen bytes');
    const verdicts = createVerdictStore(store, { secret, allowMs: 100, blockMs: 1000, now: () => now });
    const key = (text: string): string => verdictKey({ text, policy: 'p', effort: null });
    expect(key('a')).toBe(verdictKey({ effort: null, policy: 'p', text: 'a' }));
    expect(key('a')).not.toBe(verdictKey({ effort: 'null', policy: 'p', text: 'a' }));
    const many = Array.from({ length: 250 }, (_, i) => ({
      key: key(`t${i}`),
      outcome: 'allow' as const,
      body: `{"i":${i}}`,
    }));
    await verdicts.put([{ key: key('b'), outcome: 'block', body: '{}' }, ...many]);
    const got = await verdicts.get([key('none'), key('b'), ...many.map((m) => m.key)]);
    expect(got.slice(0, 3)).toEqual([null, { outcome: 'block', body: '{}' }, { outcome: 'allow', body: '{"i":0}' }]);
    expect(got.filter((g) => g === null)).toHaveLength(1);
    // A row of one text under the name of another, an outcome turned round, a longer time, another secret.
    const [a, b, c] = [key('t0'), key('b'), key('t2')];
    await store.change((db) => db.deleteFrom('verdicts').where('key', '=', key('t1')).execute());
    await store.change((db) =>
      db
        .updateTable('verdicts')
        .set({ key: key('t1') })
        .where('key', '=', a)
        .execute(),
    );
    await store.change((db) => db.updateTable('verdicts').set({ outcome: 'allow' }).where('key', '=', b).execute());
    await store.change((db) => db.updateTable('verdicts').set({ expires_at: 9e15 }).where('key', '=', c).execute());
    expect(await verdicts.get([a, key('t1'), b, c])).toEqual([null, null, null, null]);
    const others = createVerdictStore(store, { secret: Buffer.from('another secret of bytes'), now: () => now });
    expect(await others.get([key('t5')])).toEqual([null]);
    expect(() => createVerdictStore(store, { secret: Buffer.from('short') })).toThrow(/fewer than 16/);
    await verdicts.put([{ key: b, outcome: 'block', body: '{"new":1}' }]);
    now = 100;
    expect(await verdicts.get([key('t5'), b])).toEqual([null, { outcome: 'block', body: '{"new":1}' }]);
    expect(await verdicts.sweep()).toBe(248); // t0 was moved over t1, t2's time was altered
    await store.close();
  });

  it('ends sessions by time, idleness, signing out and a key that is gone, and stores no token', async () => {
    let now = 0;
    const store = await openStore(await place.fresh());
    const sessions = createSessions(store, () => now);
    const known = (): boolean => true;
    const { token, csrf } = await sessions.begin('ann', 'digest-of-the-key');
    expect(await sessions.find(token, (name, key) => name === 'ann' && key === 'digest-of-the-key')).toEqual({
      ...{ name: 'ann', csrf },
    });
    expect(await sessions.find(token, () => false)).toBeNull();
    expect(await sessions.find(`${token}x`, known)).toBeNull();
    const rows = await store.read((db) => db.selectFrom('review_sessions').selectAll().execute());
    expect(JSON.stringify(rows)).not.toContain(token);
    for (now = 0; now < LONGEST_MS; now += IDLE_MS) expect(await sessions.find(token, known)).not.toBeNull();
    now = LONGEST_MS + 1;
    expect(await sessions.find(token, known)).toBeNull();
    const second = await sessions.begin('ann', 'k');
    await sessions.end(second.token);
    expect(await sessions.find(second.token, known)).toBeNull();
    const third = await sessions.begin('ann', 'k');
    now += IDLE_MS + 1;
    expect(await sessions.find(third.token, known)).toBeNull();
    await sessions.begin('ben', 'k');
    expect(await store.read((db) => db.selectFrom('review_sessions').select('name').execute())).toEqual([
      { name: 'ben' },
    ]);
    await store.close();
  });

  it('has what it said it keeps after kill -9, whole', async () => {
    const where = await place.fresh();
    await (await openStore(where)).close();
    const url = (file: string): string => pathToFileURL(join(packageRoot, 'dist', 'store', file)).href;
    // Writes without an end, and says each time what is kept.
    const code = `
      const { openStore } = await import(${JSON.stringify(url('store.js'))});
      const { createDocuments } = await import(${JSON.stringify(url('documents.js'))});
      const store = await openStore(${JSON.stringify(where)});
      const kept = createDocuments(store, { entries: 1e6, bytes: 2 ** 40, keepMs: 1e12 });
      for (let i = 0; ; i++) {
        await Promise.all([0, 1, 2].map((j) => kept.put(i + '-' + j, null, String(i).repeat(3000))));
        process.stdout.write(i + '\\n');
      }`;
    const script = join(mkdtempSync(join(tmpdir(), 'temper-store-')), 'writes.mjs');
    writeFileSync(script, code);
    const child = spawn(process.execPath, [script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let told = '';
    await new Promise<void>((ended) => {
      child.stdout.on('data', (text: Buffer) => {
        told += text.toString();
        if (told.split('\n').length > 6) child.kill('SIGKILL');
      });
      child.once('close', () => ended());
    });
    const last = Number(told.trim().split('\n').at(-1));
    expect(last).toBeGreaterThanOrEqual(4);
    const store = await openStore(where);
    const kept = createDocuments(store, { entries: 1e6, bytes: 2 ** 40, keepMs: 1e12 });
    for (let i = 0; i <= last; i++)
      for (const j of [0, 1, 2]) expect(await kept.get(`${i}-${j}`, null)).toBe(String(i).repeat(3000));
    const all = await store.read((db) => db.selectFrom('documents').select(['id', 'body']).execute());
    for (const { id, body } of all) expect(body).toBe((id.split('-')[0] as string).repeat(3000));
    await store.close();
  });
});

describe('a verdict’s name', () => {
  it('differs wherever a part does', () => {
    const names = [{}, { a: 'b' }, { a: null }, { a: 1 }, { a: '1' }, { b: 'a' }, { a: 'b', c: '' }].map((p) =>
      verdictKey(p as Record<string, string>),
    );
    expect(new Set(names).size).toBe(names.length);
  });
});
