// A row that is to be screened: its form, and what of it is judged on which channel.
import { z } from 'zod';
import { DataError, type ErrorCode } from '../../base/errors.js';
import { hasLoneSurrogate, hasProto, PROTO, parseJson, withParsedConversations } from '../../base/json.js';
import type { Channels } from '../screen.js';
import { transcript } from '../transcript.js';
import { RowMessage, written } from './written.js';

const Expect = z.string().nullable().describe('rule that the text breaks, or null: what a reviewer says');
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

export interface ScreenRow {
  readonly id: string;
  /** Line of a text file, row of a table; from 1. */
  readonly line: number;
  /** Where there are several files: the one that it is of. */
  readonly file?: string;
  /** Place among all rows of all files, from 0. */
  readonly row?: number;
  readonly channels: Channels;
  readonly policy: string | null;
  readonly expect: Readonly<Record<string, string | null>>;
  /** Why it could not be read; it is `unjudged` then. */
  readonly bad?: DataError;
}
/** A row that could not be read, which must not pass for none. */
export const badRow = (line: number, error: DataError): ScreenRow => ({
  id: String(line),
  line,
  channels: {},
  policy: null,
  expect: {},
  bad: error,
});

/** Two ids of JSON that are written with more digits than a number keeps would be one. */
export const ROUNDED_ID = 'the number has more digits than JSON’s readers keep; write it as text';
export const isRoundedId = (id: unknown): boolean =>
  typeof id === 'number' && Number.isInteger(id) && !Number.isSafeInteger(id);

const WANTED = 'wanted {id?, text, channel?} or {id?, channels} or {id?, messages}';
const isText = (value: unknown): boolean => value === undefined || value === null || typeof value === 'string';
const PLAIN: ReadonlySet<string> = new Set(['id', 'text', 'channel', 'policy', 'expect', 'channels', 'messages']);
const PLAIN_MESSAGE: ReadonlySet<string> = new Set([
  ...['role', 'content', 'channel', 'thinking', 'reasoning', 'reasoning_content', 'refusal', 'name', 'tool_call_id'],
]);
const ROLES: ReadonlySet<unknown> = new Set(['assistant', 'system', 'developer', 'user', 'tool']);
type Fields = Readonly<Record<string, unknown>>;
/** An object of JSON, no list. */
const isFields = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function isPlainMessage(value: unknown): boolean {
  if (!isFields(value) || !ROLES.has(value.role)) return false;
  for (const key in value) if (!(key === 'role' || (PLAIN_MESSAGE.has(key) && isText(value[key])))) return false;
  return true;
}
/** `__proto__` as a key of its own is for `schemaRow` to say. */
function areTexts(value: Fields): boolean {
  for (const key in value) if (key === PROTO || !isText(value[key])) return false;
  return true;
}
/**
 * Whether a value is a row of a plain form, as most are: what the schema says of it, some 20 times as fast.
 * `test/safeguard/batch.test.ts` holds it to the schema.
 */
export function isPlainRow(value: unknown): value is Row {
  if (!isFields(value)) return false;
  for (const key in value) if (!PLAIN.has(key)) return false;
  const { id, text, channels, messages } = value;
  return (
    (isText(id) || (typeof id === 'number' && Number.isFinite(id))) &&
    isText(text) &&
    isText(value.channel) &&
    isText(value.policy) &&
    isText(value.expect) &&
    (channels === undefined || channels === null || (isFields(channels) && areTexts(channels))) &&
    (messages === undefined || messages === null || (Array.isArray(messages) && messages.every(isPlainMessage)))
  );
}
/** What the schema says of a value, or what is wrong with it. */
export function schemaRow(value: unknown): Row | string {
  if (hasProto(value)) return `the key ${JSON.stringify(PROTO)} is not taken; rename it`;
  const parsed = Row.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  return `${issue?.path.length ? `${issue.path.join('.')}: ` : ''}${issue?.message ?? 'bad row'}`;
}

/**
 * A row of a name and a text without escapes, as many are: what it says stands there, and JSON.parse need not be asked.
 * Text that comes from UTF-8 has no half of a surrogate pair.
 */
const PLAINEST = /^\{"id": ?"([ !#-[\]-\uffff]*)", ?"text": ?"([ !#-[\]-\uffff]*)"\}$/;

/** Reads one row of text, of UTF-8. @throws {DataError} row_json, and as rowOf */
export function parseRow(file: string, line: number, text: string): ScreenRow {
  const plainest = PLAINEST.exec(text);
  if (plainest) {
    const [, id = '', said = ''] = plainest;
    return { id, line, channels: { final: said }, policy: null, expect: {} };
  }
  let json: unknown;
  try {
    json = parseJson(text);
  } catch (cause) {
    throw new DataError(
      'row_json',
      `${file}:${line}: not JSON (${(cause as Error).message}); wanted one object per line`,
      { file, line },
    );
  }
  // Half of a surrogate pair comes by an escape alone.
  return rowOf(file, line, json, !text.includes('\\u'));
}

/**
 * Reads one row.
 * @param isWell it holds no half of a surrogate pair
 * @throws {DataError} row_schema: unknown field, not exactly one of text, channels and messages · row_utf8
 */
export function rowOf(file: string, line: number, value: unknown, isWell = false): ScreenRow {
  const fail = (code: ErrorCode, message: string): DataError =>
    new DataError(code, `${file}:${line}: ${message}`, { file, line });
  const isPlain = isPlainRow(value);
  const json = isPlain ? value : withParsedConversations(value);
  // What was text in a text has escapes of its own.
  if (!(isWell && json === value) && hasLoneSurrogate(json))
    throw fail(
      'row_utf8',
      'a text holds half of a surrogate pair, which no UTF-8 has: no digest could name it; repair it',
    );
  const row = isPlain ? value : schemaRow(json);
  if (typeof row === 'string') throw fail('row_schema', `${row}; ${WANTED}`);
  if (isRoundedId(row.id)) throw fail('row_schema', `id: ${ROUNDED_ID}`);
  const given = (v: unknown): number => (v === undefined || v === null ? 0 : 1);
  if (given(row.text) + given(row.channels) + given(row.messages) !== 1)
    throw fail('row_schema', 'wanted exactly one of text, channels and messages');
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
  if (typeof row.text === 'string')
    return (row.channel ?? 'final') === 'final' ? { final: row.text } : Object.fromEntries([[row.channel, row.text]]);
  if (row.channels)
    return Object.fromEntries(
      Object.entries(row.channels).filter((entry): entry is [string, string] => typeof entry[1] === 'string'),
    );
  return transcript((row.messages ?? []).flatMap(written));
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
