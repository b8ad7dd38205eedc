// What detectors are tried with: a text for every rule, and texts that nearly are one. Nothing here is a secret or a
// person's: tokens are drawn from a fixed generator and put together when the test runs, checksums computed.
import { createHash } from 'node:crypto';
import { base62, crc32, ibanRest, luhn, modulo } from '../../src/safeguard/detectors/checks.js';

/** A fixed sequence, the same on every machine. */
export function generator(seed: number): (n: number) => number {
  let state = seed;
  return (n) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
}
const random = generator(7);
const from = (alphabet: string, n: number): string =>
  Array.from({ length: n }, () => alphabet.charAt(random(alphabet.length))).join('');
const LOWER = 'abcdefghijklmnopqrstuvwxyz',
  UPPER = LOWER.toUpperCase(),
  DIGITS = '0123456789',
  B62 = DIGITS + UPPER + LOWER,
  B64URL = `${B62}_-`,
  HEX = '0123456789abcdef';
const b62 = (n: number): string => from(B62, n);
const url = (n: number): string => from(B64URL, n);
const hex = (n: number): string => from(HEX, n);
const digits = (n: number): string => from(DIGITS, n);
const b64 = (text: string): string => Buffer.from(text).toString('base64url');

export function github(prefix = 'ghp_'): string {
  const body = b62(30);
  return prefix + body + base62(crc32(body), 6);
}
/** The same with another last character: its checksum is wrong. */
export const broken = (token: string): string => token.slice(0, -1) + (token.endsWith('0') ? '1' : '0');
export const jwt = (head: object = { alg: 'HS256', typ: 'JWT' }): string =>
  `${b64(JSON.stringify(head))}.${b64(JSON.stringify({ sub: digits(10), name: from(LOWER, 6) }))}.${url(43)}`;
export const pem = (label = 'RSA PRIVATE KEY', end = '\n'): string =>
  [`-----BEGIN ${label}-----`, from(`${B62}+/`, 64), from(`${B62}+/`, 64), `-----END ${label}-----`].join(end);
const B58 = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz';
function wif(): string {
  const body = Buffer.concat([Buffer.from([0x80]), Buffer.from(hex(64), 'hex'), Buffer.from([1])]);
  const hash = (b: Uint8Array): Buffer => createHash('sha256').update(b).digest();
  let value = BigInt(`0x${Buffer.concat([body, hash(hash(body)).subarray(0, 4)]).toString('hex')}`);
  let text = '';
  for (; value > 0n; value /= 58n) text = B58.charAt(Number(value % 58n)) + text;
  return text;
}
const B32 = 'qpzry9x8gf2tvdw0s3jn54khce6mua7l';
function age(): string {
  const hrp = 'age-secret-key-';
  const data = Array.from({ length: 52 }, () => random(32));
  const polymod = (values: readonly number[]): number => {
    let c = 1;
    for (const v of values) {
      const top = c >>> 25;
      c = ((c & 0x1ffffff) << 5) ^ v;
      for (const [i, g] of [0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3].entries())
        if ((top >>> i) & 1) c ^= g;
    }
    return c;
  };
  const expanded = [...[...hrp].map((c) => c.charCodeAt(0) >> 5), 0, ...[...hrp].map((c) => c.charCodeAt(0) & 31)];
  const check = polymod([...expanded, ...data, 0, 0, 0, 0, 0, 0]) ^ 1;
  const all = [...data, ...[25, 20, 15, 10, 5, 0].map((shift) => (check >>> shift) & 31)];
  return `${hrp}1${all.map((v) => B32.charAt(v)).join('')}`.toUpperCase();
}
function grafana(): string {
  const body = b62(32);
  return `glsa_${body}_${crc32(`glsa_${body}`).toString(16).padStart(8, '0')}`;
}

/** The number with the check digit that Luhn asks for. */
export const withLuhn = (head: string): string => `${head}${[...DIGITS].find((d) => luhn(head + d)) ?? ''}`;
export function iban(country: string, bban: string): string {
  const rest = ibanRest(`${country}00${bban}`);
  return `${country}${String(98 - rest).padStart(2, '0')}${bban}`;
}
export const grouped = (text: string, ...sizes: readonly number[]): string => {
  let at = 0;
  const part = (n: number): string => {
    at += n;
    return text.slice(at - n, at);
  };
  return sizes.map(part).join(' ');
};
const dni = (n: string): string => n + 'TRWAGMYFPDXBNJZSQVHLCKE'.charAt(modulo(n, 23));
const cpf = (head: string): string => {
  const next = (d: string): string => {
    const sum = [...d].reduce((s, c, k) => s + Number(c) * (d.length + 1 - k), 0);
    return String(((sum * 10) % 11) % 10);
  };
  const ten = head + next(head);
  const all = ten + next(ten);
  return `${all.slice(0, 3)}.${all.slice(3, 6)}.${all.slice(6, 9)}-${all.slice(9)}`;
};
const cnId = (head: string): string => {
  const sum = [...head].reduce((s, c, k) => s + Number(c) * (2 ** (17 - k) % 11), 0);
  return head + '10X98765432'.charAt(sum % 11);
};
const nir = (head: string): string => head + String(97 - modulo(head, 97)).padStart(2, '0');
/** Digits and the first ending that a test of others accepts: for schemes whose check digit is found by trying. */
const tried = (head: string, width: number, holds: (whole: string) => boolean): string => {
  for (let n = 0; n < 10 ** width; n++) {
    const whole = head + String(n).padStart(width, '0');
    if (holds(whole)) return whole;
  }
  throw new Error(`nothing ends ${head}`);
};
const sum = (d: string, weights: readonly number[]): number => weights.reduce((s, w, k) => s + w * Number(d[k]), 0);
const steuer = tried('8609574271', 1, (d) => {
  let product = 10;
  for (const c of d.slice(0, 10)) product = (2 * ((Number(c) + product) % 10 || 10)) % 11;
  return (11 - product) % 10 === Number(d[10]);
});
const nhs = tried('943476591', 1, (d) => (11 - (sum(d, [10, 9, 8, 7, 6, 5, 4, 3, 2]) % 11)) % 11 === Number(d[9]));
const bsn = tried('11122233', 1, (d) => sum(d, [9, 8, 7, 6, 5, 4, 3, 2, -1]) % 11 === 0);
const pesel = tried(
  '4405140135',
  1,
  (d) => (10 - (sum(d, [1, 3, 7, 9, 1, 3, 7, 9, 1, 3]) % 10)) % 10 === Number(d[10]),
);
const rrn = tried(
  '900101123456',
  1,
  (d) => (11 - (sum(d, [2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5]) % 11)) % 10 === Number(d[12]),
);
const tckn = tried('100000001', 2, (d) => {
  const odd = sum(d, [1, 0, 1, 0, 1, 0, 1, 0, 1]),
    even = sum(d, [0, 1, 0, 1, 0, 1, 0, 1]);
  return (((odd * 7 - even) % 10) + 10) % 10 === Number(d[9]) && sum(d, Array(10).fill(1)) % 10 === Number(d[10]);
});
const nrn = ((head: string): string => head + String(97 - modulo(head, 97)).padStart(2, '0'))('850730033');
const hetu = `131052-308${'0123456789ABCDEFHJKLMNPRSTUVWXY'.charAt(131052308 % 31)}`;
const pnr = withLuhn('811228987');

/** Each rule with texts in which it finds something. */
export const FOUND: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>> = {
  secrets: {
    'github-token': [
      ...['ghp_', 'gho_', 'ghu_', 'ghs_', 'ghr_'].map((p) => github(p)),
      `github_pat_${b62(22)}_${b62(59)}`,
    ],
    'npm-token': [github('npm_')],
    'pypi-token': [`pypi-AgEIcHlwaS5vcmc${url(60)}a`],
    'gitlab-token': [
      `glpat-${b62(20)}`,
      `glptt-${hex(40)}`,
      `glrt-${b62(20)}`,
      `glpat-${b62(27)}.01.${from(DIGITS + LOWER, 7)}`,
      `glcbt-64_${b62(20)}`,
    ],
    'slack-token': [
      `xoxb-${digits(12)}-${digits(13)}-${b62(24)}`,
      `xoxp-${digits(12)}-${digits(12)}-${digits(12)}-${hex(32)}`,
      `xapp-1-A${b62(10)}-${digits(13)}-${hex(64)}`,
      `xoxc-${digits(12)}-${digits(12)}-${digits(12)}-${hex(64)}`,
      `xoxd-${b62(120)}%2F${b62(20)}`,
    ],
    'slack-webhook': [
      `https://hooks.slack.com/services/T${from(UPPER, 8)}/B${from(UPPER, 10)}/${b62(24)}`,
      `https://hooks.slack.com/workflows/T${from(UPPER, 8)}/A${from(UPPER, 10)}/${digits(18)}/${b62(24)}`,
    ],
    'discord-webhook': [`https://discord.com/api/webhooks/1${digits(17)}/${b62(68)}`],
    'stripe-key': [`sk_live_${b62(24)}`, `rk_live_${b62(99)}`, `sk_test_${b62(30)}`, `whsec_${b62(32)}`],
    'openai-key': [
      `sk-${b62(20)}T3BlbkFJ${b62(20)}`,
      `sk-proj-${b62(74)}T3BlbkFJ${b62(74)}`,
      `sk-${b62(48)}`,
      `sk-${hex(32)}`,
    ],
    'anthropic-key': [`sk-ant-api03-${b62(93)}AA`],
    'openrouter-key': [`sk-or-v1-${hex(64)}`],
    'huggingface-token': [`hf_${b62(34)}`, `hf_${from(LOWER + UPPER, 34)}`, `api_org_${from(LOWER + UPPER, 34)}`],
    'together-key': [`tgp_v1_${b62(43)}`],
    'langsmith-key': [`lsv2_pt_${hex(32)}_${hex(10)}`],
    'mailgun-key': [`key-${hex(32)}`],
    'dropbox-token': [`sl.${b62(140)}`],
    'heroku-key': [`HRKU-${b62(40)}`],
    'sourcegraph-token': [`sgp_${hex(40)}`],
    'figma-token': [`figd_${b62(40)}`],
    'contentful-token': [`CFPAT-${b62(43)}`],
    'azure-key': [`${b62(40)}JQQJ99${b62(38)}`],
    'twilio-key': [`SK${hex(32)}`],
    'mailchimp-key': [`${hex(32)}-us14`],
    'databricks-token': [`dapi${hex(32)}`],
    'atlassian-token': [`ATATT3${b62(180)}=${hex(8)}`],
    'groq-key': [`gsk_${b62(52)}`],
    'xai-key': [`xai-${b62(80)}`],
    'perplexity-key': [`pplx-${b62(48)}`],
    'replicate-token': [`r8_${b62(37)}`],
    'nvidia-key': [`nvapi-${b62(64)}`],
    'google-secret': [`GOCSPX-${b62(28)}`, `ya29.${b62(80)}`, `1//0${b62(98)}`],
    'google-key': [`AIza${b62(35)}`],
    'sendgrid-key': [`SG.${b62(22)}.${b62(43)}`],
    'age-key': [age()],
    'grafana-token': [grafana()],
    'shopify-token': [`shpat_${hex(32)}`],
    'digitalocean-token': [`dop_v1_${hex(64)}`],
    'docker-token': [`dckr_pat_${b62(27)}`],
    'linear-key': [`lin_api_${b62(40)}`],
    'notion-token': [`ntn_${b62(46)}`],
    'vault-token': [`hvs.${b62(24)}`],
    'doppler-token': [`dp.pt.${b62(43)}`],
    'postman-key': [`PMAK-${hex(24)}-${hex(34)}`],
    'newrelic-key': [`NRAK-${from(UPPER + DIGITS, 27)}`],
    'rubygems-key': [`rubygems_${hex(48)}`],
    'supabase-key': [`sbp_${hex(40)}`, `sb_secret_${b62(31)}`],
    'planetscale-token': [`pscale_tkn_${b62(43)}`],
    'sentry-token': [`sntryu_${hex(64)}`],
    'square-secret': [`sq0csp-${b62(43)}`, `sq0atp-${b62(22)}`],
    'brevo-key': [`xkeysib-${hex(64)}-${b62(16)}`],
    'netlify-token': [`nfp_${b62(36)}`],
    'shippo-token': [`shippo_live_${hex(40)}`],
    'duffel-token': [`duffel_live_${b62(43)}`],
    'tailscale-key': [`tskey-auth-${b62(12)}-${b62(32)}`],
    'pulumi-token': [`pul-${hex(40)}`],
    'buildkite-token': [`bkua_${hex(40)}`],
    'private-key': [
      ...['RSA PRIVATE KEY', 'PRIVATE KEY', 'OPENSSH PRIVATE KEY', 'EC PRIVATE KEY', 'ENCRYPTED PRIVATE KEY'].map((l) =>
        pem(l),
      ),
      pem('PGP PRIVATE KEY BLOCK', '\r\n\r\n'),
      pem('PRIVATE KEY', '\\n'),
      pem('RSA PRIVATE KEY', '\nProc-Type: 4,ENCRYPTED\n\n'),
      `-----BEGIN PRIVATE KEY-----\n${b62(24)}\n${b62(24)}\n${b62(24)}\n-----END PRIVATE KEY-----`,
    ],
    jwt: [jwt(), jwt({ typ: 'JWT', alg: 'RS256', kid: 'k1' })],
    'aws-access-key': [
      `AKIA${from('ABCDEFGHIJKLMNOPQRSTUVWXYZ234567', 16)}`,
      `ASIA${from('ABCDEFGHIJKLMNOPQRSTUVWXYZ234567', 16)}`,
    ],
    'aws-secret-key': [
      `aws_secret_access_key = ${b62(37)}aZ9`,
      `"SecretAccessKey": "${b62(17)}/${b62(19)}aZ9"`,
      `AKIA${from('ABCDEFGHIJKLMNOPQRSTUVWXYZ234567', 16)}:${b62(37)}aZ9`,
    ],
    'aws-bedrock-key': [`ABSK${Buffer.from(`BedrockAPIKey-abcd-at-${digits(12)}:${b62(60)}`).toString('base64')}`],
    'discord-token': [`${b64(`1${digits(17)}`)}.${b62(6)}.${b62(38)}`],
    'telegram-token': [`${digits(10)}:AA${b62(33)}`],
    'entra-secret': [`abc8Q~${b62(34)}`],
    'azure-storage-key': [`AccountKey=${b62(86)}==`, `SharedAccessKey=${b62(43)}=`],
    'bitcoin-key': [wif()],
    'url-password': [`postgres://app:${b62(10)}@db.internal:5432/app`],
  },
  personal: {
    card: [
      withLuhn('411111111111111'),
      grouped(withLuhn('555555555555444'), 4, 4, 4, 4),
      grouped(withLuhn('37828224631000'), 4, 6, 5),
      withLuhn('601111111111111'),
      grouped(withLuhn('353011133330000'), 4, 4, 4, 4).replaceAll(' ', '-'),
      withLuhn('620000000000000'),
      withLuhn('222300004841001'),
      withLuhn('3056930902590'),
      grouped(withLuhn('411111111111111'), 4, 4, 4, 4).replaceAll(' ', '\u00a0'),
      [...withLuhn('411111111111111')].join(' '),
      grouped(withLuhn('411111111111111'), 4, 4, 4, 4).replace(' ', '-'),
      `paid 12 ${grouped(withLuhn('411111111111111'), 4, 4, 4, 4)}`,
      ...['_', ':', ' - ', '--', '\u00b7'].map((sign) =>
        grouped(withLuhn('411111111111111'), 4, 4, 4, 4).replaceAll(' ', sign),
      ),
      ...[',', ', ', '  ', '|'].map(
        (sign) => `my card ${grouped(withLuhn('411111111111111'), 4, 4, 4, 4).replaceAll(' ', sign)}`,
      ),
      grouped(withLuhn('37828224631000'), 4, 6, 5).replaceAll(' ', '_'),
    ],
    iban: [
      iban('DE', '370400440532013000'),
      grouped(iban('GB', 'WEST12345698765432'), 4, 4, 4, 4, 4, 2),
      iban('FR', '20041010050500013M02606'),
      iban('NO', '86011117947').toLowerCase(),
      grouped(iban('CH', '00762011623852957'), 4, 4, 4, 4, 4, 1),
      grouped(iban('CH', '00762011623852957'), 4, 4, 4, 4, 4, 1).replaceAll(' ', '_'),
      `IBAN${iban('DE', '370400440532013000')}`,
    ],
    email: [
      'write to jo.miller+x@mail.test',
      '<a_b@sub.domain-x.co.uk>',
      "o'neil@firm.ie.",
      'x@xn--bcher-kva.xn--p1ai',
      'jörg@bücher.test.de',
      'a@müller.de',
      '用户@例子.广告',
      '写信给jo@mail.de谢谢',
      '"jo miller"@mail.de',
    ],
    phone: [
      '+49 30 1234 5678',
      '+49 (0)30 12345678',
      '+1 (212) 555-0142',
      '+442079460958',
      '(212) 555-0142',
      '212-555-0142',
      '1-212-555-0142',
      '0171 555 0142',
      '01 23 45 67 89',
      '+91 98765 43210',
      'tel:+33-1-23-45-67-89',
      '0049 30 1234567',
      '0033 1 23 45 67 89',
      '011 44 20 7946 0958',
    ],
    'us-ssn': ['219-09-1234', 'SSN 219091234', 'his ssn: 219 09 1234', 'Social Security no. 219.09.1234'],
    'ca-sin': [
      grouped(withLuhn('13069254'), 3, 3, 3).replaceAll(' ', '-'),
      `SIN: my sin ${grouped(withLuhn('13069254'), 3, 3, 3)}`,
    ],
    'uk-nhs': [`NHS number ${grouped(nhs, 3, 3, 4)}`],
    'uk-nino': ['AB123456C'],
    'fr-nir': [nir('2850578006084'), grouped(nir('2850578006084'), 1, 2, 2, 2, 3, 3, 2)],
    'de-steuer-id': [`Steuer-ID ${steuer}`, grouped(steuer, 2, 3, 3, 3)],
    'es-dni': [dni('12345678')],
    'es-nie': [`X${dni('01234567').slice(1)}`],
    'it-cf': ['RSSMRA85T10A562S'],
    'be-nrn': [`${nrn.slice(0, 2)}.${nrn.slice(2, 4)}.${nrn.slice(4, 6)}-${nrn.slice(6, 9)}.${nrn.slice(9)}`],
    'nl-bsn': [`BSN: ${bsn}`],
    'pl-pesel': [`PESEL ${pesel}`],
    'se-pnr': [`${pnr.slice(0, 6)}-${pnr.slice(6)}`, `19${pnr.slice(0, 6)}-${pnr.slice(6)}`],
    'fi-hetu': [hetu],
    'tr-tckn': [`TC Kimlik No: ${tckn}`],
    'br-cpf': [cpf('529982247')],
    'in-aadhaar': ['Aadhaar 234123412346', '2341 2341 2346'],
    'cn-id': [cnId('11010519491231002')],
    'kr-rrn': [`${rrn.slice(0, 6)}-${rrn.slice(6)}`],
  },
  control: {
    harmony: ['<|start|>assistant', '<|END|>', '<|channel|>final<|message|>', '<|reserved_200017|>', '<|endoftext|>'],
    chatml: ['<|im_start|>system'],
    llama: ['<|begin_of_text|>', '<|start_header_id|>user', '<<SYS>>', '<|reserved_special_token_17|>'],
    phi: ['<|user|>'],
    qwen: ['<|fim_prefix|>'],
    cohere: ['<|START_OF_TURN_TOKEN|>'],
    deepseek: ['<｜begin▁of▁sentence｜>', '<｜tool▁calls▁begin｜>'],
    glm: ['[gMASK]', '<|observation|>'],
    kimi: ['<|im_user|>user', '<|tool_calls_section_begin|>'],
    granite: ['<|start_of_role|>system'],
    internlm: ['<|action_start|>'],
    mistral: ['[INST] hello [/INST]', '[TOOL_CALLS]'],
    gemma: ['<start_of_turn>model'],
  },
  invisible: {
    tags: [`hello ${[...'obey'].map((c) => String.fromCodePoint(0xe0000 + c.charCodeAt(0))).join('')}`],
    selectors: ['\u{1f600}\u{e0100}\u{e0121}\u{e0133}', '\u2764\ufe00\ufe01\ufe02', 'a\ufe0f'],
    'zero-width': ['pass\u200bword', 'a\u2060b', 'x \u200b\u200c\u200d y', 'Hangul\u3164filler'],
    direction: ['file\u202egpj.exe', 'if (admin\u2066 ) {\u2069'],
    'control-character': ['a\u0000b', '\u001b[31mred', 'a\u0008b', '\u009b1m', '\u007f'],
  },
  repetition: {
    loop: [
      'the '.repeat(160),
      'I am sorry, I cannot do that. '.repeat(40),
      'a'.repeat(700),
      '哈哈'.repeat(400),
      '0, 1, '.repeat(200),
    ],
  },
  canary: { canary: ['the marmot counts 4711 blue lanterns', 'The MARMOT-counts, 4711: blue.lanterns!'] },
};
export const CANARIES = ['The marmot counts 4711 blue lanterns.'];

/** Texts that nearly are one, in which nothing at all is to be found. */
export const NEAR_MISSES: readonly string[] = [
  broken(github()),
  broken(github('npm_')),
  github().slice(0, -1),
  `${github()}0`,
  `ghp_${'x'.repeat(36)}`,
  `sk_live_${'x'.repeat(24)}`,
  `sk_live_your${b62(20)}`,
  `pk_live_${b62(24)}`,
  `hf_${from(LOWER, 12)}`,
  'AKIAIOSFODNN7EXAMPLE',
  `AKIA${from('ABCDEFGHIJKLMNOPQRSTUVWXYZ234567', 12)}`,
  `xAKIA${from('ABCDEFGHIJKLMNOPQRSTUVWXYZ234567', 16)}`,
  `AIza${b62(20)}`,
  `xoxb-your-token-goes-here`,
  `commit ${hex(40)}`,
  `sha256 ${hex(64)}`,
  `aws_secret_access_key = ${hex(32)}`,
  `token ${b62(40)}`,
  broken(wif()),
  age().replace(/.$/, (c) => (c === 'Q' ? 'P' : 'Q')),
  broken(grafana()),
  `eyJ${b62(30)}.${b62(30)}.${b62(30)}`,
  `${b64('{"typ":"JWT"}')}.${b64('{"sub":"1"}')}.${b62(43)}`,
  '-----BEGIN PRIVATE KEY-----',
  'A key begins with "-----BEGIN RSA PRIVATE KEY-----" and ends with "-----END RSA PRIVATE KEY-----".',
  `-----BEGIN PUBLIC KEY-----\n${from(`${B62}+/`, 64)}\n-----END PUBLIC KEY-----`,
  `-----BEGIN CERTIFICATE-----\n${from(`${B62}+/`, 64)}\n-----END CERTIFICATE-----`,
  'postgres://user:password@localhost/db',
  'https://user:$PASSWORD@host/',
  'https://example.com:8080/@scope/package',
  'task-manager-and-some-more-words-in-a-long-name',
  // Numbers of other things.
  '4111 1111 1111 1112',
  '4111111111111112',
  '9111 1111 1111 1111',
  '4111_1111_1111_1112',
  // Four numbers of a list: Luhn holds by chance.
  '4111,1111,1111,1111',
  '[4111, 1111, 1111, 1111]',
  '4111\t1111\t1111\t1111',
  '| 4111 | 1111 | 1111 | 1111 |',
  // Of more: whatever the signs are.
  '4111_1111_1111_1111_2026',
  'the card has 2026,4111,1111,1111,1111',
  '4111:1111:1111:1111::1',
  'times 12:34:56.789 and 08:15, at 52.520008, 13.404954 or 40:26:46N 79:58:56W',
  '00 49 20 31 32 33 34 35 36 37',
  '0065 0302 0304 ; [.',
  '"chat"@fr-be . "x"@en.',
  'version 4.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1',
  '1234 5678 9012 3456 7890',
  '2026-11-28 21:44:04.123456',
  '1732829044123',
  'π = 3.14159265358979323846',
  'DE89 3704 0044 0532 0130 01',
  'GB00WEST12345698765432',
  'ISBN 978-3-16-148410-0',
  'bytes 0-1023/146515',
  '192.168.100.100:8080',
  '219-00-1234',
  '666-09-1234',
  '078-05-1120',
  'AB123456E',
  'BG123456A',
  '12345678A',
  'RSSMRA85T10A562T',
  '131052-308U',
  '1 000 000 000',
  'jo@example.com, root@localhost, x@y, @handle, a@b@c',
  'npm i pkg@1.2.3 and logo@2x.png',
  'call extension 12345',
  '20.11.2026',
  '+1',
  '+12 points',
  'x + 1234567890',
  // Markup of other kinds.
  'f <| x |> g',
  '<|>',
  '<| end |>',
  '<|end|',
  '<\\|end|>',
  'x = [INSTALL]',
  '<start>',
  'a || b',
  // Characters that have their use.
  '\u{1f468}\u200d\u{1f469}\u200d\u{1f467} and \u2764\ufe0f and 1\ufe0f\u20e3',
  '\u{1f3f4}\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}',
  'می\u200cخواهم',
  'क्\u200dष',
  'שלום \u2066abc\u2069 עולם',
  'extra\u00adordinary',
  'caf\u00e9 “quoted” — naïve … 100\u202f000',
  '葛\u{e0100}城',
  'tab\tand\r\nline',
  // Much of the same, yet not stuck.
  '-'.repeat(120),
  `| a | b |\n|---|---|\n${Array.from({ length: 12 }, (_, n) => `| ${n} | ${n * n} |`).join('\n')}`,
  'ha '.repeat(30),
];
