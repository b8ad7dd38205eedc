// Cards, accounts and telephone numbers: which digits are one.
import { ibanRest, luhn } from './checks.js';
import { alnumAt, beginsWord, isAlnumCode, isDigitCode, isLetterCode, type Report } from './detector.js';
import { after, type Groups, goesOn, isSeparator } from './digits.js';

/** First digits of issuers, from and to, with the lengths of their numbers (ISO/IEC 7812, as issuers publish them). */
const ISSUERS: readonly (readonly [from: string, to: string, lengths: readonly number[]])[] = [
  ['4', '4', [13, 16, 19]], // Visa
  ['51', '55', [16]], // Mastercard
  ['2221', '2720', [16]],
  ['34', '34', [15]], // American Express
  ['37', '37', [15]],
  ['300', '305', [14, 16, 19]], // Diners Club
  ['36', '36', [14, 16, 19]],
  ['38', '39', [14, 16, 19]],
  ['3528', '3589', [16, 17, 18, 19]], // JCB
  ['6011', '6011', [16, 17, 18, 19]], // Discover
  ['644', '649', [16, 17, 18, 19]],
  ['65', '65', [16, 17, 18, 19]],
  ['62', '62', [16, 17, 18, 19]], // UnionPay
  ['81', '81', [16, 17, 18, 19]],
  ['2200', '2204', [16, 17, 18, 19]], // Mir
  ['5018', '5018', [12, 13, 14, 15, 16, 17, 18, 19]], // Maestro
  ['5020', '5020', [12, 13, 14, 15, 16, 17, 18, 19]],
  ['5038', '5038', [12, 13, 14, 15, 16, 17, 18, 19]],
  ['5893', '5893', [12, 13, 14, 15, 16, 17, 18, 19]],
  ['6304', '6304', [12, 13, 14, 15, 16, 17, 18, 19]],
  ['6759', '6759', [12, 13, 14, 15, 16, 17, 18, 19]],
  ['6761', '6763', [12, 13, 14, 15, 16, 17, 18, 19]],
  ['60', '60', [16]], // RuPay
  ['82', '82', [16]],
];
const isIssued = (digits: string): boolean =>
  ISSUERS.some(([from, to, lengths]) => {
    const head = digits.slice(0, from.length);
    return head >= from && head <= to && lengths.includes(digits.length);
  });

/** How cards are printed; digit by digit is how they are hidden. */
const CARD_SHAPES = new Set(['4,4,4,4', '4,6,5', '4,6,4', '4,4,4,4,3', '6,13', '4,4,4,1', '4,4,5', '8,8']);
const CARD_HEADS = new Set([4, 6, 8]);

/** Blanks and dashes may stand in one card; a dot or a slash says that it is something else, unless all are alike. */
const joint = (sign: string): string => (sign === '-' ? ' ' : sign);

/** A card that begins at the first of the groups. */
export function card(text: string, i: number, g: Groups, report: Report): void {
  if (!beginsWord(text, i)) return;
  const first = g.sizes[0] as number;
  if (first >= 12) {
    const end = i + first;
    const digits = text.slice(i, end);
    if (first <= 19 && !isAlnumCode(text.charCodeAt(end)) && isIssued(digits) && luhn(digits)) report('card', i, end);
    return;
  }
  if (first === 1) byDigit(text, i, g, report);
  if (!CARD_HEADS.has(first) || g.count === 1) return;
  const sign = joint(g.sign(0));
  let shape = '';
  for (let k = 0; k < g.count && k < 5; k++) {
    if (k > 0 && joint(g.sign(k - 1)) !== sign) return;
    shape += `${shape === '' ? '' : ','}${g.sizes[k]}`;
    const end = g.ends[k] as number;
    if (!CARD_SHAPES.has(shape) || isAlnumCode(text.charCodeAt(end))) continue;
    const digits = g.digits(k + 1);
    if (isIssued(digits) && luhn(digits)) {
      report('card', i, end);
      return;
    }
  }
}
/** Digit by digit, with blanks or dashes between: a version has dots. */
function byDigit(text: string, i: number, g: Groups, report: Report): void {
  const { count } = g;
  if (g.total !== count || count < 13 || count > 19 || goesOn(text, i) || !/^(?: +|-+)$/.test(g.signs)) return;
  const digits = g.digits();
  if (!isAlnumCode(text.charCodeAt(g.end)) && isIssued(digits) && luhn(digits)) report('card', i, g.end);
}

/** Four digits and what goes on as a card does, joined by the same one to three signs each time. */
const JOINED = /^\d{4}([^0-9A-Za-z]{1,3})(?:\d{4}\1\d{4}\1\d{4}(?:\1\d{3})?|\d{6}\1\d{4,5})(?![0-9A-Za-z])/;
const MOST_JOINED = 48;
/** Signs that numbers of a list or of a table do not have between them: `_`, `:`, a dash between blanks. */
const NO_LIST = /^(?:[_:~\u00b7\u2022]|-{2,3}| [-\u2013\u2014] )$/;
const CARD_WORDS = ['card', 'karte', 'carte', 'tarjeta', 'cart\u00e3o', 'cartao', 'visa', 'amex', 'maestro'];
/**
 * A card whose first four digits begin at `i`, with other signs between its groups than numbers have. Four numbers of
 * a list, `4821, 1024, 2048, 1536`, look the same: there a word before must say that it is one.
 */
export function joinedCard(text: string, i: number, report: Report): void {
  const next = jointEnd(text, i + 4);
  if (next === 0) return;
  const width = next - i - 4;
  // It goes on from a number before.
  if (i > width && alnumAt(text, i - width - 1) && text.startsWith(text.slice(i + 4, next), i - width)) return;
  const [found = '', joint = ''] = JOINED.exec(text.slice(i, i + MOST_JOINED)) ?? [];
  if (found === '' || !beginsWord(text, i)) return;
  const end = i + found.length;
  const isPart =
    (text.startsWith(joint, end) && alnumAt(text, end + joint.length)) ||
    // An address of IPv6 may leave out what is zero.
    (joint === ':' && (text.charAt(end) === ':' || text.charAt(i - 1) === ':'));
  const digits = found.replaceAll(/\D/g, '');
  if (isPart || !isIssued(digits) || !luhn(digits)) return;
  if (NO_LIST.test(joint) || after(text, i, CARD_WORDS)) report('card', i, end);
}
/** Place of the digits after one to three signs at `i`; 0: not so many as a card has there. */
function jointEnd(text: string, i: number): number {
  let at = i;
  while (at < i + 3 && !alnumAt(text, at)) at++;
  let end = at;
  while (end < at + 7 && isDigitCode(text.charCodeAt(end))) end++;
  const isGroup = end - at === 4 || end - at === 6;
  return isGroup && text.charCodeAt(end) === text.charCodeAt(i) ? at : 0;
}

/** Lengths of IBANs by country (the registry of SWIFT). */
const IBAN_LENGTHS: Readonly<Record<string, number>> = Object.fromEntries(
  (
    'AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 ' +
    'ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 ' +
    'LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 ' +
    'PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30'
  )
    .split(' ')
    .map((entry) => [entry.slice(0, 2), Number(entry.slice(2))]),
);

/** Between groups of an IBAN, whose check digits leave nothing to chance. */
const joinsIban = (c: number): boolean => isSeparator(c) || c === 95 || c === 58 || c === 44;

/** An IBAN whose check digits begin at `i`: whole, or in groups of four. */
export function iban(text: string, i: number, report: Report): void {
  const from = i - 2;
  if (!isLetterCode(text.charCodeAt(from)) || !isLetterCode(text.charCodeAt(i - 1))) return;
  if (!isDigitCode(text.charCodeAt(i + 1))) return;
  const isNamed = text.slice(Math.max(0, from - 4), from).toLowerCase() === 'iban' && beginsWord(text, from - 4);
  if (!isNamed && !beginsWord(text, from)) return;
  const length = IBAN_LENGTHS[text.slice(from, i).toUpperCase()];
  if (length === undefined) return;
  let body = '';
  let at = from;
  while (body.length < length) {
    const c = text.charCodeAt(at);
    if (isAlnumCode(c)) body += text.charAt(at);
    else if (!(joinsIban(c) && body.length > 0 && body.length % 4 === 0 && isAlnumCode(text.charCodeAt(at + 1))))
      return;
    at++;
  }
  if (!isAlnumCode(text.charCodeAt(at)) && ibanRest(body.toUpperCase()) === 1) report('iban', from, at);
}

/** Country codes of ITU-T E.164 by their first digits: those of one and of two; all others have three. */
const ONE = '17';
const TWO = new Set(
  (
    '20 27 30 31 32 33 34 36 39 40 41 43 44 45 46 47 48 49 51 52 53 54 55 56 57 58 60 61 62 63 64 65 66 81 82 84 86 ' +
    '90 91 92 93 94 95 98'
  ).split(' '),
);
/** Digits that follow a country code, at least and at most, where they are known; else 6 to 12. */
const NATIONAL: Readonly<Record<string, readonly [number, number]>> = {
  1: [10, 10],
  7: [10, 10],
  33: [9, 9],
  34: [9, 9],
  44: [9, 10],
  49: [6, 11],
  39: [6, 11],
  31: [9, 9],
  32: [8, 9],
  41: [9, 9],
  43: [6, 12],
  46: [7, 9],
  47: [8, 8],
  45: [8, 8],
  48: [9, 9],
  61: [9, 9],
  81: [9, 10],
  86: [10, 11],
  91: [10, 10],
  55: [10, 11],
};

/** A number of any country, its country code at `i`. @param from where `+`, or what is dialled for it, begins */
export function internationalPhone(text: string, i: number, report: Report, from = i - 1): void {
  let digits = '';
  let at = i;
  let end = i;
  while (at < i + 32 && digits.length <= 16) {
    const c = text.charCodeAt(at);
    if (isDigitCode(c)) {
      digits += text.charAt(at);
      end = at + 1;
    } else if (!(isSeparator(c) || c === 40 || c === 41)) break;
    at++;
    // "+49 (0)30": the zero is dialled at home only.
    if (digits.endsWith('0') && text.startsWith('(0)', at - 2) && digits.length > 1) digits = digits.slice(0, -1);
    if (at - end > 3) break;
  }
  const code = ONE.includes(digits[0] ?? '0') ? 1 : TWO.has(digits.slice(0, 2)) ? 2 : 3;
  const [low, high] = NATIONAL[digits.slice(0, code)] ?? [6, 12];
  const rest = digits.length - code;
  if (digits[0] !== '0' && rest >= low && rest <= high && !isAlnumCode(text.charCodeAt(end)))
    report('phone', from, end);
}
/** Digits that are dialled for `+` where the first groups say so: 0049 30 …, 00 49 30 …, 011 44 20 …; else 0. */
function exitCode(text: string, i: number, { count, sizes }: Groups): number {
  const [first, second] = [sizes[0] as number, sizes[1] as number];
  if (count < 2 || first > 6) return 0;
  if (text.startsWith('011', i) && first === 3 && count > 2) return 3;
  if (!text.startsWith('00', i) || text.charAt(i + 2) === '0') return 0;
  // 00 49 20 31 may be bytes, 0065 0302 0304 code points.
  if (sizes.subarray(0, count).every((n) => n === 4)) return 0;
  return first > 2 || (second < 4 && count > 2 && Math.max(...sizes.subarray(2, count)) > 2) ? 2 : 0;
}

const northAmerican = (digits: string): boolean =>
  digits.length === 10 && /^[2-9][0-8][0-9][2-9]/.test(digits) && !/^(.)\1*$/.test(digits);

/** One digit by itself, after the first group. */
function hasLoneDigit({ count, sizes }: Groups): boolean {
  for (let k = 1; k < count; k++) if ((sizes[k] as number) < 2) return true;
  return false;
}
/** Numbers as they are written at home: with a leading zero in groups, or as in North America. */
export function nationalPhone(text: string, i: number, g: Groups, report: Report): void {
  const before = text.charCodeAt(i - 1);
  const groups = g.count;
  const [first, second] = [g.sizes[0] as number, g.sizes[1] as number];
  if (before === 43 || goesOn(text, i) || !beginsWord(text, i)) return;
  const exit = exitCode(text, i, g);
  if (exit > 0) internationalPhone(text, i + exit, report, i);
  if (exit > 0 || groups > 6) return;
  const { end } = g;
  if (isAlnumCode(text.charCodeAt(end))) return;
  if (groups === 1) {
    // (212) 555-0142
    if (first !== 3 || before !== 40 || text.charCodeAt(end) !== 41) return;
    const at = isSeparator(text.charCodeAt(end + 1)) ? end + 2 : end + 1;
    const rest = text.slice(at, at + 8);
    if (!/^[0-9]{3}[-. ][0-9]{4}$/.test(rest) || isAlnumCode(text.charCodeAt(at + 8))) return;
    if (northAmerican(g.digits() + rest.slice(0, 3) + rest.slice(4))) report('phone', i - 1, at + 8);
    return;
  }
  const { signs } = g;
  const american = groups === 3 ? first === 3 : groups === 4 && first === 1 && second === 3;
  if (american && g.sizes[groups - 2] === 3 && g.sizes[groups - 1] === 4 && !signs.includes('/')) {
    const digits = g.digits();
    if (digits.length === 10 ? northAmerican(digits) : digits[0] === '1' && northAmerican(digits.slice(1)))
      report('phone', i, end);
    return;
  }
  // 01 23 45 67 89, 0171 555 0142, 030/1234567, 06-12345678: not 0.25, nor a day and an hour, 01.02.2026 10
  const zero = text.charCodeAt(i) === 48 && text.charCodeAt(i + 1) !== 48 && first >= 2;
  if (!zero || g.total < 10 || g.total > 12 || hasLoneDigit(g)) return;
  if ((first === 2 && second === 2 && g.sizes[2] === 4) || (signs.includes('.') && !/^\.+$/.test(signs))) return;
  report('phone', i, end);
}
