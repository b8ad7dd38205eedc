// Personal data: numbers by their check digits, addresses of mail by their form.
import {
  beginsWord,
  type Detector,
  escapedAt,
  isAlnumCode,
  isDigitCode,
  isLetterCode,
  type Report,
} from './detector.js';
import { goesOn, groupsAt, isSeparator } from './digits.js';
import { IDENTITIES, identity, letteredIdentity } from './identities.js';
import { card, iban, internationalPhone, joinedCard, nationalPhone } from './numbers.js';

/** By UTF-16 unit: 0 not looked up yet, 1 a letter, a mark or a digit of another script, 2 none. */
const scripts = new Uint8Array(1 << 16);
/** Names of people and hosts may have letters of any script (RFC 6531, IDNA). */
function isWide(text: string, i: number): boolean {
  const c = text.charCodeAt(i);
  if (!(c > 127)) return false;
  scripts[c] ||= /[\p{L}\p{M}\p{N}]/u.test(text.charAt(i)) ? 1 : 2;
  return scripts[c] === 1;
}
const isLocal = (c: number): boolean =>
  isAlnumCode(c) || c === 46 || c === 95 || c === 45 || c === 43 || c === 37 || c === 39 || c === 61 || c === 126;
const isHost = (c: number): boolean => isAlnumCode(c) || c === 45 || c === 46;
/** Nobody's, by RFC 2606 and 6761. */
const RESERVED = /(?:^|\.)(?:example|invalid|localhost)$|(?:^|\.)example\.(?:com|net|org)$/;
const FILES = new Set(['png', 'jpg', 'jpeg', 'gif', 'svg', 'webp', 'js', 'ts', 'css', 'json', 'py']);
const MAX_LOCAL = 64;
const MAX_HOST = 255;

/** `"jo miller"`, in a text of JSON with a backslash before each quote. */
const QUOTED_NAME = /(\\?)"[\p{L}\p{N}](?:[\p{L}\p{M}\p{N} ._'+-]*[\p{L}\p{M}\p{N}])?\1"$/u;

/** Where the name before the `@` at `i` begins: `jo.miller`, `"jo miller"`; `i`: there is none. */
function localFrom(text: string, i: number): number {
  if (text.charCodeAt(i - 1) === 34) {
    const quoted = QUOTED_NAME.exec(text.slice(Math.max(0, i - MAX_LOCAL), i));
    return quoted ? i - quoted[0].length : i;
  }
  if (text.charCodeAt(i - 1) === 46) return i;
  let from = i;
  while (from > i - MAX_LOCAL - 1 && (isLocal(text.charCodeAt(from - 1)) || isWide(text, from - 1))) from--;
  // A letter of an escape is none of the name.
  from += escapedAt(text, from);
  while (from < i && !isAlnumCode(text.charCodeAt(from)) && text.charCodeAt(from) !== 95 && !isWide(text, from)) from++;
  return from;
}
/** Where the host ends that stands between the `@` at `i` and `stop`; `i`: there is none. */
function hostEnd(text: string, i: number, stop: number): number {
  let end = stop;
  while (end > i + 1 && (text.charCodeAt(end - 1) === 45 || text.charCodeAt(end - 1) === 46)) end--;
  const host = text.slice(i + 1, end).toLowerCase();
  const labels = host.split('.');
  const top = labels.at(-1) ?? '';
  const fine =
    labels.length > 1 && labels.every((l) => l !== '' && l.length < 64 && !l.startsWith('-') && !l.endsWith('-'));
  // `user:password@host` of an address, `logo@2x.png`.
  const isTop = (top.startsWith('xn--') || /^[a-z]{2,}$|^[\p{L}\p{M}]{2,}$/u.test(top)) && !FILES.has(top);
  return fine && isTop && !RESERVED.test(host) ? end : i;
}

/** The `@` at `i` in an address of mail. */
function email(text: string, i: number, report: Report): void {
  // Most are no address: names of packages, people and decorators.
  const [before, next] = [text.charCodeAt(i - 1), text.charCodeAt(i + 1)];
  if (!(isLocal(before) || before === 34 || before > 127) || !(isHost(next) || next > 127)) return;
  const from = localFrom(text, i);
  if (i - from < 1 || i - from > MAX_LOCAL) return;
  let stop = i + 1;
  while (stop < i + MAX_HOST && isHost(text.charCodeAt(stop))) stop++;
  // An address in a text of a script without blanks ends where ASCII does, if it is one by then.
  let end = hostEnd(text, i, stop);
  if (end === i && isWide(text, stop)) {
    while (stop < i + MAX_HOST && (isHost(text.charCodeAt(stop)) || isWide(text, stop))) stop++;
    end = hostEnd(text, i, stop);
  }
  if (end > i) report('email', from, end);
}

export const personal: Detector = {
  name: 'personal',
  version: 3,
  rules: [
    { id: 'card', finds: 'a payment card: its issuer, its length, Luhn' },
    { id: 'iban', finds: 'an IBAN: its country, its length, mod 97' },
    ...IDENTITIES.map(([id, finds]) => ({ id, finds })),
    { id: 'email', finds: 'an address of mail; example.com and the like are nobody’s', onRequest: true },
    { id: 'phone', finds: 'a telephone number, international or as written at home', onRequest: true },
  ],
  triggers: '@',
  at: email,
  digits(text, start, report) {
    let i = start;
    let n = 1;
    while (n < 36 && isDigitCode(text.charCodeAt(i + n))) n++;
    let before = text.charCodeAt(i - 1);
    if (before === 37 || before === 117) {
      // `%20` and `\u0020` end in digits that are none of the number.
      const escaped = before === 37 ? escapedAt(text, i) : escapedAt(text, i - 1) - 1;
      if (escaped > 0 && escaped < n) {
        i += escaped;
        n -= escaped;
        before = 32;
      }
    }
    const next = text.charCodeAt(i + n);
    const grouped = isSeparator(next) && isDigitCode(text.charCodeAt(i + n + 1));
    if (n === 4 && !grouped) joinedCard(text, i, report);
    // Most numbers are one of few digits, alone.
    if (n < 6 && !grouped && before !== 40 && before !== 43 && !isLetterCode(before)) return;
    if (before === 43) internationalPhone(text, i, report);
    if (isLetterCode(before) && !beginsWord(text, i)) {
      iban(text, i, report);
      letteredIdentity(text, i, n, report);
      return;
    }
    // Years, prices, counts: most numbers end here.
    if (n < 6 && !grouped && before !== 40) return;
    // Digit by digit: only the first of them begins a number.
    if (n === 1 && goesOn(text, i) && !isDigitCode(text.charCodeAt(i + 3))) return;
    if (n >= 6 && n <= 18) letteredIdentity(text, i, n, report);
    const groups = groupsAt(text, i);
    card(text, i, groups, report);
    identity(text, i, groups, report);
    nationalPhone(text, i, groups, report);
  },
};
