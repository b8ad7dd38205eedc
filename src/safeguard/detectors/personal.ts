// Personal data: numbers by their check digits, addresses of mail by their form.
import { type Detector, isAlnumCode, isDigitCode, isLetterCode, type Report } from './detector.js';
import { goesOn, groupsAt, isSeparator } from './digits.js';
import { IDENTITIES, identity, letteredIdentity } from './identities.js';
import { card, iban, internationalPhone, nationalPhone } from './numbers.js';

const isLocal = (c: number): boolean =>
  isAlnumCode(c) || c === 46 || c === 95 || c === 45 || c === 43 || c === 37 || c === 39 || c === 61 || c === 126;
const isHost = (c: number): boolean => isAlnumCode(c) || c === 45 || c === 46;
/** Nobody's, by RFC 2606 and 6761. */
const RESERVED = /(?:^|\.)(?:example|invalid|localhost)$|(?:^|\.)example\.(?:com|net|org)$/;
const FILES = new Set(['png', 'jpg', 'jpeg', 'gif', 'svg', 'webp', 'js', 'ts', 'css', 'json', 'py']);

/** The `@` at `i` in an address of mail. */
function email(text: string, i: number, report: Report): void {
  // Most are no address: names of packages, people and decorators.
  if (!isLocal(text.charCodeAt(i - 1)) || text.charCodeAt(i - 1) === 46 || !isHost(text.charCodeAt(i + 1))) return;
  let from = i;
  while (from > i - 65 && isLocal(text.charCodeAt(from - 1))) from--;
  while (from < i && !isAlnumCode(text.charCodeAt(from)) && text.charCodeAt(from) !== 95) from++;
  let end = i + 1;
  while (end < i + 255 && isHost(text.charCodeAt(end))) end++;
  while (end > i && !isAlnumCode(text.charCodeAt(end - 1))) end--;
  if (i - from < 1 || i - from > 64 || end - i < 5) return;
  const host = text.slice(i + 1, end).toLowerCase();
  const labels = host.split('.');
  const top = labels.at(-1) ?? '';
  const fine =
    labels.length > 1 && labels.every((l) => l !== '' && l.length < 64 && !l.startsWith('-') && !l.endsWith('-'));
  const letters = top.startsWith('xn--') || (top.length >= 2 && [...top].every((c) => isLetterCode(c.charCodeAt(0))));
  // `user:password@host` of an address, `logo@2x.png`.
  if (fine && letters && !RESERVED.test(host) && !FILES.has(top)) report('email', from, end);
}

export const personal: Detector = {
  name: 'personal',
  version: 2,
  rules: [
    { id: 'card', finds: 'a payment card: its issuer, its length, Luhn' },
    { id: 'iban', finds: 'an IBAN: its country, its length, mod 97' },
    ...IDENTITIES.map(([id, finds]) => ({ id, finds })),
    { id: 'email', finds: 'an address of mail; example.com and the like are nobody’s', onRequest: true },
    { id: 'phone', finds: 'a telephone number, international or as written at home', onRequest: true },
  ],
  triggers: '@',
  at: email,
  digits(text, i, report) {
    const before = text.charCodeAt(i - 1);
    let n = 1;
    while (n < 36 && isDigitCode(text.charCodeAt(i + n))) n++;
    // Most numbers are one of few digits, alone.
    if (n < 6 && before !== 40 && before !== 43 && !isLetterCode(before)) {
      const next = text.charCodeAt(i + n);
      if (!isSeparator(next) || !isDigitCode(text.charCodeAt(i + n + 1))) return;
    }
    if (before === 43) internationalPhone(text, i, report);
    if (isLetterCode(before)) {
      iban(text, i, report);
      letteredIdentity(text, i, n, report);
      return;
    }
    const next = text.charCodeAt(i + n);
    const grouped = isSeparator(next) && isDigitCode(text.charCodeAt(i + n + 1));
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
