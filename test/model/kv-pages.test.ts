// The books of the cache's pages, against a plain account of who may read what.
import { expect, it } from 'vitest';
import { PAGE_TOKENS, PageTable, pagesFor } from '../../src/model/kv-pages.js';

/** Pseudo-random integers in [0, n). */
function chance(seed: number): (n: number) => number {
  let state = seed;
  return (n) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
}

it('takes pages as a sequence grows, lowest first, and gives them back', () => {
  const t = new PageTable(2, 10 * PAGE_TOKENS, 8);
  expect([t.free, t.used, t.touched]).toEqual([8, 0, 0]);
  expect(t.grow(0, 1)).toBeNull();
  t.advance(0, 1);
  expect([t.free, t.used]).toEqual([7, 1]);
  t.grow(0, PAGE_TOKENS);
  t.advance(0, PAGE_TOKENS);
  expect(t.used).toBe(1);
  t.grow(0, PAGE_TOKENS + 1);
  t.advance(0, PAGE_TOKENS + 1);
  t.grow(1, 3 * PAGE_TOKENS);
  t.advance(1, 3 * PAGE_TOKENS);
  expect([t.free, t.used, t.touched]).toEqual([3, 5, 5]);
  expect(t.row(1, 2 * PAGE_TOKENS + 7)).toBe(4 * PAGE_TOKENS + 7);
  expect([...t.table([1, 0], 2)]).toEqual([2, 3, 0, 1]);
  t.cut(0, 0);
  expect([t.free, t.used, t.touched]).toEqual([5, 3, 5]);
  t.grow(1, 5 * PAGE_TOKENS);
  expect(t.touched).toBe(5); // what came back goes out first
});

it('shares pages and copies the one that is written to', () => {
  const t = new PageTable(3, 10 * PAGE_TOKENS, 20),
    n = 2 * PAGE_TOKENS + 5;
  t.grow(0, n);
  t.advance(0, n);
  t.share(0, 1);
  t.share(0, 2);
  expect([t.used, t.length(1), t.length(2)]).toEqual([3, n, n]);
  expect(t.grow(1, n + 1)).toEqual({ from: 2, to: 3, tokens: 5 });
  t.advance(1, n + 1);
  expect(t.grow(1, n + 2)).toBeNull();
  expect([...t.table([0, 1], 3)]).toEqual([0, 1, 2, 0, 1, 3]);
  expect(t.grow(0, n + 1)).toEqual({ from: 2, to: 4, tokens: 5 });
  t.advance(0, n + 1);
  expect(t.grow(2, n + 1)).toBeNull(); // the last reader writes in place
  t.cut(0, 0);
  expect(t.used).toBe(4);
  t.cut(2, 0);
  expect(t.used).toBe(3);
  t.cut(1, 0);
  expect([t.used, t.free]).toEqual([0, 20]);
  t.grow(0, 2 * PAGE_TOKENS);
  t.advance(0, 2 * PAGE_TOKENS);
  t.share(0, 1);
  expect(t.grow(1, 2 * PAGE_TOKENS + 1)).toBeNull(); // full pages are never copied
});

it('a failed pass leaves pages that a reset returns; growing twice takes them once', () => {
  const t = new PageTable(1, 10 * PAGE_TOKENS, 4);
  t.grow(0, 100);
  t.grow(0, 100);
  expect(t.used).toBe(2);
  t.cut(0, 0);
  expect(t.used).toBe(0);
});

it('refuses what has no page, and keeps promises', () => {
  const t = new PageTable(3, 10 * PAGE_TOKENS, 6);
  const full = { code: 'cache_full', details: { limit: 6 } };
  expect(() => t.grow(0, 10 * PAGE_TOKENS + 1)).toThrow(expect.objectContaining({ code: 'cache_full' }));
  expect(t.promise(0, 4 * PAGE_TOKENS)).toBe(true);
  expect(t.free).toBe(2);
  expect(t.promise(1, 3 * PAGE_TOKENS)).toBe(false);
  expect(t.free).toBe(2);
  expect(t.promise(1, 2 * PAGE_TOKENS)).toBe(true);
  expect(() => t.grow(2, 1)).toThrow(expect.objectContaining({ ...full, details: { need: 1, room: 0, limit: 6 } }));
  expect(t.used).toBe(0);
  t.grow(0, 4 * PAGE_TOKENS);
  t.advance(0, 4 * PAGE_TOKENS);
  expect(() => t.grow(0, 4 * PAGE_TOKENS + 1)).toThrow(expect.objectContaining({ code: 'cache_full' }));
  t.cut(0, 0);
  expect(t.free).toBe(4);
  // A promise holds although its page is lent to another reader …
  t.grow(1, 70);
  t.advance(1, 70);
  t.share(1, 0);
  expect(t.free).toBe(3);
  expect(t.promise(2, 3 * PAGE_TOKENS)).toBe(true);
  expect(t.grow(1, 71)).toMatchObject({ tokens: 6 });
  // … and is not lent when there would be no other one for it.
  const u = new PageTable(2, 2 * PAGE_TOKENS, 2);
  expect(u.promise(0, 2 * PAGE_TOKENS)).toBe(true);
  u.grow(0, 70);
  u.advance(0, 70);
  expect(() => u.share(0, 1)).toThrow(expect.objectContaining({ code: 'cache_full' }));
  expect([u.length(1), u.used]).toEqual([0, 2]);
});

it.each([1, 2, 3, 4])(
  'random starts, growth, forks and ends: every token is read where it was written (seed %i)',
  (seed) => {
    const pick = chance(seed),
      slots = 6,
      capacity = 7 * PAGE_TOKENS,
      limit = 20;
    const t = new PageTable(slots, capacity, limit);
    const memory = new Int32Array(limit * PAGE_TOKENS);
    const texts: number[][] = Array.from({ length: slots }, () => []);
    const promised = new Int32Array(slots);
    let next = 1,
      refused = 0,
      copied = 0;
    for (let step = 0; step < 1500; step++) {
      const slot = pick(slots),
        text = texts[slot] ?? [],
        other = pick(slots);
      const kind = pick(10);
      let wanted = Number.POSITIVE_INFINITY;
      try {
        if (kind < 6) {
          const n = Math.min(1 + (pick(3) > 0 ? pick(4) : pick(100)), capacity - text.length);
          wanted = text.length + n;
          const copy = t.grow(slot, wanted);
          if (copy) {
            memory.copyWithin(copy.to * PAGE_TOKENS, copy.from * PAGE_TOKENS, copy.from * PAGE_TOKENS + copy.tokens);
            copied++;
          }
          for (let i = 0; i < n; i++) {
            memory[t.row(slot, text.length)] = next;
            text.push(next++);
          }
          t.advance(slot, text.length);
        } else if (kind === 6) {
          if (t.promise(slot, text.length + 100)) promised[slot] = Math.min(capacity, text.length + 100);
        } else if (kind < 9 && other !== slot) {
          texts[other] = [];
          const had = promised[other] ?? 0;
          promised[other] = 0; // unless it succeeds
          t.share(slot, other);
          promised[other] = had;
          texts[other] = [...text];
        } else {
          t.cut(slot, pick(2) * Math.min(text.length, 10));
          texts[slot] = text.slice(0, t.length(slot));
          promised[slot] = 0;
        }
      } catch (e) {
        expect(e).toMatchObject({ code: 'cache_full' });
        expect(wanted).toBeGreaterThan(promised[slot] ?? 0); // what was promised is there
        refused++;
      }
      for (let s = 0; s < slots; s++)
        expect(
          (texts[s] ?? []).every((x, i) => memory[t.row(s, i)] === x),
          `slot ${s} at step ${step}`,
        ).toBe(true);
      const used = new Set(
        texts.flatMap((x, s) => Array.from({ length: pagesFor(x.length) }, (_, i) => t.row(s, i * PAGE_TOKENS))),
      );
      expect(t.used).toBeGreaterThanOrEqual(used.size);
      expect(t.free).toBeGreaterThanOrEqual(0);
      expect(t.touched).toBeLessThanOrEqual(limit);
    }
    expect(refused).toBeGreaterThan(0);
    expect(copied).toBeGreaterThan(10);
    for (let s = 0; s < slots; s++) t.cut(s, 0);
    expect([t.used, t.free]).toEqual([0, limit]);
  },
);
