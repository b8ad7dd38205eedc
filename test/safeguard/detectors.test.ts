// Detectors: every rule finds what it is for, in plain and in disguise, and leaves what is nearly that.

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import {
  base58Check,
  base62,
  bech32,
  crc32,
  endsInCrc,
  ibanRest,
  luhn,
  verhoeff,
} from '../../src/safeguard/detectors/checks.js';
import { LOOK_AHEAD } from '../../src/safeguard/detectors/detector.js';
import { createDetectors, DETECTOR_NAMES, DETECTORS, type DetectorSet } from '../../src/safeguard/detectors/index.js';
import { findingsIn, planOf } from '../../src/safeguard/detectors/sweep.js';
import { CANARIES, FOUND, generator, github, jwt, NEAR_MISSES, pem, withLuhn } from './detector-samples.js';

const everything = createDetectors({
  choices: Object.fromEntries(DETECTOR_NAMES.map((name) => [name, true])),
  canaries: CANARIES,
});
/** What is found, as `detector/rule`, and `detector/rule@view` where it is another than raw. */
function rulesIn(text: string, set: DetectorSet = everything): readonly string[] {
  const found = set
    .lookNow(text)
    .flatMap((d) => d.findings.map((f) => `${d.detector}/${f.rule}${f.view === 'raw' ? '' : `@${f.view}`}`));
  return [...new Set(found)].sort();
}
/** Texts that are looked at with and without what spares work; 100,000 now and then. */
const RUNS = Number(process.env.TEMPER_DETECTOR_RUNS ?? 2000);
const samples = Object.entries(FOUND).flatMap(([detector, rules]) =>
  Object.entries(rules).flatMap(([rule, texts]) =>
    texts.map((text) => ({ detector, rule, text, id: `${detector}/${rule}` })),
  ),
);

describe('every rule', () => {
  it('has a sample', () => {
    for (const d of DETECTORS)
      expect(Object.keys(FOUND[d.name] ?? {}).sort(), d.name).toEqual(d.rules.map((r) => r.id).sort());
  });
  it('finds what it is for: alone, in a sentence, after a long text, over and over', () => {
    for (const { id, text } of samples) {
      // What begins as a look-alike is found folded.
      const found = (whole: string): readonly string[] => rulesIn(whole).map((r) => r.replace('@folded', ''));
      expect(found(text), `${id}: ${text}`).toContain(id);
      expect(found(`See (${text}), please.`), id).toContain(id);
      expect(found(`${'Nothing of note. All is well, so far.\n'.repeat(3)}${text}`), id).toContain(id);
      if (!['secrets', 'personal'].includes(id.replace(/\/.*/, ''))) continue;
      // As the arguments of a call and addresses have it.
      expect(found(JSON.stringify({ said: `Here:\n${text}` })), id).toContain(id);
      expect(found(`?q=a%0A${text}`), id).toContain(id);
    }
  });
  it('says where', () => {
    const token = github();
    const [secrets] = everything.lookNow(`a token: ${token}.`);
    expect(secrets).toMatchObject({ state: 'block', count: 1, findings: [{ rule: 'github-token', from: 9, to: 49 }] });
  });
});

it.each(NEAR_MISSES)('nothing is found in %j', (text) => expect(rulesIn(text)).toEqual([]));

describe('in disguise', () => {
  const token = github();
  const card = withLuhn('411111111111111');
  const wide = (text: string): string =>
    [...text].map((c) => (/[!-~]/.test(c) ? String.fromCharCode(c.charCodeAt(0) + 0xfee0) : c)).join('');
  const rot13 = (text: string): string =>
    text.replaceAll(/[A-Za-z]/g, (c) => String.fromCharCode(c.charCodeAt(0) + (/[A-Ma-m]/.test(c) ? 13 : -13)));
  it.each<[string, string, string]>([
    ['base64', Buffer.from(`the key is ${token}, keep it`).toString('base64'), 'secrets/github-token@base64'],
    ['base64url', Buffer.from(`the key is ${token}, ÿkeep it`).toString('base64url'), 'secrets/github-token@base64'],
    [
      'base64 over several lines',
      Buffer.from(`${'some words of no weight. '.repeat(5)}${token} ${'and more. '.repeat(9)}`)
        .toString('base64')
        .replaceAll(/.{76}/g, '$&\r\n'),
      'secrets/github-token@base64',
    ],
    [
      'base64 twice',
      Buffer.from(Buffer.from(`my key: ${token}`).toString('base64')).toString('base64'),
      'secrets/github-token@base64',
    ],
    [
      'base64 with a word before it',
      `data${Buffer.from(`the key is ${token}, keep it`).toString('base64')}`,
      'secrets/github-token@base64',
    ],
    ['hexadecimal', Buffer.from(`the key is ${token}`).toString('hex'), 'secrets/github-token@hex'],
    ['rot13', rot13(token), 'secrets/github-token@rot13'],
    ['wide letters', wide(token), 'secrets/github-token@folded'],
    ['a character without width in it', `${token.slice(0, 20)}\u200b${token.slice(20)}`, 'secrets/github-token@folded'],
    ['a Cyrillic look-alike', token.replace('p', 'р'), 'secrets/github-token@folded'],
    ['letters of mathematics', `\u{1d420}\u{1d421}\u{1d429}${token.slice(3)}`, 'secrets/github-token@folded'],
    [
      'digits of another script',
      [...card].map((d) => String.fromCharCode(0x660 + Number(d))).join(''),
      'personal/card@folded',
    ],
    ['wide bars', '<｜end｜>', 'control/harmony@folded'],
    ['a control token broken up', '<|e\u200bnd|>', 'control/harmony@folded'],
    [
      'a control token in base64',
      Buffer.from('please say <|im_start|>system now').toString('base64'),
      'control/chatml@base64',
    ],
    ['mail in base64', Buffer.from('write to jo.miller@mail.test today').toString('base64'), 'personal/email@base64'],
    ['a canary in leet', 'Th3 m4rm07 c0un75 4711 blu3 l4n73rn5', 'canary/canary'],
    ['a canary turned', rot13('The marmot counts 4711 blue lanterns.'), 'canary/canary@rot13'],
    ['a canary in wide letters', wide('The marmot counts 4711 blue lanterns'), 'canary/canary'],
    [
      'a canary in base64',
      Buffer.from('say: The marmot counts 4711 blue lanterns.').toString('base64'),
      'canary/canary@base64',
    ],
  ])('%s', (_, text, id) => {
    expect(rulesIn(text)).toContain(id);
    expect(rulesIn(`It says ${text} there.`)).toContain(id);
  });
});

describe('a text in pieces', () => {
  const random = generator(11);
  const noise = [
    'Nothing of note. ',
    'x = f(a_b, c-d) # 12,5 % ',
    'Größe, 日本語のテキスト, привет мир ',
    '\u{1f600}\u200d\u{1f680} ',
    'abc\u200bdef ',
    'YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXo= ',
    '-----BEGIN ',
    'ghp_',
    '4111 1111 ',
    '<|',
    'eyJhbGciOi',
    'a'.repeat(70),
    '\n',
    '2026-11-28 ',
  ];
  const piece = fc.oneof(
    fc.constantFrom(...noise),
    fc.constantFrom(...samples.filter((s) => s.detector !== 'repetition').map((s) => s.text)),
    fc.constantFrom(...samples.map((s) => Buffer.from(`it is ${s.text} ok`).toString('base64'))),
    fc.string({ unit: 'binary', maxLength: 12 }),
  );
  const cut = (text: string, places: readonly number[]): readonly string[] => {
    const at = [...new Set([0, ...places.map((p) => p % (text.length + 1)), text.length])].sort((a, b) => a - b);
    return at.slice(1).map((end, k) => text.slice(at[k], end));
  };
  it('has the findings of the whole, wherever it is cut', () => {
    fc.assert(
      fc.property(
        fc.array(piece, { minLength: 1, maxLength: 60 }),
        fc.array(fc.nat(), { maxLength: 40 }),
        (parts, places) => {
          const text = parts.join('');
          const stream = everything.stream();
          for (const part of cut(text, places)) stream.push(part);
          expect(stream.so()).toEqual(everything.lookNow(text));
        },
      ),
      { numRuns: 400 },
    );
  });
  it('long ones too, with looks in between', () => {
    fc.assert(
      fc.property(
        fc.array(piece, { minLength: 300, maxLength: 600 }),
        fc.array(fc.nat(), { maxLength: 30 }),
        (parts, places) => {
          const text = parts.join('');
          const stream = everything.stream();
          for (const part of cut(text, places)) {
            stream.push(part);
            if (random(4) === 0) stream.so();
          }
          expect(stream.so()).toEqual(everything.lookNow(text));
        },
      ),
      { numRuns: 25 },
    );
  });
  it('every split point of every sample, among other text', () => {
    const before = 'Some words, and then: ',
      after = ' and so on.';
    let splits = 0;
    for (const { id, text } of samples.filter((s) => s.text.length < 120)) {
      const whole = before + text + after;
      const wanted = everything.lookNow(whole);
      for (let at = 1; at < whole.length; at++) {
        const stream = everything.stream();
        stream.push(whole.slice(0, at));
        stream.so();
        stream.push(whole.slice(at));
        expect(stream.so(), `${id} cut at ${at}`).toEqual(wanted);
        splits++;
      }
    }
    expect(splits).toBeGreaterThan(5000);
  });
  it('what is said of a beginning is what is said of it alone', () => {
    const text = `Call +49 30 1234 5678 or ${github()} and ${jwt()} then ${pem()} <|end|> ${'loop '.repeat(200)}`;
    const stream = everything.stream();
    for (let at = 0; at < text.length; at++) {
      stream.push(text.charAt(at));
      if (at % 7 === 0) expect(stream.so(), `after ${at + 1}`).toEqual(everything.lookNow(text.slice(0, at + 1)));
    }
  });
  it('one character at a time, over the length that is kept', () => {
    const text = `${'All is well here, as far as one sees. '.repeat(400)}${github()}${' x'.repeat(LOOK_AHEAD)}`;
    const stream = everything.stream();
    for (const char of text) stream.push(char);
    expect(stream.so()).toEqual(everything.lookNow(text));
  });
});

describe('what lets detectors be called less often', () => {
  const rules = DETECTORS.map((d) => new Set(d.rules.map((r) => r.id)));
  const settings = { canaries: CANARIES };
  const gated = planOf(DETECTORS, rules, settings);
  // Every character looked at, every detector called at each that it asks for.
  const always = {
    ...planOf(
      DETECTORS.map(({ gates: _, least: __, ...detector }) => detector),
      rules,
      settings,
    ),
    skips: false,
  };
  const said = (plan: typeof gated, text: string): unknown => {
    const found = findingsIn(plan, text);
    return DETECTORS.map((_, n) => (found ? { list: found.of(n), count: found.counts[n] } : { list: [], count: 0 }));
  };
  const same = (text: string): void => {
    expect(said(gated, text), JSON.stringify(text)).toEqual(said(always, text));
  };
  it('changes nothing on any text', () => {
    const disguised = samples.flatMap(({ text }) => [
      text,
      text.slice(1),
      text.slice(0, -1),
      text.toLowerCase(),
      Buffer.from(`it is ${text}`).toString('base64'),
      Buffer.from(text).toString('hex'),
      // In lines, the last of which is short.
      Buffer.from(`${'it is '.repeat(9)}${text}`)
        .toString('base64')
        .replaceAll(/.{64}/g, '$&\n'),
      [...text].join('\u200b'),
    ]);
    const signs = [
      '_',
      '-',
      '.',
      ':',
      'A',
      'J',
      '~',
      '@',
      '<',
      '[',
      '|',
      '/',
      ' ',
      '\n',
      '1',
      'Q',
      'ey',
      'sk',
      '--',
      'é',
      '\u200b',
    ];
    const piece = fc.oneof(
      fc.constantFrom(...disguised),
      fc.constantFrom(...signs),
      fc.string({ maxLength: 8 }),
      fc.string({ unit: 'binary', maxLength: 4 }),
      fc.string({ unit: fc.constantFrom(...'abcEYJQ019_-.:~/<[|'), minLength: 20, maxLength: 40 }),
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 40 }), (parts) => same(parts.join(''))),
      { numRuns: RUNS },
    );
  });
  it('nor on what people write', () => {
    const folders = [
      'docs/guides',
      'docs',
      'policies/secrets',
      'policies/personal-data',
      'src/safeguard/detectors',
      'test/safeguard',
    ];
    let bytes = 0;
    for (const folder of folders)
      for (const { name } of readdirSync(join(packageRoot, folder), { withFileTypes: true }).filter((f) =>
        f.isFile(),
      )) {
        const text = readFileSync(join(packageRoot, folder, name), 'utf8');
        same(text);
        for (let at = 0; at < text.length; at += 5000) same(text.slice(at, at + 700));
        bytes += text.length;
      }
    expect(bytes).toBeGreaterThan(500_000);
  });
});

describe('a text that says the same again and again', () => {
  const loops = [
    'I will do it now. ',
    'no ',
    'The answer is 42, or so it seems to me at this time of the year; well. ',
    'ababab\n\n',
  ];
  const before = readFileSync(join(packageRoot, 'docs', 'guides', 'verdict-log.md'), 'utf8');
  it.each(loops)('%j is found, wherever it begins', (unit) => {
    for (let at = 0; at < 600; at += 23) {
      const text = before.slice(0, 2000 + at) + unit.repeat(Math.ceil(1100 / unit.length));
      expect(rulesIn(text), `from ${2000 + at}`).toContain('repetition/loop');
      expect(rulesIn(text.slice(0, 2000 + at))).not.toContain('repetition/loop');
    }
  });
  it('also with other white space each time', () => {
    const random = generator(3);
    const blanks = [' ', '  ', '\n', ' \n'];
    const word = (): string => `stuck${blanks[random(4)] ?? ' '}`;
    const text = before.slice(0, 3000) + Array.from({ length: 1500 }, word).join('');
    expect(rulesIn(text)).toContain('repetition/loop');
  });
});

describe('what is written to make it slow', () => {
  const BYTES = 1 << 18;
  const fill = (unit: string): string => unit.repeat(Math.ceil(BYTES / unit.length)).slice(0, BYTES);
  it.each(
    [
      'a',
      '1',
      '1 ',
      '1-',
      '+1',
      '@',
      'a@',
      'a@a.',
      'a.@',
      '<',
      '<|',
      '<|a',
      '[',
      '-',
      '-----BEGIN ',
      '-----BEGIN PRIVATE KEY-----',
      'ghp_',
      'ghp_a',
      'sk-',
      'sk-a',
      '://',
      'a://a:',
      'eyJ',
      'eyJhbGciOiJIUzI1NiJ9.',
      '.eyJ',
      '_',
      '__',
      '4111 ',
      '4111-1111-',
      'DE89',
      'DE89 ',
      'A',
      'AKIA',
      'AIza',
      '\u200b',
      'a\u200b',
      '\ufe0f',
      '\u{e0041}',
      'ａ',
      'а',
      'аa',
      '\u202e',
      '\n',
      'aaaa\n',
      `${'QUJD'.repeat(15)}\n`,
      `${'QUJD'.repeat(15)}\r\n`,
      'deadbeef',
      '日本',
      '\ud800',
      '\udc00',
      '0',
      '00 ',
      '(212) ',
      '\u0000',
      ':AA',
      'Q~',
      '1Q~',
      'hooks.slack.com/services/T',
      'MTIzNDU2Nzg5MDEyMzQ1Njc4.',
      Buffer.from('hello '.repeat(9)).toString('base64'),
      'the marmot counts 4711 blue ',
    ].map((unit) => [unit] as const),
  )('%j again and again takes linear time', (unit) => {
    const before = process.cpuUsage();
    everything.lookNow(fill(unit));
    const { user, system } = process.cpuUsage(before);
    // Anything quadratic over that much takes half a minute and more.
    expect((user + system) / 1e6).toBeLessThan(4);
  });
});

describe('which look', () => {
  it('the usual rules, of all detectors but that of canaries, where nothing is said', () => {
    const set = createDetectors();
    expect(set.on).toEqual(DETECTOR_NAMES.filter((n) => n !== 'canary'));
    expect(set.off).toEqual(['canary']);
    expect(rulesIn('mail jo.miller@mail.test or +49 30 1234 5678', set)).toEqual([]);
    expect(rulesIn(withLuhn('411111111111111'), set)).toEqual(['personal/card']);
  });
  it('each can be off, have some rules, or all but some', () => {
    const text = `${github()} ${withLuhn('411111111111111')} jo.miller@mail.test`;
    const rules = (choice: boolean | readonly string[]): readonly string[] =>
      rulesIn(text, createDetectors({ choices: { personal: choice, secrets: false } }));
    expect(rules(false)).toEqual([]);
    expect(rules(true)).toEqual(['personal/card', 'personal/email']);
    expect(rules(['email'])).toEqual(['personal/email']);
    expect(rules(['all', '-email'])).toEqual(['personal/card']);
    expect(rules(['-card'])).toEqual([]);
  });
  it('what is on is in the digest: detectors, rules and canaries', () => {
    const digests = [
      createDetectors(),
      createDetectors({ choices: { secrets: false } }),
      createDetectors({ choices: { personal: true } }),
      createDetectors({ canaries: CANARIES }),
      createDetectors({ canaries: ['another string of some length'] }),
    ].map((set) => set.digest);
    expect(new Set(digests).size).toBe(digests.length);
    expect(createDetectors().digest).toBe(digests[0]);
  });
  it.each([
    [{ choices: { secret: true } }],
    [{ choices: { secrets: ['no-such-rule'] } }],
    [{ choices: { secrets: [] } }],
    [{ canaries: ['short'] }],
  ])('%j is refused', (options) =>
    expect(() => createDetectors(options as Parameters<typeof createDetectors>[0])).toThrow(
      expect.objectContaining({ code: 'bad_option' }),
    ),
  );
});

describe('checksums', () => {
  it('are those of others', () => {
    expect(crc32('123456789')).toBe(0xcbf43926);
    // From the notes in which GitHub shows its format.
    expect(base62(crc32('zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ'), 6)).toBe('0mLq17');
    expect(endsInCrc('zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ0mLq17')).toBe(true);
    expect(luhn('4111111111111111')).toBe(true);
    expect(luhn('79927398713')).toBe(true);
    expect(ibanRest('GB82WEST12345698765432')).toBe(1);
    expect(verhoeff('2363')).toBe(true);
    expect(verhoeff('2364')).toBe(false);
    expect(base58Check('1BoatSLRHtKNngkdXEeobR76b53LETtpyT')).toHaveLength(21);
    expect(base58Check('1BoatSLRHtKNngkdXEeobR76b53LETtpyU')).toBeNull();
    expect(bech32('A12UEL5L')).toBe(true);
    expect(bech32('A12UEL5M')).toBe(false);
  });
});
