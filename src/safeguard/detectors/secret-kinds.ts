// Keys and tokens of services, as their makers document them: what they begin with, and what follows. A kind is found
// by the last sign of its prefix (`_`, `-`, `.`), so that it costs nothing where there is none.
import { bech32, crc32, endsInCrc } from './checks.js';

export interface SecretKind {
  readonly rule: string;
  /** Ends in one of `_`, `-` and `.`. */
  readonly prefix: string;
  /** Characters of what follows. */
  readonly of: Alphabet;
  /** How many, at least and at most. */
  readonly length: readonly [number, number];
  /** What follows, tested where the format has more to say: a checksum, a beginning, a middle. */
  readonly holds?: (body: string) => boolean;
  /** A checksum makes sure: it may stand in the middle of a word. */
  readonly sure?: boolean;
}
export type Alphabet = 'base62' | 'url' | 'hex' | 'capitals' | 'dotted' | 'base64';
const SETS: Readonly<Record<Alphabet, RegExp>> = {
  base62: /[A-Za-z0-9]/,
  url: /[A-Za-z0-9_-]/,
  hex: /[0-9a-fA-F]/,
  capitals: /[A-Z0-9]/,
  dotted: /[A-Za-z0-9_.-]/,
  base64: /[A-Za-z0-9+/=]/,
};
/** Whether a character is of an alphabet; 128 entries each. */
export const alphabets = Object.fromEntries(
  Object.entries(SETS).map(([name, set]) => [
    name,
    Uint8Array.from({ length: 128 }, (_, c) => (set.test(String.fromCharCode(c)) ? 1 : 0)),
  ]),
) as Readonly<Record<Alphabet, Uint8Array>>;

const github = (prefix: string): SecretKind => ({
  rule: 'github-token',
  prefix,
  of: 'base62',
  length: [36, 36],
  holds: endsInCrc,
  sure: true,
});
const parts =
  (...sizes: readonly (readonly [number, number])[]) =>
  (body: string): boolean => {
    const found = body.split('-');
    return (
      found.length === sizes.length &&
      sizes.every(([low, high], i) => (found[i] ?? '').length >= low && (found[i] ?? '').length <= high)
    );
  };
const simple = (rule: string, prefix: string, of: Alphabet, low: number, high = low): SecretKind => ({
  rule,
  prefix,
  of,
  length: [low, high],
});
const slack = (prefix: string): SecretKind => ({ rule: 'slack-token', prefix, of: 'url', length: [24, 250] });
const onlyHex = (text: string): boolean => /^[0-9a-f]+$/.test(text);

/** What follows `sk-`: keys of OpenAI, and of those that write theirs alike. */
function isOpenAi(body: string): boolean {
  if (/^(?:ant|or)-/.test(body)) return false;
  if (body.includes('T3BlbkFJ')) return body.length >= 40;
  if (/^(?:proj|svcacct|admin|None)-/.test(body)) return body.length >= 48;
  if (/[_-]/.test(body) || body.length > 64) return false;
  return (body.length === 32 && onlyHex(body)) || (/[0-9]/.test(body) && /[a-z]/.test(body) && /[A-Z]/.test(body));
}
/** `glsa_` 32 `_` 8: CRC-32 of all before it, in hexadecimal. */
const isGrafana = (body: string): boolean =>
  body.length === 41 &&
  body[32] === '_' &&
  body.slice(33).toLowerCase() ===
    crc32(`glsa_${body.slice(0, 32)}`)
      .toString(16)
      .padStart(8, '0');

export const SECRET_KINDS: readonly SecretKind[] = [
  ...['ghp_', 'gho_', 'ghu_', 'ghs_', 'ghr_'].map(github),
  {
    rule: 'github-token',
    prefix: 'github_pat_',
    of: 'url',
    length: [82, 82],
    holds: (body) => body[22] === '_' && !/[_-]/.test(body.slice(0, 22) + body.slice(23)),
  },
  { rule: 'npm-token', prefix: 'npm_', of: 'base62', length: [36, 36], holds: endsInCrc, sure: true },
  {
    rule: 'pypi-token',
    prefix: 'pypi-',
    of: 'url',
    length: [50, 900],
    holds: (b) => /^AgE(?:IcHlwaS5vcmc|NdGVz)/.test(b),
  },
  simple('gitlab-token', 'glpat-', 'url', 20, 24),
  {
    rule: 'gitlab-token',
    prefix: 'glpat-',
    of: 'dotted',
    length: [35, 320],
    holds: (b) => /^[\w-]{20,300}\.[0-9a-z]{2}(?:\.?[0-9a-z]{7})$/.test(b),
  },
  ...['gldt-', 'glrt-', 'glft-', 'glcbt-', 'glsoat-', 'glagent-', 'glimt-'].map((p) =>
    simple('gitlab-token', p, 'url', 20, 64),
  ),
  simple('gitlab-token', 'glptt-', 'hex', 40),
  {
    rule: 'slack-token',
    prefix: 'xoxb-',
    of: 'url',
    length: [27, 80],
    holds: (b) => parts([9, 14], [9, 14], [18, 34])(b) || parts([8, 14], [18, 26])(b),
  },
  ...['xoxp-', 'xoxa-', 'xoxr-', 'xoxs-', 'xoxo-', 'xoxc-', 'xoxd-', 'xoxe-', 'xoxe.xoxp-', 'xoxe.xoxb-'].map(slack),
  {
    rule: 'slack-token',
    prefix: 'xapp-',
    of: 'url',
    length: [40, 120],
    holds: parts([1, 2], [9, 14], [9, 16], [60, 70]),
  },
  {
    rule: 'slack-webhook',
    prefix: 'hooks.',
    of: 'dotted',
    length: [9, 9],
    holds: (b) => b === 'slack.com',
  },
  ...['discord.', 'discordapp.'].map(
    (prefix): SecretKind => ({
      rule: 'discord-webhook',
      prefix,
      of: 'dotted',
      length: [3, 3],
      holds: (b) => b === 'com',
    }),
  ),
  ...['sk_live_', 'rk_live_', 'sk_test_', 'rk_test_'].map((p) => simple('stripe-key', p, 'base62', 24, 250)),
  simple('stripe-key', 'whsec_', 'base62', 32, 64),
  { rule: 'openai-key', prefix: 'sk-', of: 'url', length: [32, 250], holds: isOpenAi },
  {
    rule: 'anthropic-key',
    prefix: 'sk-ant-',
    of: 'url',
    length: [80, 130],
    holds: (b) => /^[a-z]{2,8}[0-9]{2}-/.test(b),
  },
  { rule: 'openrouter-key', prefix: 'sk-or-v1-', of: 'hex', length: [64, 64] },
  simple('huggingface-token', 'hf_', 'base62', 34, 40),
  simple('huggingface-token', 'api_org_', 'base62', 34, 40),
  simple('together-key', 'tgp_v1_', 'url', 43),
  simple('langsmith-key', 'lsv2_pt_', 'url', 43),
  simple('langsmith-key', 'lsv2_sk_', 'url', 43),
  simple('mailgun-key', 'key-', 'hex', 32),
  simple('dropbox-token', 'sl.', 'url', 130, 900),
  simple('heroku-key', 'HRKU-', 'url', 36, 64),
  simple('sourcegraph-token', 'sgp_', 'hex', 40),
  simple('figma-token', 'figd_', 'url', 40, 48),
  simple('contentful-token', 'CFPAT-', 'url', 43),
  simple('groq-key', 'gsk_', 'base62', 52),
  simple('xai-key', 'xai-', 'base62', 80),
  simple('perplexity-key', 'pplx-', 'base62', 48),
  simple('replicate-token', 'r8_', 'base62', 37),
  simple('nvidia-key', 'nvapi-', 'url', 64),
  simple('google-secret', 'GOCSPX-', 'url', 28),
  simple('google-secret', 'ya29.', 'url', 50, 900),
  simple('sendgrid-key', 'SG.', 'dotted', 66),
  { rule: 'age-key', prefix: 'AGE-SECRET-KEY-', of: 'base62', length: [59, 59], holds: isAge, sure: true },
  { rule: 'grafana-token', prefix: 'glsa_', of: 'url', length: [41, 41], holds: isGrafana, sure: true },
  ...['shpat_', 'shpss_', 'shpca_', 'shppa_'].map((p) => simple('shopify-token', p, 'hex', 32)),
  ...['dop_v1_', 'doo_v1_', 'dor_v1_'].map((p) => simple('digitalocean-token', p, 'hex', 64)),
  simple('docker-token', 'dckr_pat_', 'url', 27, 32),
  simple('docker-token', 'dckr_oat_', 'url', 27, 32),
  simple('linear-key', 'lin_api_', 'base62', 40),
  simple('notion-token', 'ntn_', 'base62', 46),
  simple('vault-token', 'hvs.', 'url', 24, 200),
  simple('vault-token', 'hvb.', 'url', 100, 300),
  simple('doppler-token', 'dp.pt.', 'base62', 43),
  simple('postman-key', 'PMAK-', 'url', 59),
  simple('newrelic-key', 'NRAK-', 'base62', 27),
  simple('rubygems-key', 'rubygems_', 'hex', 48),
  simple('supabase-key', 'sbp_', 'hex', 40),
  simple('supabase-key', 'sb_secret_', 'url', 24, 64),
  simple('planetscale-token', 'pscale_tkn_', 'dotted', 32, 64),
  simple('planetscale-token', 'pscale_pw_', 'dotted', 32, 64),
  simple('sentry-token', 'sntryu_', 'hex', 64),
  simple('sentry-token', 'sntrys_', 'url', 80, 900),
  simple('square-secret', 'sq0csp-', 'url', 43),
  simple('square-secret', 'sq0atp-', 'url', 22),
  {
    rule: 'brevo-key',
    prefix: 'xkeysib-',
    of: 'url',
    length: [81, 81],
    holds: (b) => /^[0-9a-f]{64}-[A-Za-z0-9]{16}$/.test(b),
  },
  simple('netlify-token', 'nfp_', 'base62', 36),
  simple('shippo-token', 'shippo_live_', 'hex', 40),
  simple('duffel-token', 'duffel_live_', 'url', 43),
  simple('tailscale-key', 'tskey-auth-', 'url', 20, 80),
  simple('tailscale-key', 'tskey-api-', 'url', 20, 80),
  simple('pulumi-token', 'pul-', 'hex', 40),
  simple('buildkite-token', 'bkua_', 'hex', 40),
];

/** `AGE-SECRET-KEY-` 1, then bech32 in capitals. */
function isAge(body: string): boolean {
  return body[0] === '1' && bech32(`AGE-SECRET-KEY-${body}`);
}
