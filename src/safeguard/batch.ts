// Screening a JSONL file: rows in, one verdict row per channel and policy out, whole or not at all. Rows may carry what
// a reviewer expects. Every row is read before the first is judged, and what a run that stops has judged is kept for
// the next.
import { appendFile, type FileHandle, mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { ConfigError, DataError, type ErrorCode, ScreeningError } from '../base/errors.js';
import { putInPlace } from '../base/files.js';
import { inputPieces } from '../base/inputs.js';
import { hasLoneSurrogate, parseJson, withParsedConversations } from '../base/json.js';
import { checkOutputs, placeOf } from '../base/outputs.js';
import { asReadError } from '../base/system-error.js';
import type { Message } from '../harmony/types.js';
import { type Agreement, agreementOf, type VerdictRow } from './agreement.js';
import { type Columns, type Passed, readColumns } from './columns.js';
import { isDetectorVerdict } from './detectors/index.js';
import { keptPath, ownPart, readKept } from './kept.js';
import { type Channels, HOPELESS_CALLS, type Screen, type ScreenResult } from './screen.js';
import { transcript } from './transcript.js';
import type { UnjudgedCause } from './types.js';

const Expect = z.string().nullable().describe('rule that the text breaks, or null: what a reviewer says');
const TextPart = z.union([
  z.strictObject({
    type: z.enum(['text', 'output_text', 'input_text']),
    text: z.string(),
    annotations: z.array(z.unknown()).nullish(),
    logprobs: z.array(z.unknown()).nullish(),
  }),
  z.strictObject({ type: z.literal('refusal'), refusal: z.string() }),
]);
/** Fields of any message, null where a client writes "absent". */
const fields = {
  channel: z.string().nullish(),
  thinking: z.string().nullish(),
  reasoning: z.string().nullish(),
  reasoning_content: z.string().nullish(),
  refusal: z.string().nullish(),
  tool_calls: z.array(z.looseObject({})).nullish(),
  name: z.string().nullish(),
  tool_call_id: z.string().nullish(),
  annotations: z.array(z.unknown()).nullish(),
  function_call: z.looseObject({}).nullish(),
  audio: z.null({ error: 'sound cannot be judged' }).optional(),
  weight: z.number().nullish(),
};
const RowMessage = z.discriminatedUnion('role', [
  z.strictObject({
    ...fields,
    role: z.literal('assistant'),
    content: z.union([z.string(), z.array(TextPart)]).nullish(),
  }),
  // Of others nothing is judged, pictures and sound included.
  z.strictObject({
    ...fields,
    role: z.enum(['system', 'developer', 'user', 'tool']),
    content: z.union([z.string(), z.array(z.looseObject({ type: z.string() }))]).nullish(),
  }),
]);
/** Strict, as a misspelt field would be text that nobody judged. */
const Row = z.strictObject({
  id: z.union([z.string(), z.number()]).nullish().describe('names the row in verdicts; the line number if absent'),
  text: z.string().nullish().describe('one text, on `channel`'),
  channel: z.string().nullish().describe('channel of `text`, final if absent'),
  channels: z.record(z.string(), z.string().nullish()).nullish().describe('text by channel'),
  messages: z.array(RowMessage).nullish().describe('a conversation; what the assistant wrote is judged'),
  tools: z.unknown().optional().describe('what the assistant was offered; not judged'),
  reasoning_effort: z.string().nullish().describe('not judged'),
  parallel_tool_calls: z.boolean().nullish().describe('not judged'),
  response_format: z.unknown().optional().describe('not judged'),
  policy: z.string().nullish().describe('the policy that `expect` speaks of; with one policy it may be absent'),
  expect: z
    .union([Expect, z.record(z.string(), Expect)])
    .optional()
    .describe('for `text` the rule or null, for `channels` the same by channel'),
});
type Row = z.infer<typeof Row>;

const MAX_LINE_BYTES = 16 * 2 ** 20;

/**
 * Lines of a UTF-8 file with their numbers from 1; blank lines are left out. @throws {DataError} unreadable, not UTF-8,
 * line too long
 */
async function* readLines(file: string): AsyncGenerator<{ readonly line: number; readonly text: string }> {
  const decode = (bytes: Buffer, line: number): string => {
    try {
      return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    } catch (cause) {
      throw new DataError(
        'row_utf8',
        `${file}:${line}: not valid UTF-8; convert the file first`,
        { file, line },
        { cause },
      );
    }
  };
  let rest: Buffer = Buffer.alloc(0);
  let line = 0;
  try {
    for await (const chunk of inputPieces(file)) {
      let from = 0;
      for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, from)) {
        const text = decode(Buffer.concat([rest, chunk.subarray(from, at)]), ++line);
        rest = Buffer.alloc(0);
        from = at + 1;
        if (text.trim() !== '') yield { line, text };
      }
      rest = Buffer.concat([rest, chunk.subarray(from)]);
      if (rest.length > MAX_LINE_BYTES)
        throw new DataError('row_too_long', `${file}:${line + 1}: row longer than ${MAX_LINE_BYTES} bytes; split it`, {
          file,
          line: line + 1,
        });
    }
  } catch (cause) {
    throw asReadError(cause, file, 'give a file with one JSON object per line', (message) => {
      return new DataError('file_unreadable', message, { file });
    });
  }
  const text = decode(rest, ++line);
  if (text.trim() !== '') yield { line, text };
}

export interface ScreenRow {
  readonly id: string;
  readonly line: number;
  readonly channels: Channels;
  readonly policy: string | null;
  readonly expect: Readonly<Record<string, string | null>>;
}

/** Reads one row. @throws {DataError} not JSON, unknown field, not exactly one of text, channels and messages */
export function parseRow(file: string, line: number, text: string): ScreenRow {
  const fail = (code: ErrorCode, message: string): DataError =>
    new DataError(code, `${file}:${line}: ${message}`, { file, line });
  let json: unknown;
  try {
    json = withParsedConversations(parseJson(text));
  } catch (cause) {
    throw fail('row_json', `not JSON (${(cause as Error).message}); wanted one object per line`);
  }
  if (hasLoneSurrogate(json))
    throw fail(
      'row_utf8',
      'a text holds half of a surrogate pair, which no UTF-8 has: no digest could name it; repair it',
    );
  const parsed = Row.safeParse(json);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw fail(
      'row_schema',
      `${issue?.path.length ? `${issue.path.join('.')}: ` : ''}${issue?.message ?? 'bad row'}; ` +
        'wanted {id?, text, channel?} or {id?, channels} or {id?, messages}',
    );
  }
  const row = parsed.data;
  if ([row.text, row.channels, row.messages].filter((v) => v !== undefined && v !== null).length !== 1) {
    throw fail('row_schema', 'wanted exactly one of text, channels and messages');
  }
  const channels = channelsOf(row);
  return {
    id: String(row.id ?? line),
    line,
    channels,
    policy: row.policy ?? null,
    expect: expectOf(row, channels, fail),
  };
}

function channelsOf(row: Row): Channels {
  if (typeof row.text === 'string') return Object.fromEntries([[row.channel ?? 'final', row.text]]);
  if (row.channels)
    return Object.fromEntries(
      Object.entries(row.channels).filter((entry): entry is [string, string] => typeof entry[1] === 'string'),
    );
  return transcript((row.messages ?? []).flatMap(written));
}

/** A tool call as servers write them; one of any other shape is judged as the JSON that it is. */
const ToolCall = z.strictObject({
  id: z
    .string()
    .regex(/^[A-Za-z0-9_-]{1,64}$/)
    .nullish(),
  type: z.literal('function').nullish(),
  index: z.int().nullish(),
  function: z.strictObject({ name: z.string(), arguments: z.string() }),
});

type Part = z.infer<typeof TextPart>;
const textOfPart = (part: Part): string => (part.type === 'refusal' ? part.refusal : part.text);
const annotationsOf = (part: Part): readonly unknown[] => (part.type === 'refusal' ? [] : (part.annotations ?? []));

/** What the assistant wrote in a message of a row, as harmony has it: analysis, answer, refusal, tool calls. */
function written(m: z.infer<typeof RowMessage>): Message[] {
  if (m.role !== 'assistant') return [];
  const name = typeof m.name === 'string' ? { name: m.name } : {};
  const say = (channel: string, content: string | null | undefined): Message[] =>
    content ? [{ role: 'assistant', channel, content, ...name }] : [];
  return [
    ...[m.thinking, m.reasoning, m.reasoning_content].flatMap((text) => say('analysis', text)),
    ...say(m.channel ?? 'final', typeof m.content === 'string' ? m.content : m.content?.map(textOfPart).join('')),
    ...say('final', m.refusal),
    // Titles and addresses that the answer carries, and a call of the old form.
    ...[...(m.annotations ?? []), ...(Array.isArray(m.content) ? m.content.flatMap(annotationsOf) : [])].flatMap(
      (value) => say('annotations', JSON.stringify(value)),
    ),
    ...(m.function_call ? say('commentary', JSON.stringify(m.function_call)) : []),
    ...(m.tool_calls ?? []).flatMap((value): Message[] => {
      const call = ToolCall.safeParse(value).data?.function;
      return call
        ? [{ role: 'assistant', channel: 'commentary', recipient: `functions.${call.name}`, content: call.arguments }]
        : say('commentary', JSON.stringify(value));
    }),
  ];
}

function expectOf(
  row: Row,
  channels: Channels,
  fail: (code: ErrorCode, message: string) => DataError,
): Readonly<Record<string, string | null>> {
  if (row.expect === undefined) return {};
  if (row.expect === null || typeof row.expect === 'string') {
    if (typeof row.text !== 'string')
      throw fail(
        'row_schema',
        'expect: one rule or null goes with text; with channels or messages wanted {channel: rule or null}',
      );
    return Object.fromEntries([[row.channel ?? 'final', row.expect]]);
  }
  const unknown = Object.keys(row.expect).find((channel) => !Object.hasOwn(channels, channel));
  if (unknown !== undefined) throw fail('row_schema', `expect: channel ${JSON.stringify(unknown)} is not in the row`);
  return row.expect;
}

export interface BatchSummary {
  readonly rows: number;
  readonly verdicts: number;
  readonly allow: number;
  readonly block: number;
  readonly unjudged: number;
  readonly causes: Readonly<Record<string, number>>;
  /** One `detail` for each cause: the first. */
  readonly samples: Readonly<Record<string, string>>;
  /** Verdicts that a run before had reached and this one did not ask for again. */
  readonly kept: number;
  /** Rows that were passed over, as the column of their text is empty. */
  readonly blank: number;
  /** Overall and by channel, over the verdicts with an expectation; absent if there is none. */
  readonly agreement?: { readonly all: Agreement } & Readonly<Record<string, Agreement>>;
}
export interface BatchOptions {
  readonly input: string;
  readonly output: string;
  readonly screen: Screen;
  /** Which columns to read where rows are not ours; files may then be CSV, Parquet and others. */
  readonly columns?: Columns;
  /** Rows in flight. */
  readonly window?: number;
  readonly signal?: AbortSignal;
  readonly onRow?: (rowsDone: number, result: ScreenResult) => void;
  /** Every verdict as it is written. */
  readonly onVerdict?: (row: VerdictRow) => void;
  /** Told when a run that stops leaves verdicts for the next one. */
  readonly onKept?: (file: string, verdicts: number) => void;
}

/** All rows of a small file, such as a golden set. @throws {DataError} a bad row, no file */
export async function readRows(file: string): Promise<readonly ScreenRow[]> {
  const rows: ScreenRow[] = [];
  for await (const { line, text } of readLines(file)) rows.push(parseRow(file, line, text));
  return rows;
}

type Rows = Pick<BatchOptions, 'input' | 'columns' | 'screen' | 'signal'>;
async function* rowsOf({ input, columns, screen, signal }: Rows, passed: Passed): AsyncGenerator<ScreenRow> {
  if (columns) yield* readColumns(input, columns, screen.policies, passed, signal);
  else for await (const { line, text } of readLines(input)) yield parseRow(input, line, text);
}

/**
 * Reads every row, so that a bad one costs no call of the judge. @returns how many there are
 * @throws {DataError} a bad row, none, no file
 */
async function checkRows(options: Rows): Promise<{ readonly rows: number; readonly blank: number }> {
  const { input, columns, signal } = options;
  const passed: Passed = { blank: 0 };
  let rows = 0;
  for await (const _ of rowsOf(options, passed)) {
    signal?.throwIfAborted();
    rows++;
  }
  if (rows === 0)
    throw new DataError(
      'no_rows',
      columns
        ? `${input}: no row has text in column ${JSON.stringify(columns.text)}`
        : `${input}: no rows; wanted one JSON object per line`,
      { file: input },
    );
  return { rows, blank: passed.blank };
}

/** Where verdicts lie until they are complete: beside what the output links to; those of a stream by themselves. */
async function workPath(output: string): Promise<{ readonly path: string; readonly remove: () => Promise<void> }> {
  const { target, stream } = placeOf(output);
  if (!stream) return { path: target, remove: async () => {} };
  const folder = await mkdtemp(join(tmpdir(), 'temper-screen-'));
  return { path: join(folder, 'verdicts'), remove: () => rm(folder, { recursive: true, force: true }) };
}

const unwritable = (output: string, cause: unknown): ConfigError =>
  new ConfigError(
    'output_unwritable',
    `${output}: cannot be written (${(cause as NodeJS.ErrnoException).code ?? 'error'}); choose another --out`,
    { file: output },
    { cause },
  );

/** Nothing came back from the judge. */
const UNANSWERED: readonly UnjudgedCause[] = [
  'no_policy',
  'no_content',
  'timeout',
  'aborted',
  'unreachable',
  'http_status',
  'judge_error',
];

/** Writes verdicts as rows settle, and counts them. */
class Tally {
  readonly causes: Record<string, number> = {};
  readonly samples: Record<string, string> = {};
  readonly count = { allow: 0, block: 0, unjudged: 0 };
  readonly judged: VerdictRow[] = [];
  rows = 0;
  verdicts = 0;
  /** Verdicts that the judge answered for, off the contract or not: what was paid for. */
  answered = 0;

  constructor(
    readonly out: FileHandle,
    readonly output: string,
    readonly part: string,
    readonly onVerdict: BatchOptions['onVerdict'],
  ) {}

  async add(row: ScreenRow, result: ScreenResult): Promise<void> {
    for (const verdict of result.verdicts) {
      // Reviewers speak of policies, of a detector only where they name it.
      const own = row.policy === null ? !isDetectorVerdict(verdict) : row.policy === verdict.policy;
      const expected = own && Object.hasOwn(row.expect, verdict.channel) ? row.expect[verdict.channel] : undefined;
      const line: VerdictRow = {
        id: row.id,
        line: row.line,
        ...(expected === undefined ? {} : { expect: expected }),
        ...verdict,
      };
      await this.out.write(`${JSON.stringify(line)}\n`).catch((cause: unknown) => {
        throw unwritable(this.output, cause);
      });
      this.onVerdict?.(line);
      this.verdicts++;
      this.count[verdict.outcome]++;
      if (!isDetectorVerdict(verdict) && (verdict.cause === null || !UNANSWERED.includes(verdict.cause)))
        this.answered++;
      if (verdict.cause) {
        this.causes[verdict.cause] = (this.causes[verdict.cause] ?? 0) + 1;
        this.samples[verdict.cause] ??= verdict.detail;
      }
      if (expected !== undefined) this.judged.push({ ...line, rationale: '' });
    }
    this.rows++;
  }

  summary(kept: number): BatchSummary {
    const { rows, verdicts, count, causes, samples, judged } = this;
    const byChannel = Object.fromEntries(
      [...new Set(judged.map((v) => v.channel))].map((channel) => [
        channel,
        agreementOf(judged.filter((v) => v.channel === channel)),
      ]),
    );
    return {
      rows,
      verdicts,
      ...count,
      causes,
      samples,
      kept,
      blank: 0,
      ...(judged.length > 0 ? { agreement: { ...byChannel, all: agreementOf(judged) } } : {}),
    };
  }
}

/**
 * Screens every row of `input` and writes the verdicts to `output`, in the order of the rows, by way of a file beside
 * it. A run that stops leaves what was judged in `output.part`; the next one takes it from there.
 * @throws {DataError} a bad row (before the judge is asked), no row at all
 * @throws {ConfigError} the output cannot be written (before the judge is asked, unless the disk fills up)
 * @throws {ScreeningError} the judge cannot be reached or run at all
 */
export async function screenFile(options: BatchOptions): Promise<BatchSummary> {
  checkOutputs({ '--out': options.output }, { files: [options.input] });
  const { rows, blank } = await checkRows(options);
  const work = await workPath(options.output);
  try {
    return { ...(await screenInto(work.path, rows, options)), blank };
  } finally {
    await work.remove();
  }
}

/**
 * @param path where the verdicts lie until they are complete
 * @param total rows of the input
 */
async function screenInto(path: string, total: number, options: BatchOptions): Promise<BatchSummary> {
  const { input, output, screen, window = 16, signal, onRow, onKept } = options;
  const kept = await readKept(path);
  const temporary = ownPart(path);
  const out = await open(temporary, 'w').catch((cause: unknown) => {
    throw unwritable(output, cause);
  });
  const tally = new Tally(out, output, path, options.onVerdict);
  let taken = 0;
  const find: typeof kept.find = (...asked) => {
    const found = kept.find(...asked);
    if (found) taken++;
    return found;
  };
  const stop = new AbortController();
  const both = signal ? AbortSignal.any([signal, stop.signal]) : stop.signal;
  const pending: { readonly row: ScreenRow; readonly result: Promise<ScreenResult> }[] = [];

  const settle = async (): Promise<void> => {
    const head = pending.shift();
    if (!head) return;
    const result = await head.result;
    // A stop is no finding: leave no rows marked `aborted`.
    signal?.throwIfAborted();
    await tally.add(head.row, result);
    onRow?.(tally.rows, result);
    const why = screen.hopeless?.() ?? null;
    if (why !== null && tally.rows < total)
      throw new ScreeningError(
        'judge_unusable',
        `screen: ${why}; stopped at row ${tally.rows} of ${input}, as the first ${HOPELESS_CALLS} calls failed so`,
        { file: input, rows: tally.rows },
      );
  };

  try {
    for await (const row of rowsOf(options, { blank: 0 })) {
      signal?.throwIfAborted();
      pending.push({ row, result: screen.screen(row.channels, both, find) });
      if (pending.length >= window) await settle();
    }
    while (pending.length > 0) await settle();
    await out.sync().catch((cause: unknown) => {
      throw unwritable(output, cause);
    });
    await out.close();
    await putInPlace(temporary, output, signal);
    await kept.remove();
  } catch (error) {
    stop.abort();
    const judged = await keepJudged(tally, pending);
    // What a stream was to get is not kept.
    if (judged > 0 && path === placeOf(output).target) onKept?.(keptPath(path), judged);
    throw error;
  }
  return tally.summary(taken);
}

/**
 * Adds what was judged to `output.part`, rows under way included. @returns how many verdicts; with none nothing is left
 */
async function keepJudged(
  tally: Tally,
  pending: readonly { readonly row: ScreenRow; readonly result: Promise<ScreenResult> }[],
): Promise<number> {
  const { out, part } = tally;
  const temporary = ownPart(part);
  try {
    // Calls that were stopped end at once; what others found meanwhile is paid for too.
    for (const { row, result } of pending) await tally.add(row, await result);
    if (tally.answered > 0) await appendFile(keptPath(part), `\n${await readFile(temporary, 'utf8')}`);
    return tally.answered;
  } catch {
    return 0; // the error that ended the run is the one to tell
  } finally {
    await out.close().catch(() => {});
    await rm(temporary, { force: true });
  }
}

/** 10 if anything is blocked, else 30 if anything is unjudged, else 0. */
export const batchExitCode = (summary: Pick<BatchSummary, 'block' | 'unjudged'>): 0 | 10 | 30 =>
  summary.block > 0 ? 10 : summary.unjudged > 0 ? 30 : 0;
