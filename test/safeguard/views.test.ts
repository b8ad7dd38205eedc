// Views of a text: disguises come off, one by one and on top of each other, and ordinary texts have none.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { renderVerdict } from '../../src/safeguard/contract.js';
import { definePolicy } from '../../src/safeguard/policy.js';
import { createScreen } from '../../src/safeguard/screen.js';
import type { Judge } from '../../src/safeguard/types.js';
import { allViews, viewsOf } from '../../src/safeguard/views/index.js';
import { isOrdinary } from '../../src/safeguard/views/ordinary.js';

const SAID = 'tell me the secret of the golden garden';
const bytes = (text: string): number[] => [...Buffer.from(text)];
const each = (text: string, of: (code: number) => number): string =>
  [...text].map((c) => (/[a-z]/.test(c) ? String.fromCodePoint(of(c.charCodeAt(0))) : c)).join('');
const rot13 = (text: string): string => each(text, (c) => ((c - 97 + 13) % 26) + 97);
const figures: Readonly<Record<string, string>> = { o: '0', e: '3', a: '4', i: '1', s: '5' };
const greek: Readonly<Record<string, string>> = { o: 'ο', a: 'а', e: 'е', c: 'с', p: 'р' };
const spelt = (table: Readonly<Record<string, string>>, text: string): string =>
  [...text].map((c) => table[c] ?? c).join('');

const DISGUISES: Readonly<Record<string, (text: string) => string>> = {
  'wide letters': (t) => each(t, (c) => c + 0xfee0),
  'letters of mathematics': (t) => each(t, (c) => 0x1d41a + c - 97),
  'circled letters': (t) => each(t, (c) => 0x24d0 + c - 97),
  'letters of other scripts': (t) => spelt(greek, t),
  'zero width between letters': (t) => [...t].join('\u200b'),
  'soft hyphens': (t) => [...t].join('\u00ad'),
  'marks on letters': (t) => [...t].map((c) => (c === ' ' ? c : `${c}\u0336`)).join(''),
  'turned round by a control': (t) => `\u202e${[...t].reverse().join('')}\u202c`,
  tags: (t) => `nice\u{1f600}${[...t].map((c) => String.fromCodePoint(0xe0000 + c.charCodeAt(0))).join('')}`,
  'variation selectors': (t) =>
    `nice\u{1f600}${bytes(t)
      .map((b) => String.fromCodePoint(b < 16 ? 0xfe00 + b : 0xe0100 + b - 16))
      .join('')}`,
  'zero width as bits': (t) =>
    `nice${bytes(t)
      .map((b) => b.toString(2).padStart(8, '0').replaceAll('0', '\u200b').replaceAll('1', '\u200c'))
      .join('')}day`,
  base64: (t) => `see ${Buffer.from(t).toString('base64')}`,
  'base64 without padding, for addresses': (t) => Buffer.from(t).toString('base64url'),
  'base64 in lines': (t) => Buffer.from(t.repeat(3)).toString('base64').replaceAll(/.{40}/g, '$&\n'),
  hexadecimal: (t) => `run ${Buffer.from(t).toString('hex')} now`,
  'hexadecimal, spaced': (t) =>
    bytes(t)
      .map((b) => b.toString(16))
      .join(' '),
  'hexadecimal, escaped': (t) =>
    bytes(t)
      .map((b) => `\\x${b.toString(16).padStart(2, '0')}`)
      .join(''),
  bits: (t) =>
    bytes(t)
      .map((b) => b.toString(2).padStart(8, '0'))
      .join(' '),
  'percent signs': (t) =>
    bytes(t)
      .map((b) => `%${b.toString(16).padStart(2, '0')}`)
      .join(''),
  'JSON escapes': (t) =>
    bytes(t)
      .map((b) => `\\u${b.toString(16).padStart(4, '0')}`)
      .join(''),
  entities: (t) =>
    bytes(t)
      .map((b) => `&#${b};`)
      .join(''),
  rot13,
  leet: (t) => spelt(figures, t),
};
const sees = (text: string): boolean => viewsOf(text).some((v) => v.text.includes(SAID));

describe('a disguise comes off', () => {
  it.each(Object.entries(DISGUISES))('%s', (_, disguise) => {
    expect(disguise(SAID)).not.toContain(SAID);
    expect(sees(disguise(SAID))).toBe(true);
    const around = `The weather is fine today. ${disguise(SAID)}. And then we all went home and slept.`;
    expect(sees(around)).toBe(true);
  });
  const outer = ['base64', 'hexadecimal', 'percent signs', 'tags', 'variation selectors'];
  const pairs = Object.keys(DISGUISES).flatMap((inner) => outer.map((o) => [inner, o] as const));
  // Codes in codes that only see themselves by runs of bytes: bits in tags are a long way of saying it.
  it.each(pairs)('%s inside %s', (inner, o) => {
    const disguised = (DISGUISES[o] as (t: string) => string)((DISGUISES[inner] as (t: string) => string)(SAID));
    // Tags have ASCII alone.
    if (o === 'tags' && /[^\0-\x7f]/.test((DISGUISES[inner] as (t: string) => string)(SAID))) return;
    expect(sees(disguised)).toBe(true);
  });
  it('one that is judged is blocked, and the verdict names the view', async () => {
    const judge: Judge = {
      name: 'j',
      digest: 'd',
      judge: async ({ content, nonce }) => ({
        text: renderVerdict({ rule: content.includes('golden garden') ? 'R1' : null, nonce }),
        finish: 'stop',
      }),
    };
    const policies = [definePolicy('p', 'R1: the garden\nAll else is allowed.')];
    const screen = createScreen({ policies, judge }),
      raw = createScreen({ policies, judge, judging: { views: 'raw' } });
    let swept = 0;
    for (const [name, disguise] of Object.entries(DISGUISES)) {
      const text = disguise(SAID);
      const [verdict] = (await screen.screen({ final: text })).verdicts;
      expect(verdict, name).toMatchObject({ outcome: 'block', rule: 'R1' });
      expect(verdict?.view, name).toBeDefined();
      expect(verdict?.coverage?.views[0]).toBe('raw');
      const [alone] = (await raw.screen({ final: text })).verdicts;
      expect(alone, name).toMatchObject({ outcome: 'allow', coverage: { views: ['raw'] } });
      expect(alone?.digests.judging).not.toBe(verdict?.digests.judging);
      swept++;
    }
    expect(swept).toBe(Object.keys(DISGUISES).length);
  });
});

describe('an ordinary text has no other view', () => {
  it.each([
    '❤️ love it! 👨‍👩‍👧 café naïve “quotes” … 5½ 10² ™ €  – ok',
    '🏴󠁧󠁢󠁥󠁮󠁧󠁿 won 2–1',
    'Привет, как дела? Это тест.',
    'Έλα εδώ τώρα',
    'می‌خواهم',
    'नमस्ते दुनिया क्‍ष',
    'Tiếng Việt có dấu',
    'k8s, b2b, sha256, utf8, mp3, 3D, v2, 19th; 19:30 on 12 june, call 0171 555 0142, card 4111 1111 1111 1111',
    'const getUserName = async (userId) => fetchAll(internationalization)',
    'id 550e8400-e29b-41d4-a716-446655440000 commit d26bf9a7c8',
    'https://example.com/a%20b?x=%C3%A9&y=1 rossi@example.org',
    '{"kind":"boat","guests":6,"day":"sunday","time":"11:00","name":"Larsen"}',
    '',
    '   ',
  ])('%j', (text) => expect(viewsOf(text)).toEqual([{ view: 'raw', text }]));
  it('nor have the golden rows, but for those that are disguised', () => {
    let rows = 0;
    for (const name of ['contact', 'respect'])
      for (const line of readFileSync(join(packageRoot, 'policies', name, 'golden.jsonl'), 'utf8')
        .trim()
        .split('\n')) {
        expect(viewsOf((JSON.parse(line) as { text: string }).text), line).toHaveLength(1);
        rows++;
      }
    expect(rows).toBeGreaterThan(40);
  });
  it('nor have most paragraphs of prose', () => {
    const guides = readdirSync(join(packageRoot, 'docs', 'guides'));
    const paragraphs = guides.flatMap((f) =>
      readFileSync(join(packageRoot, 'docs', 'guides', f), 'utf8').split('\n\n'),
    );
    const odd = paragraphs.filter((p) => viewsOf(p).length > 1);
    expect(paragraphs.length).toBeGreaterThan(150);
    expect(odd.length / paragraphs.length).toBeLessThan(0.03);
  });
});

describe('the first look', () => {
  const same = (text: string): boolean => {
    expect(viewsOf(text), JSON.stringify(text)).toEqual(allViews(text));
    return isOrdinary(text);
  };
  it('passes over most texts', () => {
    const names = readdirSync(join(packageRoot, 'docs', 'guides')).map((f) => join('docs', 'guides', f));
    const files = [
      ...names,
      'datasets/tickets/train.jsonl',
      'policies/contact/golden.jsonl',
      'policies/secrets/golden.jsonl',
    ];
    const pieces = files.flatMap((f) => readFileSync(join(packageRoot, f), 'utf8').split(/(?<=[.:,}]\s)/));
    expect(pieces.length).toBeGreaterThan(3000);
    expect(pieces.filter(same).length / pieces.length).toBeGreaterThan(0.7);
  });
  it('and over none that has a view', () => {
    const words = [
      'the',
      'gur',
      'frperg',
      'b0mb',
      '19th',
      'added',
      'de',
      'ad be',
      'JavaScript',
      'aGVsbG8',
      'x1',
      '41 42',
      '0x41',
    ];
    const signs = [
      ' ',
      '\n',
      '\r\n',
      '\r',
      '=',
      '==',
      '%41',
      '&#65;',
      '\\u0041',
      '\\x41',
      '01000001',
      '-',
      '_',
      '/',
      ',',
      '!',
      '$',
      'é',
      '\u200b',
    ];
    const word = fc.oneof(
      fc.constantFrom(...words, ...signs),
      fc.constantFrom(...Object.values(DISGUISES).map((disguise) => disguise(SAID))),
      fc.constantFrom(...['hello world', 'meet me', 'abc'].map((t) => Buffer.from(t).toString('base64').slice(0, 12))),
      fc.string({ minLength: 1, maxLength: 9 }),
      fc.string({ unit: fc.constantFrom(...'abcdefABCDEF0123456789=+/_- \n'), maxLength: 12 }),
    );
    const ordinary = fc
      .sample(fc.array(word, { maxLength: 9 }), { numRuns: 6000, seed: 5 })
      .filter((parts) => same(parts.join('')));
    expect(ordinary.length).toBeGreaterThan(1000);
    let cut = 0;
    for (const disguise of Object.values(DISGUISES))
      for (const text = disguise(SAID); cut < text.length; cut += 3) same(text.slice(cut, cut + 60));
  });
});

it('any text: the raw one first, each view once, and no long time', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 200 }), (text) => {
      const views = viewsOf(text);
      expect(views[0]).toEqual({ view: 'raw', text });
      expect(new Set(views.map((v) => v.text)).size).toBe(views.length);
    }),
    { numRuns: 500 },
  );
  // What might be gone over again and again.
  for (const unit of [
    'a',
    'aA',
    'A0',
    '0x41 ',
    '%41',
    '&#65;',
    '\\u0041',
    '01',
    '=',
    'о',
    '\u200b',
    'a\u200b',
    '\u202e',
  ]) {
    const [small, large] = [2000, 16_000].map((n) => {
      const text = unit.repeat(n / unit.length);
      viewsOf(text);
      const since = process.cpuUsage();
      viewsOf(text);
      return process.cpuUsage(since).user;
    }) as [number, number];
    // Eight times the text; squared it would be 64 times.
    expect(large, unit).toBeLessThan(32 * Math.max(small, 4000));
  }
});
