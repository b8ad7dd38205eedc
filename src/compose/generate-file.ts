// Answers to a file of prompts, in its order, several at once. Answers are appended to OUT.part as they come and become
// OUT when all are there; a run that stopped, by whatever means, is taken up where it was.
import { closeSync, existsSync, fsyncSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { sha256 } from '../base/digest.js';
import { ConfigError, DataError } from '../base/errors.js';
import { putInPlace } from '../base/files.js';
import { inputPieces, readStream } from '../base/inputs.js';
import { parseJson, withParsedConversations } from '../base/json.js';
import { checkOutputs, placeOf } from '../base/outputs.js';
import { asReadError, asWriteError } from '../base/system-error.js';
import { type ChatRow, chatRow } from '../harmony/chat-row.js';
import type { Engine } from '../infer/engine.js';
import type { GenerateRequest } from '../infer/protocol.js';
import type { Screen } from '../safeguard/screen.js';
import type { VerdictSink } from '../safeguard/verdict-sink.js';
import { runTurn, turnExitCode, turnJson } from './turn.js';

const Id = z.union([z.string(), z.number()]).nullish();
const PromptRow = z.strictObject({ id: Id, prompt: z.string().min(1) });
const ChatPrompt = chatRow.extend({ id: Id });
export type PromptBody = { readonly prompt: string } | ChatRow;
interface PromptLine {
  readonly id: string;
  readonly line: number;
  readonly body: PromptBody;
}

export interface FileOptions {
  /** JSON lines, `{"id"?, "prompt"}` or `{"id"?, "messages", …}`; '-': stdin. */
  readonly input: string;
  readonly output: string;
  readonly engine: Engine;
  readonly screen: Screen | null;
  /** Where the verdicts over each answer go on record before it is written. */
  readonly sink?: VerdictSink;
  /** Answers at once. */
  readonly slots: number;
  /** What the answers depend on beside model, adapters, policies and prompt, as JSON has it. */
  readonly settings: unknown;
  /** @param index of the row, from 0: sampling has a seed of its own for each */
  readonly request: (body: PromptBody, index: number) => GenerateRequest;
  readonly signal: AbortSignal;
  readonly onRow?: (done: number, rows: number) => void;
}
export interface FileSummary {
  readonly rows: number;
  /** Of them answered by a run before. */
  readonly kept: number;
  readonly answered: number;
  readonly errors: number;
  /** Of those answered: without a final message, blocked, and not judged. */
  readonly none: number;
  readonly blocked: number;
  readonly unjudged: number;
  /** 10 something blocked, 30 something unjudged, 20 something without an answer, else 0. */
  readonly exitCode: 0 | 10 | 20 | 30;
}

/** All rows, before the first is answered. @throws {DataError} row_json, row_schema, no_rows, what reading refuses */
async function readPrompts(input: string): Promise<readonly PromptLine[]> {
  const name = input === '-' ? 'stdin' : input;
  let text: string;
  try {
    text = await readStream(input === '-' ? process.stdin : inputPieces(input), name);
  } catch (e) {
    throw asReadError(e, name, 'give a file of JSON lines {"id"?, "prompt"} or {"id"?, "messages"}', (message) => {
      return new DataError('file_unreadable', message, { file: name });
    });
  }
  const rows = text.split('\n').flatMap((source, at): PromptLine[] => {
    if (source.trim() === '') return [];
    const line = at + 1;
    const bad = (code: 'row_json' | 'row_schema', why: string): DataError =>
      new DataError(code, `${name}:${line}: ${why}; wanted {"id"?, "prompt"} or {"id"?, "messages"}`, {
        file: name,
        line,
      });
    let json: unknown;
    try {
      json = withParsedConversations(parseJson(source));
    } catch (e) {
      throw bad('row_json', `not JSON (${(e as Error).message})`);
    }
    const chat = typeof json === 'object' && json !== null && 'messages' in json;
    const parsed = (chat ? ChatPrompt : PromptRow).safeParse(json);
    if (!parsed.success) {
      const [issue] = parsed.error.issues;
      throw bad('row_schema', `${issue?.path.length ? `${issue.path.join('.')}: ` : ''}${issue?.message ?? 'bad row'}`);
    }
    const { id, ...body } = parsed.data;
    return [{ id: String(id ?? line), line, body: body as PromptBody }];
  });
  if (rows.length === 0)
    throw new DataError('no_rows', `${name}: no rows; wanted one JSON object per line`, { file: name });
  return rows;
}

/** Lines that a run before left, complete ones; `bytes` is where they end. */
async function readPart(path: string): Promise<{ readonly lines: readonly string[]; readonly bytes: number }> {
  if (!existsSync(path)) return { lines: [], bytes: 0 };
  const pieces: Buffer[] = [];
  for await (const piece of inputPieces(path)) pieces.push(piece);
  const all = Buffer.concat(pieces),
    bytes = all.lastIndexOf(10) + 1;
  return { lines: all.subarray(0, bytes).toString('utf8').split('\n').slice(0, -1), bytes };
}

function openPart(path: string, output: string): number {
  try {
    return openSync(path, 'a');
  } catch (e) {
    throw asWriteError(e, output);
  }
}

type Answer = { readonly request: string; readonly exit: FileSummary['exitCode']; readonly error?: unknown };

/**
 * @throws {DataError} a bad row, before any answer · {ConfigError} output_unwritable; bad_run: what a run before left
 * in OUT.part are answers to something else
 */
export async function generateFile(options: FileOptions): Promise<FileSummary> {
  const { input, output, engine, screen, signal } = options;
  checkOutputs({ '--out': output }, { files: input === '-' ? [] : [input] });
  const rows = await readPrompts(input);
  const base = JSON.stringify([
    await engine.digest(signal),
    (await engine.adapters()).map((a) => a.digest),
    screen?.policies.map((p) => [p.digest, p.contract ?? null]) ?? null,
    screen?.detectors?.digest ?? null,
    options.settings,
  ]);
  const digestOf = (row: PromptLine, index: number): string =>
    sha256(`${base}\n${index}\n${JSON.stringify([row.id, row.body])}`);
  const { target, stream } = placeOf(output);
  // A stream gets its lines when all are there; what it has had cannot be taken up.
  const folder = stream ? mkdtempSync(join(tmpdir(), 'temper-generate-')) : null;
  try {
    return await answerInto(folder === null ? `${target}.part` : join(folder, 'part'), rows, digestOf, options);
  } finally {
    if (folder !== null) rmSync(folder, { recursive: true, force: true });
  }
}

async function answerInto(
  path: string,
  rows: readonly PromptLine[],
  digestOf: (row: PromptLine, index: number) => string,
  options: FileOptions,
): Promise<FileSummary> {
  const { output, engine, screen, signal } = options;
  const { lines, bytes } = await readPart(path);
  const exits: FileSummary['exitCode'][] = [];
  let errors = 0;
  const count = (answer: Answer): void => {
    exits.push(answer.exit);
    if (answer.error !== undefined) errors++;
  };
  for (const [i, text] of lines.entries()) {
    const row = rows[i];
    const answer = parseJson(text) as Answer;
    if (!row || answer.request !== digestOf(row, i))
      throw new ConfigError(
        'bad_run',
        `${path}:${i + 1}: answers another prompt, model or setting; remove it to begin again, or give another --out`,
        { file: path, line: i + 1 },
      );
    count(answer);
  }

  const answer = async (row: PromptLine, index: number): Promise<string> => {
    const head = { id: row.id, line: row.line, request: digestOf(row, index) };
    try {
      const onRecord = options.sink ? { sink: options.sink, subject: { row: index + 1, line: row.line } } : undefined;
      const turn = await runTurn(engine, options.request(row.body, index), screen, () => {}, signal, onRecord);
      const { promptTokens, completionTokens } = turn.done.usage; // times would differ from run to run
      return JSON.stringify({
        ...head,
        exit: turnExitCode(turn),
        ...turnJson(turn),
        usage: { promptTokens, completionTokens },
      });
    } catch (e) {
      // A prompt that cannot be answered is an answer; a model or a machine that fails is none, and is tried again.
      if (!(e instanceof ConfigError || e instanceof DataError) || signal.aborted) throw e;
      return JSON.stringify({ ...head, exit: 20, error: { code: e.code, message: e.message } });
    }
  };
  const file = openPart(path, output);
  const pending: Promise<string>[] = [];
  const settle = async (): Promise<void> => {
    const text = await pending.shift();
    if (text === undefined) return;
    try {
      writeSync(file, `${text}\n`);
    } catch (e) {
      throw asWriteError(e, output);
    }
    count(parseJson(text) as Answer);
    options.onRow?.(exits.length, rows.length);
  };
  try {
    ftruncateSync(file, bytes);
    for (const [i, row] of rows.entries()) {
      if (i < lines.length) continue;
      const next = answer(row, i);
      next.catch(() => {}); // told where it is awaited
      pending.push(next);
      if (pending.length >= options.slots) await settle();
    }
    while (pending.length > 0) await settle();
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  await putInPlace(path, output, signal);
  const exitCode = ([10, 30, 20] as const).find((code) => exits.includes(code)) ?? 0;
  const of = (code: FileSummary['exitCode']): number => exits.filter((x) => x === code).length;
  return {
    rows: rows.length,
    kept: lines.length,
    answered: rows.length - errors,
    errors,
    none: of(20) - errors,
    blocked: of(10),
    unjudged: of(30),
    exitCode,
  };
}
