// Secrets and keys. Where a format has a checksum or a structure, that decides: a text of the right length alone is no
// secret. Placeholders of documentation are left alone.
import { base58Check } from './checks.js';
import {
  alnumAt,
  beginsWord,
  type Detector,
  escapedAt,
  gateOf,
  isAlnumCode,
  isDigitCode,
  PAIRS,
  pairOf,
  type Report,
  type Rule,
} from './detector.js';
import { alphabets, SECRET_KINDS, type SecretKind } from './secret-kinds.js';

const { url, base64, capitals } = alphabets;
const inSet = (set: Uint8Array, c: number): boolean => c < 128 && set[c] === 1;
/** Place after the characters of a set from `i`, at most `most` of them. */
function runOf(text: string, i: number, set: Uint8Array, most: number): number {
  let end = i;
  while (end < i + most && inSet(set, text.charCodeAt(end))) end++;
  return end;
}
/** Place of the first character of those before `i`, at most `most` of them. */
function runBefore(text: string, i: number, set: Uint8Array, most: number): number {
  let from = i;
  while (from > i - most && inSet(set, text.charCodeAt(from - 1))) from--;
  return from;
}

const PLACEHOLDERS = ['example', 'placeholder', 'your', 'xxxxx', 'redacted', 'changeme', 'dummy'];
/** No one's secret: few different characters, one of them again and again, a word that says so. */
function isPlaceholder(body: string): boolean {
  if (new Set(body).size < 6) return true;
  for (let i = 0, same = 1; i < body.length; i++) {
    same = i > 0 && body[i] === body[i - 1] ? same + 1 : 1;
    if (same === 6) return true;
  }
  const lower = body.toLowerCase();
  return PLACEHOLDERS.some((word) => lower.includes(word));
}

const rot13 = (text: string): string =>
  [...text]
    .map((char) => {
      const c = char.charCodeAt(0);
      const a = c >= 97 && c <= 122 ? 97 : c >= 65 && c <= 90 ? 65 : 0;
      return a === 0 ? char : String.fromCharCode(((c - a + 13) % 26) + a);
    })
    .join('');

interface Entry {
  readonly kind: SecretKind;
  readonly prefix: string;
  readonly turned: boolean;
}
const MAX_BODY = 900;

/** By the sign that ends the prefix, and the two characters before it. */
const tables = new Map(
  ['_', '-', '.'].map((sign) => {
    const heads = new Uint8Array(PAIRS);
    const entries = new Map<number, Entry[]>();
    for (const kind of SECRET_KINDS)
      for (const [prefix, turned] of [[kind.prefix, false] as const, [rot13(kind.prefix), true] as const]) {
        // Two letters turned may be the end of any word.
        if (!prefix.endsWith(sign) || (turned && prefix.length < 4)) continue;
        const key = pairOf(prefix.charCodeAt(prefix.length - 3), prefix.charCodeAt(prefix.length - 2));
        heads[key] = 1;
        entries.set(key, [...(entries.get(key) ?? []), { kind, prefix, turned }]);
      }
    return [sign.charCodeAt(0), { heads, entries }] as const;
  }),
);

const headsOf = (sign: string): Uint8Array => tables.get(sign.charCodeAt(0))?.heads ?? new Uint8Array(PAIRS);
function pairs(list: readonly (readonly string[])[]): Uint8Array {
  const table = new Uint8Array(PAIRS);
  for (const [a = '', b = ''] of list) table[pairOf(a.charCodeAt(0), b.charCodeAt(0))] = 1;
  return table;
}

function byPrefix(text: string, i: number, report: Report): void {
  const table = tables.get(text.charCodeAt(i));
  const key = pairOf(text.charCodeAt(i - 2), text.charCodeAt(i - 1));
  if (!table || table.heads[key] === 0) return;
  for (const { kind, prefix, turned } of table.entries.get(key) ?? []) {
    const from = i + 1 - prefix.length;
    if (from < 0 || !text.startsWith(prefix, from) || !(kind.sure || beginsWord(text, from))) continue;
    let end = runOf(text, i + 1, alphabets[kind.of], Math.min(MAX_BODY, kind.length[1] + 1));
    // The end of a sentence is none of it.
    if (kind.of === 'dotted') while (end > i + 1 && text.charCodeAt(end - 1) === 46) end--;
    if (end - i - 1 < kind.length[0] || end - i - 1 > kind.length[1] || alnumAt(text, end)) continue;
    const raw = text.slice(i + 1, end);
    const body = turned ? rot13(raw) : raw;
    if (kind.holds && !kind.holds(body)) continue;
    if (kind.rule.endsWith('-webhook')) webhook(text, end, from, kind.rule, report);
    else if (kind.sure || !isPlaceholder(body)) report(kind.rule, from, end, turned ? 'rot13' : 'raw');
  }
}

/** What follows the host in an address by which anybody may post; its last part is the secret. */
const WEBHOOKS = new RegExp(
  `^/(?:${[
    String.raw`services/T\w{8,15}/B\w{8,15}`,
    String.raw`(?:workflows|triggers)/T\w{8,15}/\w{8,20}(?:/\d{9,20})?`,
    String.raw`api/webhooks/\d{16,20}`,
  ].join('|')})/([\\w-]{20,80})`,
);
const MAX_WEBHOOK = 160;
function webhook(text: string, i: number, from: number, rule: string, report: Report): void {
  const [path = '', token = ''] = WEBHOOKS.exec(text.slice(i, i + MAX_WEBHOOK)) ?? [];
  if (path !== '' && !isPlaceholder(token)) report(rule, from, i + path.length);
}

const AWS_HEADS = ['AKIA', 'ASIA', 'ABIA', 'ACCA'];
const AWS_ID = /A(?:KIA|SIA)[A-Z0-9]{16}(?![A-Za-z0-9])/;
function byCapitalA(text: string, i: number, report: Report): void {
  const second = text.charCodeAt(i + 1);
  if (second !== 75 && second !== 83 && second !== 66 && second !== 67 && second !== 73) return;
  if (!beginsWord(text, i)) return;
  const head = text.slice(i, i + 4);
  if (AWS_HEADS.includes(head)) {
    const end = runOf(text, i + 4, capitals, 17);
    const body = text.slice(i + 4, end);
    if (end - i === 20 && !alnumAt(text, end) && !body.endsWith('EXAMPLE') && !isPlaceholder(body))
      report('aws-access-key', i, end);
  } else if (head === 'AIza') {
    const end = runOf(text, i + 4, url, 36);
    if (end - i === 39 && !isPlaceholder(text.slice(i + 4, end))) report('google-key', i, end);
  } else if (head === 'ABSK') {
    // base64 of "BedrockAPIKey-"
    const end = runOf(text, i + 4, base64, 400);
    if (text.startsWith('QmVkcm9ja0FQSUtleS', i + 4) && end - i >= 100) report('aws-bedrock-key', i, end);
  }
}

const MAX_JWT_HEAD = 400;
/** JSON Web Token: a head that says how it is signed, a payload, a signature. */
function jwt(text: string, i: number, report: Report): void {
  const from = i - 2;
  if (text.charCodeAt(i - 1) !== 121 || text.charCodeAt(from) !== 101 || !beginsWord(text, from)) return;
  const headEnd = runOf(text, from, url, MAX_JWT_HEAD);
  if (text.charCodeAt(headEnd) !== 46 || headEnd - from < 16) return;
  const payloadEnd = runOf(text, headEnd + 1, url, 1000 - (headEnd - from));
  if (payloadEnd - headEnd < 9) return;
  let alg: unknown;
  try {
    const head: unknown = JSON.parse(Buffer.from(text.slice(from, headEnd), 'base64url').toString('utf8'));
    alg = typeof head === 'object' && head !== null && 'alg' in head ? head.alg : undefined;
  } catch {
    return;
  }
  if (typeof alg !== 'string') return;
  const long = payloadEnd - from >= 1000;
  const end = long ? payloadEnd : runOf(text, payloadEnd + 1, url, 1020 - (payloadEnd - from));
  if (long || (text.charCodeAt(payloadEnd) === 46 && (end - payloadEnd > 16 || alg.toLowerCase() === 'none')))
    report('jwt', from, end);
}

const MAX_PEM = 700;
const MIN_PEM_LINE = 16;
/** A private key in PEM: its first line, and a line of base64 within reach, headers and escaped line ends between. */
function pem(text: string, i: number, report: Report): void {
  if (!text.startsWith('-----BEGIN ', i - 4)) return;
  let end = i + 7;
  while (end < i + 60 && /^[A-Z0-9 ]$/.test(text.charAt(end))) end++;
  const label = text.slice(i + 7, end);
  if (!/PRIVATE KEY(?: BLOCK)?$/.test(label) || !text.startsWith('-----', end)) return;
  for (let at = end + 5, seen = 0; at < end + MAX_PEM; ) {
    const stop = runOf(text, at, base64, 80);
    // Lines may be short; words are.
    if (stop - at >= MIN_PEM_LINE) seen += stop - at;
    if (seen >= 40) {
      report('private-key', i - 4, stop);
      return;
    }
    if (stop >= text.length || text.startsWith('-----', stop)) return;
    at = stop + 1;
  }
}

/** `hooks…` aside, a dot: Discord's `id.time.hmac`, whose first part is a number in base64. */
function discord(text: string, i: number, report: Report): void {
  if (text.charCodeAt(i + 7) !== 46) return;
  const run = runBefore(text, i, url, 30);
  const from = run + escapedAt(text, run);
  const length = i - from;
  if (length < 22 || length > 28 || runOf(text, i + 1, url, 7) !== i + 7) return;
  const end = runOf(text, i + 8, url, 40);
  if (end - i - 8 < 27 || alnumAt(text, end)) return;
  if (/^[0-9]{16,20}$/.test(Buffer.from(text.slice(from, i), 'base64url').toString('latin1')))
    report('discord-token', from, end);
}

const NO_PASSWORDS = new Set(
  'password pass passwd pwd secret token xxx xxxx user username example changeme postgres root admin test'.split(' '),
);
/** `scheme://user:password@host`. */
function urlPassword(text: string, i: number, report: Report): void {
  if (!text.startsWith('//', i + 1) || !alnumAt(text, i - 1)) return;
  let colon = -1;
  for (let at = i + 3; at < i + 240; at++) {
    const c = text.charCodeAt(at);
    if (c === 58 && colon < 0) colon = at;
    if (c === 64) {
      const password = colon < 0 ? '' : text.slice(colon + 1, at);
      const real = password.length >= 3 && !/^[$<{[*%(]/.test(password) && !/^(.)\1*$/.test(password);
      if (real && !NO_PASSWORDS.has(password.toLowerCase()) && alnumAt(text, at + 1)) report('url-password', i - 1, at);
      return;
    }
    // Not a character of a name: the address ends.
    if (!(c > 32 && c < 127) || c === 47 || c === 34 || c === 39 || c === 60 || c === 62 || c === 96) return;
  }
}
/** Telegram: the number of a bot, a colon, 35 characters that begin with AA. */
function telegram(text: string, i: number, report: Report): void {
  if (text.charCodeAt(i + 1) !== 65 || text.charCodeAt(i + 2) !== 65) return;
  let from = i;
  while (from > i - 12 && isDigitCode(text.charCodeAt(from - 1))) from--;
  const end = runOf(text, i + 1, url, 36);
  if (i - from >= 8 && i - from <= 10 && end - i === 36 && beginsWord(text, from)) report('telegram-token', from, end);
}
/** Microsoft Entra: three characters, a digit, `Q~`, 31 to 34 more. */
function entra(text: string, i: number, report: Report): void {
  if (text.charCodeAt(i - 1) !== 81 || !isDigitCode(text.charCodeAt(i - 2))) return;
  const set = alphabets.dotted;
  let end = i + 1;
  while (end < i + 36 && (inSet(set, text.charCodeAt(end)) || text.charCodeAt(end) === 126)) end++;
  // The end of a sentence is none of it.
  while (end > i + 1 && text.charCodeAt(end - 1) === 46) end--;
  const run = runBefore(text, i - 2, set, 9);
  const from = run + escapedAt(text, run);
  if (end - i - 1 >= 31 && end - i - 1 <= 34 && i - 2 - from === 3) report('entra-secret', from, end);
}

/** What stands before a value says what it is: `aws_secret_access_key = …`, `AccountKey=…`. */
function byContext(text: string, start: number, to: number, report: Report): void {
  const from = start + escapedAt(text, start);
  const length = to - from;
  if (length === 40) {
    const body = text.slice(from, to);
    if (!/[A-Z]/.test(body) || !/[a-z]/.test(body) || !/[0-9]/.test(body) || /[_-]/.test(body)) return;
    const before = text.slice(Math.max(0, from - 80), from);
    const lower = before.toLowerCase();
    const isNamed = lower.includes('secret') && (lower.includes('aws') || lower.includes('access'));
    if ((isNamed || AWS_ID.test(before)) && !isPlaceholder(body)) report('aws-secret-key', from, to);
  } else if (length === 86 && text.startsWith('==', to)) {
    const before = text.slice(Math.max(0, from - 40), from).toLowerCase();
    if (before.includes('accountkey') || before.includes('account_key')) report('azure-storage-key', from, to + 2);
  } else if (length === 43 && text.charAt(to) === '=') {
    const before = text.slice(Math.max(0, from - 40), from).toLowerCase();
    if (before.includes('sharedaccesskey')) report('azure-storage-key', from, to + 1);
  } else if ((length === 51 || length === 52) && '5KL'.includes(text.charAt(from))) {
    const key = base58Check(text.slice(from, to));
    if (key?.[0] === 0x80 && key.length >= 33) report('bitcoin-key', from, to);
  } else if (length === 111 && text.startsWith('xprv', from)) {
    if (base58Check(text.slice(from, to))) report('bitcoin-key', from, to);
  } else byHead(text, from, to, report);
}

/** What begins with letters alone, so that only the whole token tells it. */
const HEADS: readonly (readonly [head: string, rule: string, form: RegExp])[] = [
  ['SK', 'twilio-key', /^SK[0-9a-f]{32}$/],
  ['dapi', 'databricks-token', /^dapi[0-9a-f]{32}(?:-[0-9])?$/],
  ['ATATT3', 'atlassian-token', /^ATATT3[A-Za-z0-9_-]{150,250}$/],
  ['1//0', 'google-secret', /^1\/\/0[A-Za-z0-9_-]{40,140}$/],
];
function byHead(text: string, from: number, to: number, report: Report): void {
  for (const [head, rule, form] of HEADS)
    if (text.startsWith(head, from) && form.test(text.slice(from, to)) && !isPlaceholder(text.slice(from, to)))
      report(rule, from, to);
  if (to - from >= 36 && to - from <= 37 && text.startsWith('-us', from + 32))
    if (/^[0-9a-f]{32}-us[0-9]{1,2}$/.test(text.slice(from, to))) report('mailchimp-key', from, to);
  if (to - from === 84 && text.slice(from, to).includes('JQQJ99')) report('azure-key', from, to);
}

const finds = (id: string, what: string): Rule => ({ id, finds: what });
const named = [...new Set(SECRET_KINDS.map((k) => k.rule))].map((id) =>
  finds(id, `${id.replaceAll('-', ' ')}, by its form`),
);

export const secrets: Detector = {
  name: 'secrets',
  version: 3,
  rules: [
    ...named,
    finds('private-key', 'a private key in PEM: RSA, EC, OpenSSH, PKCS 8, PGP'),
    finds('jwt', 'a JSON Web Token whose head decodes'),
    finds('aws-access-key', 'an access key id of AWS'),
    finds('aws-secret-key', 'a secret access key of AWS, after words that say so'),
    finds('aws-bedrock-key', 'a key of Bedrock'),
    finds('google-key', 'an API key of Google'),
    finds('discord-token', 'a token of a Discord bot, its number decoded'),
    finds('telegram-token', 'a token of a Telegram bot'),
    finds('entra-secret', 'a client secret of Microsoft Entra'),
    finds('azure-storage-key', 'an account key of Azure storage, or of its queues, after words that say so'),
    finds('azure-key', 'a key of Azure services, by the mark within it'),
    finds('twilio-key', 'an API key of Twilio'),
    finds('mailchimp-key', 'a key of Mailchimp'),
    finds('databricks-token', 'a token of Databricks'),
    finds('atlassian-token', 'a token of Atlassian'),
    finds('bitcoin-key', 'a private key of Bitcoin (WIF, xprv), its checksum right'),
    finds('url-password', 'a password in an address'),
  ],
  triggers: '_-.:AJ~',
  gates: {
    _: { after: headsOf('_') },
    '-': { after: headsOf('-'), next: gateOf('B') },
    '.': { after: headsOf('.'), run: 22 },
    ':': { next: gateOf('/A') },
    A: { next: gateOf('KSBCI') },
    J: { after: pairs([['e', 'y']]) },
    '~': { after: pairs([...'0123456789'].map((digit) => [digit, 'Q'])) },
  },
  at(text, i, report) {
    switch (text.charCodeAt(i)) {
      case 65:
        return byCapitalA(text, i, report);
      case 74:
        return jwt(text, i, report);
      case 58:
        urlPassword(text, i, report);
        return telegram(text, i, report);
      case 126:
        return entra(text, i, report);
      case 46:
        discord(text, i, report);
        break;
      case 45:
        if (text.charCodeAt(i + 1) === 66) pem(text, i, report);
        break;
    }
    if (isAlnumCode(text.charCodeAt(i - 1))) byPrefix(text, i, report);
  },
  token: byContext,
};
