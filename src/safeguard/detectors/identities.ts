// Numbers that states give to people. A kind is here where its form or its check digit tells it from other numbers; one
// that is digits alone counts only after a word that says what it is.
import { isDate, luhn, modulo, verhoeff, weighted } from './checks.js';
import { beginsWord, isAlnumCode, type Report } from './detector.js';
import { after, type Groups, goesOn, isShaped } from './digits.js';

const days = (text: string): readonly [number, number, number] => [
  Number(text.slice(0, 2)),
  Number(text.slice(2, 4)),
  Number(text.slice(4, 6)),
];
const UNIT_MOD_23 = 'TRWAGMYFPDXBNJZSQVHLCKE';
const HETU = '0123456789ABCDEFHJKLMNPRSTUVWXY';

/** ISO 7064 MOD 11,10. */
function mod11_10(digits: string): boolean {
  let product = 10;
  for (const d of digits.slice(0, -1)) {
    const sum = (Number(d) + product) % 10 || 10;
    product = (2 * sum) % 11;
  }
  return (11 - product) % 10 === Number(digits.at(-1));
}
const cpf = (d: string): boolean => {
  if (/^(.)\1*$/.test(d)) return false;
  const check = (n: number): number => {
    const rest =
      (weighted(
        d,
        Array.from({ length: n }, (_, k) => n + 1 - k),
      ) *
        10) %
      11;
    return rest === 10 ? 0 : rest;
  };
  return check(9) === Number(d[9]) && check(10) === Number(d[10]);
};
const pesel = (d: string): boolean => {
  const month = Number(d.slice(2, 4)) % 20;
  const [year, , day] = days(d);
  return (
    isDate(1900 + year, month, day) && (10 - (weighted(d, [1, 3, 7, 9, 1, 3, 7, 9, 1, 3]) % 10)) % 10 === Number(d[10])
  );
};
const turkish = (d: string): boolean => {
  const odd = weighted(d, [1, 0, 1, 0, 1, 0, 1, 0, 1]),
    even = weighted(d, [0, 1, 0, 1, 0, 1, 0, 1]);
  const sum = weighted(d, [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
  return d[0] !== '0' && (((odd * 7 - even) % 10) + 10) % 10 === Number(d[9]) && sum % 10 === Number(d[10]);
};
const french = (d: string): boolean =>
  /^[12378]/.test(d) && Number(d.slice(3, 5)) >= 1 && 97 - modulo(d.slice(0, 13), 97) === Number(d.slice(13));
const belgian = (d: string): boolean => {
  const [, month, day] = days(d);
  const check = Number(d.slice(9));
  const born = (prefix: string): boolean => 97 - modulo(prefix + d.slice(0, 9), 97) === check;
  return month <= 12 && day <= 31 && (born('') || born('2'));
};
const korean = (d: string): boolean => {
  const [year, month, day] = days(d);
  const check = (11 - (weighted(d, [2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5]) % 11)) % 10;
  return /[1-8]/.test(d[6] ?? '') && isDate(2000 + year, month, day) && check === Number(d[12]);
};
const swedish = (d: string): boolean => {
  const ten = d.slice(-10);
  const [year, month, day] = days(ten);
  return isDate(2000 + year, month, day) && luhn(ten);
};

const isSsn = (d: string): boolean => !/^(?:000|666|9)|^...00|0000$/.test(d);

type Shape = readonly [
  rule: string,
  sizes: readonly number[],
  signs: string,
  holds: (digits: string) => boolean,
  words?: readonly string[],
];
/** Kinds whose digits stand in groups, or alone: shape, what must hold, words that must stand before. */
const SHAPES: readonly Shape[] = [
  ['us-ssn', [3, 2, 4], '--', (d) => isSsn(d) && d !== '078051120' && d !== '219099999' && d !== '123456789'],
  ...['  ', '..'].map((signs): Shape => ['us-ssn', [3, 2, 4], signs, isSsn, ['ssn', 'social security']]),
  ['us-ssn', [9], '', isSsn, ['ssn', 'social security']],
  ['ca-sin', [3, 3, 3], '--', (d) => !/^[08]/.test(d) && luhn(d)],
  ['ca-sin', [3, 3, 3], '  ', (d) => !/^[08]/.test(d) && luhn(d), [' sin', 'social insurance']],
  [
    'uk-nhs',
    [3, 3, 4],
    '  ',
    (d) => (11 - (weighted(d, [10, 9, 8, 7, 6, 5, 4, 3, 2]) % 11)) % 11 === Number(d[9]),
    ['nhs'],
  ],
  ['fr-nir', [15], '', french],
  ['fr-nir', [1, 2, 2, 2, 3, 3, 2], '      ', french],
  ['fr-nir', [13, 2], ' ', french],
  ['de-steuer-id', [11], '', mod11_10, ['steuer', 'idnr', 'tax id', 'tin']],
  ['de-steuer-id', [2, 3, 3, 3], '   ', mod11_10],
  ['br-cpf', [3, 3, 3, 2], '..-', cpf],
  ['br-cpf', [11], '', cpf, ['cpf']],
  ['pl-pesel', [11], '', pesel, ['pesel']],
  ['tr-tckn', [11], '', turkish, ['tc ', 't.c', 'kimlik', 'tckn']],
  ['be-nrn', [2, 2, 2, 3, 2], '..-.', belgian],
  ['kr-rrn', [6, 7], '-', korean],
  ['se-pnr', [6, 4], '-', swedish],
  ['se-pnr', [8, 4], '-', swedish],
  ['in-aadhaar', [4, 4, 4], '  ', (d) => /^[2-9]/.test(d) && verhoeff(d)],
  ['in-aadhaar', [4, 4, 4], '--', (d) => /^[2-9]/.test(d) && verhoeff(d)],
  ['in-aadhaar', [12], '', (d) => /^[2-9]/.test(d) && verhoeff(d), ['aadhaar', 'uidai']],
  ['nl-bsn', [9], '', (d) => weighted(d, [9, 8, 7, 6, 5, 4, 3, 2, -1]) % 11 === 0, ['bsn', 'burgerservice', 'sofi']],
];
/** Looked up by the number of groups and the size of the first: most numbers have none. */
const byHead = new Map<number, typeof SHAPES>();
for (const shape of SHAPES) {
  const key = shape[1].length * 64 + (shape[1][0] as number);
  byHead.set(key, [...(byHead.get(key) ?? []), shape]);
}

/** What the groups from `i` on are, digits alone. */
export function identity(text: string, i: number, g: Groups, report: Report): void {
  const shapes = byHead.get(g.count * 64 + (g.sizes[0] as number));
  if (!shapes || !beginsWord(text, i) || goesOn(text, i)) return;
  const { end } = g;
  if (isAlnumCode(text.charCodeAt(end)) || text.charCodeAt(i - 1) === 43) return;
  for (const [rule, sizes, signs, holds, words] of shapes)
    if (isShaped(g, sizes, signs) && (!words || after(text, i, words)) && holds(g.digits())) {
      report(rule, i, end);
      return;
    }
}

const letter = (text: string, i: number): string => {
  const c = text.charAt(i).toUpperCase();
  return c >= 'A' && c <= 'Z' && c.length === 1 ? c : '';
};
const CF_ODD = [1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23];
function codiceFiscale(code: string): boolean {
  if (!/^[A-Z]{6}[0-9LMNPQRSTUV]{2}[ABCDEHLMPRST][0-9LMNPQRSTUV]{2}[A-Z][0-9LMNPQRSTUV]{3}[A-Z]$/.test(code))
    return false;
  let sum = 0;
  for (let k = 0; k < 15; k++) {
    const value = Number.parseInt(code.charAt(k), 36);
    const n = value < 10 ? value : value - 10;
    sum += k % 2 === 0 ? (CF_ODD[n] as number) : n;
  }
  return code.charCodeAt(15) - 65 === sum % 26;
}

/** What holds letters too. @param n digits of the run at `i` */
export function letteredIdentity(text: string, i: number, n: number, report: Report): void {
  const alone = beginsWord(text, i);
  const end = i + n;
  const closes = (at: number): boolean => !isAlnumCode(text.charCodeAt(at));
  if (n === 8 && alone && closes(end + 1)) {
    if (letter(text, end) !== '' && letter(text, end) === UNIT_MOD_23[modulo(text.slice(i, end), 23)])
      report('es-dni', i, end + 1);
  } else if (n === 7 && !alone && beginsWord(text, i - 1) && closes(end + 1)) {
    const head = 'XYZ'.indexOf(letter(text, i - 1) || '?');
    if (head >= 0 && letter(text, end) === UNIT_MOD_23[modulo(head + text.slice(i, end), 23)])
      report('es-nie', i - 1, end + 1);
  } else if (n === 6 && !alone && closes(end + 1) && beginsWord(text, i - 2)) {
    const head = letter(text, i - 2) + letter(text, i - 1);
    if (/^[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]$/.test(head) && !/^(?:BG|GB|NK|KN|TN|NT|ZZ)$/.test(head))
      if (/^[A-D]$/.test(letter(text, end))) report('uk-nino', i - 2, end + 1);
  } else if (n === 6 && alone && /^[-+A-FU-Y]$/.test(text.charAt(end)) && closes(end + 5)) {
    const digits = text.slice(i, end) + text.slice(end + 1, end + 4);
    const [day, month, year] = days(digits);
    const right = HETU[Number(digits) % 31] === text.charAt(end + 4).toUpperCase();
    if (/^[0-9]{9}$/.test(digits) && isDate(2000 + year, month, day) && right) report('fi-hetu', i, end + 5);
  } else if ((n === 17 || n === 18) && alone) {
    const id = text.slice(i, i + 18).toUpperCase();
    const date = isDate(Number(id.slice(6, 10)), Number(id.slice(10, 12)), Number(id.slice(12, 14)));
    if (!/^[1-9][0-9]{16}[0-9X]$/.test(id) || !closes(i + 18) || !date || !/^(?:19|20)/.test(id.slice(6))) return;
    const check = weighted(id, [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2]) % 11;
    if ('10X98765432'[check] === id[17]) report('cn-id', i, i + 18);
  } else if (n === 2 && !alone) {
    const from = i - 6;
    if (from >= 0 && beginsWord(text, from) && closes(i + 10))
      if (codiceFiscale(text.slice(from, i + 10).toUpperCase())) report('it-cf', from, i + 10);
  }
}

export const IDENTITIES: readonly (readonly [id: string, finds: string])[] = [
  ['us-ssn', 'Social Security number of the United States'],
  ['ca-sin', 'Social Insurance number of Canada, Luhn'],
  ['uk-nhs', 'NHS number, mod 11'],
  ['uk-nino', 'National Insurance number of the United Kingdom'],
  ['fr-nir', 'numéro de sécurité sociale, mod 97'],
  ['de-steuer-id', 'Steuer-Identifikationsnummer, ISO 7064'],
  ['es-dni', 'DNI of Spain, mod 23'],
  ['es-nie', 'NIE of Spain, mod 23'],
  ['it-cf', 'codice fiscale, with its check letter'],
  ['be-nrn', 'national number of Belgium, mod 97'],
  ['nl-bsn', 'burgerservicenummer, eleven-proof'],
  ['pl-pesel', 'PESEL, with its check digit'],
  ['se-pnr', 'personnummer of Sweden, Luhn'],
  ['fi-hetu', 'henkilötunnus of Finland, mod 31'],
  ['tr-tckn', 'T.C. kimlik number'],
  ['br-cpf', 'CPF of Brazil, both check digits'],
  ['in-aadhaar', 'Aadhaar, Verhoeff'],
  ['cn-id', 'resident identity number of China, mod 11-2'],
  ['kr-rrn', 'resident registration number of Korea'],
];
