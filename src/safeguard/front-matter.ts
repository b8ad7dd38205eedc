// Front matter of a policy: YAML between two lines of three dashes at the very beginning. No judge sees it. What is
// known in it is checked; other fields are passed over, as policies of other tools carry their own.
import { isMap, isScalar, LineCounter, parseDocument } from 'yaml';
import { z } from 'zod';
import { ConfigError } from '../base/errors.js';
import { CONTRACT_NAMES, type ContractName } from './contracts/contract.js';
import { RELEASE_FIELDS } from './holdback/rules.js';

export const POLICY_CHANNELS = ['final', 'analysis', 'commentary'] as const;
export type PolicyChannel = (typeof POLICY_CHANNELS)[number];

const Share = z.number().min(0).max(1);
/** What a golden run must reach. Ratios from 0 to 1. */
const Held = z.strictObject({
  precision: Share.optional().describe('at least'),
  recall: Share.optional().describe('at least'),
  f1: Share.optional().describe('at least'),
  falsePositives: Share.optional().describe('share of safe rows that are blocked, at most'),
  unjudged: Share.optional().describe('share of all rows, at most; absent: 0'),
});
const Thresholds = Held.extend({
  /** `bound`: the whole 95 % interval must be on the right side, which small golden sets cannot reach. */
  hold: z.enum(['point', 'bound']).optional(),
  channels: z.partialRecord(z.enum(POLICY_CHANNELS), Held).optional(),
  rules: z.record(z.string(), z.strictObject({ recall: Share })).optional(),
});
export type HeldTo = z.infer<typeof Held>;
export type Thresholds = z.infer<typeof Thresholds>;

/** Fields that Temper reads. `contract` is checked apart, with an error of its own. */
const Settings = z.object({
  buffer: z.literal('whole').optional(),
  channels: z.array(z.enum(POLICY_CHANNELS)).min(1).optional(),
  thresholds: Thresholds.optional(),
});
export type PolicySettings = z.infer<typeof Settings>;
export const KNOWN_FIELDS: readonly string[] = ['contract', ...Object.keys(Settings.shape), ...RELEASE_FIELDS];
/** Fields that say something to people. */
export const FIELDS_FOR_PEOPLE: readonly string[] = ['title', 'description', 'version', 'author', 'licence', 'license'];

export interface FrontMatter {
  readonly fields: Readonly<Record<string, unknown>>;
  /** Line of each field, from 1. */
  readonly lines: ReadonlyMap<string, number>;
  /** Lines of the file before the body. */
  readonly before: number;
  readonly body: string;
  /** Why fields that Temper reads are none all the same; null: there are no such. */
  readonly lost: string | null;
}

/** Lines that are looked at for a field of ours where there is no front matter. */
const MOST_LINES = 60;
/** A field that Temper reads, in what begins as front matter and is none: it would be passed over without a word. */
function lostField(text: string): string | null {
  const lines = text.trimStart().split(/\r\n|\r|\n/, MOST_LINES);
  if (lines[0]?.trimEnd() !== '---') return null;
  const end = lines.findIndex((line, i) => i > 0 && /^(?:---|\.\.\.)\s*$/.test(line));
  const names = lines.slice(1, end < 0 ? undefined : end).map((line) => /^["']?(\w+)["']?\s*:/.exec(line)?.[1]);
  return names.find((name) => name !== undefined && KNOWN_FIELDS.includes(name)) ?? null;
}

/** What is between two lines of three dashes at the very beginning, if that is a mapping of YAML, and what follows. */
export function frontMatter(text: string): FrontMatter {
  const plainBy = (why: string): FrontMatter => {
    const field = lostField(text);
    const lost = field === null ? null : `${field} would not be read: ${why}`;
    return { fields: {}, lines: new Map<string, number>(), before: 0, body: text, lost };
  };
  const open = /^\ufeff?---[ \t]*\r?\n/.exec(text)?.[0];
  if (open === undefined) return plainBy('front matter stands at the very beginning');
  const close = /^(?:---|\.\.\.)[ \t]*(?:\r?\n|$)/m.exec(text.slice(open.length));
  if (!close) return plainBy('no second line of three dashes ends the front matter');
  const lineCounter = new LineCounter();
  const doc = parseDocument(text.slice(open.length, open.length + close.index), { uniqueKeys: true, lineCounter });
  let value: unknown;
  try {
    const [error] = doc.errors;
    if (error) throw error;
    value = doc.toJS({ maxAliasCount: 10 });
  } catch (error) {
    const [why = ''] = (error as Error).message.split('\n');
    return plainBy(`the front matter is no YAML (${why})`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return plainBy('it is no mapping of YAML');
  const lines = new Map<string, number>();
  if (isMap(doc.contents))
    for (const { key } of doc.contents.items)
      if (isScalar(key) && key.range) lines.set(String(key.value), lineCounter.linePos(key.range[0]).line + 1);
  const end = open.length + close.index + close[0].length;
  return {
    fields: value as Record<string, unknown>,
    lines,
    before: text.slice(0, end).split('\n').length - 1,
    body: text.slice(end),
    lost: null,
  };
}

/** @throws {ConfigError} policy_contract */
export function contractIn(name: string, fields: FrontMatter['fields']): ContractName | undefined {
  const { contract } = fields;
  if (contract === undefined) return undefined;
  const known = CONTRACT_NAMES.find((n) => n === contract);
  if (known === undefined)
    throw new ConfigError(
      'policy_contract',
      `policy ${name}: contract ${JSON.stringify(contract)} is unknown; wanted one of ${CONTRACT_NAMES.join(', ')}`,
    );
  return known;
}

/** @throws {ConfigError} policy_front_matter: a field that Temper reads holds something else than it may */
export function settingsIn(name: string, fields: FrontMatter['fields']): PolicySettings {
  const read = Settings.safeParse(fields);
  if (read.success) return read.data;
  const [issue] = read.error.issues;
  throw new ConfigError(
    'policy_front_matter',
    `policy ${name}: front matter, ${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'bad value'}; ` +
      'fields are in docs/guides/policies.md',
  );
}
