// What was observed: outcomes.jsonl has a row for each metric, prompt, sample and arm. Nothing else decides, so that
// anyone can decide again. Rows are kept as columns of numbers; their order in the file says nothing.
import { z } from 'zod';
import { sha256 } from '../base/digest.js';
import { DataError } from '../base/errors.js';
import { readInput } from '../base/inputs.js';
import { parseJson } from '../base/json.js';
import { asReadError } from '../base/system-error.js';
import { NamedDigest } from '../runs/named-digest.js';

/** What is compared: the base, the adapter on it, and where one is to leave the checkpoint that it is merged into. */
export const ARMS = ['base', 'adapter', 'merged'] as const;
export type Arm = (typeof ARMS)[number];
/** Arms that are held against the base. */
export const JUDGED_ARMS = ['adapter', 'merged'] as const;
export type JudgedArm = (typeof JUDGED_ARMS)[number];

const MAX_NAME = 1024;
const MAX_SAMPLE = 4095;
/** Of one row, its free fields included: an answer and its thoughts. */
const MAX_LINE_BYTES = 4 << 20;
export const MAX_OUTCOMES = 10_000_000;
/** Powers and sums of larger numbers are no numbers any more, and nothing can be held against a limit. */
export const MAX_VALUE = 1e30;

const Text = z.string().min(1).max(MAX_NAME);
/** A row of outcomes.jsonl. Further fields are for readers and decide nothing. */
export const Outcome = z.looseObject({
  metric: z.string().min(1).max(64),
  slice: Text.nullish().describe('absent or null: the prompt is in no slice'),
  prompt: Text.describe('id of the prompt; rows of all arms are paired by slice, prompt and sample'),
  sample: z.int().min(0).max(MAX_SAMPLE),
  arm: z.enum(ARMS),
  value: z
    .number()
    .min(-MAX_VALUE)
    .max(MAX_VALUE)
    .nullable()
    .describe('0 or 1 for a rate, where 1 is the event; null: there is none'),
  cluster: Text.nullish().describe('prompts of one template or family are drawn together; absent: the prompt itself'),
  truth: z
    .union([z.literal(0), z.literal(1)])
    .nullish()
    .describe('for gmean2: whether the monitor should flag this one; the value says whether it was right'),
  judge: NamedDigest.nullish().describe('of the judge that was asked; must be the lock’s'),
  policy: NamedDigest.nullish().describe('of the policy’s file; must be one that the lock has'),
});
export type Outcome = z.infer<typeof Outcome>;

/** Outcomes as columns, one entry a row in the order of the file. */
export interface Outcomes {
  readonly count: number;
  /** Of the file's bytes, "sha256:…". */
  readonly digest: string;
  /** Names that the columns below number, in order; those of slices begin with '' for none. */
  readonly metrics: readonly string[];
  readonly slices: readonly string[];
  readonly prompts: readonly string[];
  readonly clusters: readonly string[];
  readonly metric: Int32Array;
  readonly slice: Int32Array;
  readonly prompt: Int32Array;
  readonly cluster: Int32Array;
  readonly sample: Int32Array;
  /** Place in ARMS. */
  readonly arm: Uint8Array;
  /** NaN: missing. */
  readonly value: Float64Array;
  /** −1: the row says nothing. */
  readonly truth: Int8Array;
  /** Lines of the file, from 1. */
  readonly line: Int32Array;
  /** Rows by metric, slice, prompt, sample and arm, whatever their order in the file. */
  readonly order: Uint32Array;
  /** Digests that rows name. */
  readonly judges: readonly string[];
  readonly policies: readonly string[];
}

/** Names get numbers as they come, and are renumbered in their own order at the end. */
class Names {
  readonly #numbers = new Map<string, number>();
  readonly list: string[] = [];
  /** Sorted names, and the column with their new numbers. */
  sorted(column: readonly number[]): readonly [readonly string[], Int32Array] {
    const names = [...this.list].sort();
    const renumbered = new Int32Array(names.length);
    names.forEach((name, now) => {
      renumbered[this.#numbers.get(name) as number] = now;
    });
    return [names, Int32Array.from(column, (old) => renumbered[old] as number)];
  }
  number(name: string): number {
    let n = this.#numbers.get(name);
    if (n === undefined) {
      n = this.list.length;
      this.list.push(name);
      this.#numbers.set(name, n);
    }
    return n;
  }
}

const isName = (v: unknown, most = MAX_NAME): boolean => typeof v === 'string' && v.length > 0 && v.length <= most;
const isAbsentOr = (v: unknown, test: (v: unknown) => boolean): boolean => v === undefined || v === null || test(v);
/** The schema above, in the time that a hundred thousand rows have. */
function isOutcome(row: unknown): row is Outcome {
  if (typeof row !== 'object' || row === null || Array.isArray(row)) return false;
  const r = row as Record<string, unknown>;
  return (
    isName(r.metric, 64) &&
    isName(r.prompt) &&
    isAbsentOr(r.slice, isName) &&
    isAbsentOr(r.cluster, isName) &&
    ARMS.some((arm) => arm === r.arm) &&
    Number.isInteger(r.sample) &&
    (r.sample as number) >= 0 &&
    (r.sample as number) <= MAX_SAMPLE &&
    (r.value === null || (typeof r.value === 'number' && Math.abs(r.value) <= MAX_VALUE)) &&
    isAbsentOr(r.truth, (v) => v === 0 || v === 1) &&
    isAbsentOr(r.judge, (v) => NamedDigest.safeParse(v).success) &&
    isAbsentOr(r.policy, (v) => NamedDigest.safeParse(v).success)
  );
}

/** Arms that were held against the base: the adapter always, since what of it is missing counts. */
export const judgedArms = ({ arm }: Outcomes): readonly JudgedArm[] =>
  arm.includes(ARMS.indexOf('merged')) ? JUDGED_ARMS : ['adapter'];

/** Collects rows, refuses the second one of a kind. */
export class OutcomesBuilder {
  readonly #metrics = new Names();
  readonly #slices = new Names();
  readonly #prompts = new Names();
  readonly #clusters = new Names();
  readonly #judges = new Set<string>();
  readonly #policies = new Set<string>();
  readonly #rows = {
    metric: [] as number[],
    slice: [] as number[],
    prompt: [] as number[],
    cluster: [] as number[],
    sample: [] as number[],
    arm: [] as number[],
    value: [] as number[],
    truth: [] as number[],
    line: [] as number[],
  };
  constructor() {
    this.#slices.number('');
  }
  get count(): number {
    return this.#rows.line.length;
  }
  add(row: Outcome, line: number): void {
    const to = this.#rows;
    to.metric.push(this.#metrics.number(row.metric));
    to.slice.push(this.#slices.number(row.slice ?? ''));
    to.prompt.push(this.#prompts.number(row.prompt));
    to.cluster.push(this.#clusters.number(row.cluster ?? row.prompt));
    to.sample.push(row.sample);
    to.arm.push(ARMS.indexOf(row.arm));
    to.value.push(row.value ?? Number.NaN);
    to.truth.push(row.truth ?? -1);
    to.line.push(line);
    if (row.judge) this.#judges.add(row.judge);
    if (row.policy) this.#policies.add(row.policy);
  }
  /** @throws {DataError} outcome_twice */
  finish(digest: string, file = 'outcomes'): Outcomes {
    const r = this.#rows;
    const [metrics, metric] = this.#metrics.sorted(r.metric);
    const [slices, slice] = this.#slices.sorted(r.slice);
    const [prompts, prompt] = this.#prompts.sorted(r.prompt);
    const [clusters, cluster] = this.#clusters.sorted(r.cluster);
    const columns = {
      count: this.count,
      digest,
      metrics,
      slices,
      prompts,
      clusters,
      metric,
      slice,
      prompt,
      cluster,
      sample: Int32Array.from(r.sample),
      arm: Uint8Array.from(r.arm),
      value: Float64Array.from(r.value),
      truth: Int8Array.from(r.truth),
      line: Int32Array.from(r.line),
      judges: [...this.#judges].sort(),
      policies: [...this.#policies].sort(),
    };
    const made: Outcomes = { ...columns, order: sortedRows(columns) };
    refuseTwice(made, file);
    return made;
  }
}

function sortedRows(o: Omit<Outcomes, 'order'>): Uint32Array {
  const samples = o.sample.reduce((most, k) => Math.max(most, k), 0) + 1;
  const places = o.metrics.length * o.slices.length * o.prompts.length * samples * ARMS.length;
  const row = (i: number): number => {
    const prompt =
      ((o.metric[i] as number) * o.slices.length + (o.slice[i] as number)) * o.prompts.length + (o.prompt[i] as number);
    return (prompt * samples + (o.sample[i] as number)) * ARMS.length + (o.arm[i] as number);
  };
  // A place and the row's number fit one double, but for files of another size than these.
  if (places * o.count < 2 ** 53) {
    const keys = new Float64Array(o.count);
    for (let i = 0; i < o.count; i++) keys[i] = row(i) * o.count + i;
    return Uint32Array.from(keys.sort(), (key) => key % o.count);
  }
  const order = new Uint32Array(o.count).map((_, i) => i);
  return order.sort(
    (a, b) =>
      (o.metric[a] as number) - (o.metric[b] as number) ||
      (o.slice[a] as number) - (o.slice[b] as number) ||
      (o.prompt[a] as number) - (o.prompt[b] as number) ||
      (o.sample[a] as number) - (o.sample[b] as number) ||
      (o.arm[a] as number) - (o.arm[b] as number) ||
      a - b,
  );
}
const SAME = ['metric', 'slice', 'prompt', 'sample', 'arm'] as const;
function refuseTwice(o: Outcomes, file: string): void {
  const { order } = o;
  let first: readonly [number, number] | null = null;
  for (let i = 1; i < order.length; i++) {
    const [a, b] = [order[i - 1] as number, order[i] as number];
    if (!SAME.every((name) => o[name][a] === o[name][b])) continue;
    if (first === null || (o.line[b] as number) < (o.line[first[1]] as number)) first = [a, b];
  }
  if (first === null) return;
  const [a, b] = first;
  const key = [o.metrics[o.metric[b] as number], o.slices[o.slice[b] as number], o.prompts[o.prompt[b] as number]];
  throw new DataError(
    'outcome_twice',
    `${file}:${o.line[b]}: the outcome of metric, slice, prompt ${shown(key)}, sample ${o.sample[b]}, arm ` +
      `${ARMS[o.arm[b] as number]} is there already, in line ${o.line[a]}; wanted one row for each`,
    { file, line: o.line[b], other: o.line[a] },
  );
}
/** What a file says is not for a terminal as it stands. */
const shown = (value: unknown): string => {
  const text = JSON.stringify(value).replaceAll(/[\u007f-\u009f\u2028-\u202e\u2066-\u2069]/g, '?');
  return text.length > 200 ? `${text.slice(0, 200)}…` : text;
};

/** The same of a sentence that quotes it. */
const plainText = (text: string): string => shown(text).slice(1, -1).replaceAll('\\"', '"').slice(0, 120);

/** Why a row is none, e.g. "value is not valid: expected number, received string". */
function faultOf(row: unknown): string {
  const [issue] = Outcome.safeParse(row).error?.issues ?? [];
  if (!issue) return 'is no outcome';
  const at = issue.path.join('.');
  return `${at === '' ? 'the row' : at} is not valid: ${issue.message.replace(/^Invalid (input|option): /, '')}`;
}
const WANTED =
  'one object per line: {"metric", "slice", "prompt", "sample", "arm": "base", "adapter" or "merged", ' +
  '"value": a number or null}';

/**
 * Lines of JSON, blank ones passed over, each given with its number.
 * @throws {DataError} not_utf8, not_json, line_too_long
 */
export function* jsonLines(bytes: Uint8Array, file: string, wanted: string): Generator<[unknown, number], void, void> {
  const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let from = 0, line = 1; from < buffer.length; line++) {
    const at = buffer.indexOf(10, from);
    const end = at < 0 ? buffer.length : at;
    if (end - from > MAX_LINE_BYTES)
      throw new DataError(
        'line_too_long',
        `${file}:${line}: the line is longer than ${MAX_LINE_BYTES} bytes; wanted ${wanted}`,
        { file, line },
      );
    const piece = buffer.subarray(from, end);
    from = end + 1;
    let text: string;
    try {
      text = decoder.decode(piece);
    } catch (e) {
      const details = { file, line };
      throw new DataError('not_utf8', `${file}:${line}: the row is not UTF-8`, details, { cause: e });
    }
    if (/^\s*$/.test(text)) continue;
    let row: unknown;
    try {
      row = parseJson(text);
    } catch (e) {
      const why = text.startsWith('\ufeff') ? 'it begins with a byte order mark' : plainText((e as Error).message);
      const what = `${file}:${line}: the row is not JSON: ${why}; wanted ${wanted}`;
      throw new DataError('not_json', what, { file, line }, { cause: e });
    }
    yield [row, line];
  }
}

/**
 * Outcomes of bytes as if they lay in `file`. A file without rows is one: nothing was observed.
 * @throws {DataError} bad_outcome, outcome_twice, too_many_outcomes, and as jsonLines
 */
export function parseOutcomes(bytes: Uint8Array, file = 'outcomes'): Outcomes {
  const builder = new OutcomesBuilder();
  for (const [row, line] of jsonLines(bytes, file, WANTED)) {
    if (!isOutcome(row)) {
      const details = { file, line };
      throw new DataError('bad_outcome', `${file}:${line}: ${faultOf(row)}; wanted ${WANTED}`, details);
    }
    if (builder.count === MAX_OUTCOMES)
      throw new DataError('too_many_outcomes', `${file}:${line}: more than ${MAX_OUTCOMES} rows; split the suite`, {
        file,
        line,
      });
    builder.add(row, line);
  }
  return builder.finish(`sha256:${sha256(bytes)}`, file);
}
const NEXT = 'outcomes are JSON lines, which temper gate writes (docs/gate.md)';
/** @throws {DataError} unreadable, and as parseOutcomes */
export function readOutcomes(file: string): Outcomes {
  return parseOutcomes(bytesOf(file), file);
}
/** @throws {DataError} unreadable */
export function bytesOf(file: string): Buffer {
  try {
    return readInput(file, 'outcomes');
  } catch (e) {
    throw asReadError(e, file, NEXT, (message) => new DataError('unreadable', message, { file }));
  }
}

const LabelValue = z.number().min(-MAX_VALUE).max(MAX_VALUE);
/** A row of labels.jsonl: what a person says of the arms of a pair, which counts instead of what the judge said. */
export const Label = z.strictObject({
  metric: z.string().min(1).max(64),
  slice: Text.nullish(),
  prompt: Text,
  sample: z.int().min(0).max(MAX_SAMPLE),
  base: LabelValue,
  adapter: LabelValue,
  merged: LabelValue.optional().describe('where the outcomes have such an arm'),
  of: z
    .strictObject({ base: NamedDigest.optional(), adapter: NamedDigest.optional(), merged: NamedDigest.optional() })
    .optional()
    .describe('digests of the outcomes that it is about (gate/cells.ts): it counts for no others'),
  by: z.string().min(1).max(256).describe('who says so'),
  note: z.string().max(10_000).nullish(),
  at: z.string().max(64).nullish().describe('when'),
});
export type Label = z.infer<typeof Label>;
export interface Labels {
  readonly rows: readonly (Label & { readonly line: number })[];
  readonly digest: string;
  readonly file: string;
}
const WANTED_LABEL = 'one object per line: {"metric", "slice", "prompt", "sample", "base", "adapter", "by": a name}';
/** @throws {DataError} unreadable, bad_label, and as jsonLines */
export function readLabels(file: string): Labels {
  return parseLabels(bytesOf(file), file);
}
/** @throws {DataError} bad_label, and as jsonLines */
export function parseLabels(bytes: Uint8Array, file = 'labels'): Labels {
  const rows: Labels['rows'][number][] = [];
  const seen = new Map<string, number>();
  const bad = (line: number, what: string): DataError =>
    new DataError('bad_label', `${file}:${line}: ${what}; wanted ${WANTED_LABEL}`, { file, line });
  for (const [row, line] of jsonLines(bytes, file, WANTED_LABEL)) {
    const parsed = Label.safeParse(row);
    if (!parsed.success) {
      const [issue] = parsed.error.issues;
      const at = issue?.path.join('.') || 'the row';
      throw bad(line, `${at} is not valid: ${issue?.message.replace(/^Invalid (input|option): /, '')}`);
    }
    const { metric, slice, prompt, sample } = parsed.data;
    const key = JSON.stringify([metric, slice ?? '', prompt, sample]);
    const other = seen.get(key);
    if (other !== undefined) throw bad(line, `the pair ${shown(key)} has a label already, in line ${other}`);
    seen.set(key, line);
    rows.push({ ...parsed.data, line });
    if (rows.length > MAX_OUTCOMES) throw bad(line, `more than ${MAX_OUTCOMES} rows`);
  }
  return { rows, digest: `sha256:${sha256(bytes)}`, file };
}
