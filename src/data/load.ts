// Dataset files → examples: a source gives rows (sources/), a format says what they mean (formats/). Every complaint
// names file and line; the loader knows sources and formats only through their registry entries.
import type { z } from 'zod';
import { ConfigError, DataError, TemperError } from '../base/errors.js';
import type { Tokenizer } from '../harmony/types.js';
import type { Example, Prompt } from './example.js';
import { ExampleStore } from './example-store.js';
import type { ChannelWeights, Format, FormatContext } from './format.js';
import { FORMATS } from './formats/index.js';
import { placeName } from './source.js';
import { sourceOf } from './sources/index.js';

export interface DataFile {
  readonly path: string;
  readonly format: string;
}
export interface LoadContext {
  /** Loads the tokenizer; called only by formats that hold text. null: there is none. */
  readonly tokenizer: (() => Tokenizer) | null;
  readonly vocabSize: number;
  readonly maxTokens: number;
  readonly loss: ChannelWeights;
  /** Of what is loaded to train on; default 1. */
  readonly examplesPerSample?: 1 | 2;
  readonly signal?: AbortSignal;
}
export interface FileSummary {
  readonly path: string;
  readonly format: string;
  readonly sha256: string;
  readonly rows: number;
  readonly examples: number;
  readonly tokens: number;
  readonly trainedTokens: number;
  readonly untrainedRows: number;
}
export interface Dataset {
  /** Only samples all of whose examples have a token to train. */
  readonly examples: ExampleStore;
  readonly files: readonly FileSummary[];
}

const formatOf = (file: DataFile): Format => {
  const format = FORMATS.find((f) => f.name === file.format);
  if (!format)
    throw new ConfigError(
      'unknown_format',
      `${file.path}: format ${file.format} is not known; wanted one of ${FORMATS.map((f) => f.name).join(', ')}`,
      { file: file.path, got: file.format },
    );
  return format;
};

function contextFor(context: LoadContext): FormatContext {
  return {
    vocabSize: context.vocabSize,
    loss: context.loss,
    tokenizer: () => {
      if (!context.tokenizer)
        throw new DataError('no_tokenizer', 'rows of text need a tokenizer; give model.tokenizer');
      return context.tokenizer();
    },
  };
}

function rowIssue(issue: z.core.$ZodIssue): string {
  const path = issue.path.join('.');
  if (issue.code === 'unrecognized_keys') return `unknown field ${[...issue.path, issue.keys[0]].join('.')}`;
  return `${path || 'the row'}: ${issue.message}`;
}

/** Where a row stands, as data and as messages name it. */
interface RowPlace {
  readonly file: string;
  readonly line: number;
  readonly name: string;
}

/** Parses one row and hands it to `convert`; whatever is wrong with it becomes a DataError with its place. */
function convertRow<T>(place: RowPlace, value: unknown, format: Format, convert: (row: unknown) => T): T {
  const { file, line, name } = place;
  const parsed = format.row.safeParse(value);
  if (!parsed.success) {
    const first = parsed.error.issues[0];
    throw new DataError('bad_row', `${name}: not a ${format.name} row: ${first ? rowIssue(first) : 'unreadable'}`, {
      file,
      line,
    });
  }
  try {
    return convert(parsed.data);
  } catch (e) {
    if (!(e instanceof TemperError)) throw e;
    throw new DataError(e.code, `${name}: ${e.message}`, { ...e.details, file, line }, { cause: e });
  }
}

function checkTokens(tokens: Int32Array, context: LoadContext, { file, line, name }: RowPlace): void {
  if (tokens.length > context.maxTokens)
    throw new DataError(
      'row_too_long',
      `${name}: the row has ${tokens.length} tokens, more than data.maxTokens ` +
        `${context.maxTokens}; shorten the row or raise maxTokens`,
      { file, line, tokens: tokens.length },
    );
  for (let i = 0; i < tokens.length; i++) {
    const id = tokens[i] ?? -1;
    if (id < 0 || id >= context.vocabSize)
      throw new DataError(
        'token_out_of_range',
        `${name}: token ${i} is ${id}, the model has ids 0…${context.vocabSize - 1}; was ` +
          'the row made with another tokenizer?',
        { file, line, token: id },
      );
  }
}

const hasTrained = (weights: Float32Array): boolean => weights.some((w, i) => i > 0 && w > 0);

/** Rows of a file in order with their places; the sha256 of the file at the end. */
async function* rowsOf(
  path: string,
  signal?: AbortSignal,
): AsyncGenerator<
  { readonly place: RowPlace; readonly value: unknown; readonly error: DataError | null },
  string,
  void
> {
  const source = await sourceOf(path);
  const reading = source.read(path, signal);
  for await (const batch of reading.batches)
    for (const { line, value, error } of batch) {
      signal?.throwIfAborted();
      yield { place: { file: path, line, name: placeName(source, path, line) }, value, error: error ?? null };
    }
  return reading.digest();
}

/**
 * Every example of a file in order, as a stream. Rows that fail go to `onBad` when given and end the reading otherwise.
 */
export async function* streamExamples(
  file: DataFile,
  context: LoadContext,
  onBad?: (error: DataError) => void,
): AsyncGenerator<Example, FileSummary, void> {
  const format = formatOf(file);
  const formatContext = contextFor(context);
  const reading = rowsOf(file.path, context.signal);
  let rows = 0,
    count = 0,
    tokens = 0,
    trainedTokens = 0,
    untrainedRows = 0;
  let next = await reading.next();
  for (; !next.done; next = await reading.next()) {
    const { place, value, error } = next.value;
    rows++;
    try {
      if (error) throw error;
      for (const one of convertRow(place, value, format, (row) => format.toExamples(row, formatContext))) {
        checkTokens(one.tokens, context, place);
        count++;
        tokens += one.tokens.length;
        for (let i = 1; i < one.weights.length; i++) if ((one.weights[i] ?? 0) > 0) trainedTokens++;
        if (!hasTrained(one.weights)) untrainedRows++;
        yield { ...one, source: { file: file.path, line: place.line } };
      }
    } catch (e) {
      if (!onBad || !(e instanceof DataError)) throw e;
      onBad(e);
    }
  }
  return {
    path: file.path,
    format: format.name,
    sha256: next.value,
    rows,
    examples: count,
    tokens,
    trainedTokens,
    untrainedRows,
  };
}

/** Reads all files. @throws {DataError} a bad row, or nothing to train in any of them */
export async function loadDataset(files: readonly DataFile[], context: LoadContext): Promise<Dataset> {
  const examples = new ExampleStore();
  const summaries: FileSummary[] = [];
  const per = context.examplesPerSample ?? 1;
  for (const file of files) {
    const of = formatOf(file).examplesPerSample ?? 1;
    if (of !== per)
      throw new ConfigError(
        'format_unfit',
        `${file.path}: rows of format ${file.format} are ${of === 2 ? 'pairs' : 'single examples'}, ` +
          `wanted ${per === 2 ? 'pairs (format preference)' : 'single examples; pairs are for train.method dpo'}`,
        { file: file.path, format: file.format },
      );
    const stream = streamExamples(file, context);
    let sample: Example[] = [];
    for (;;) {
      const next = await stream.next();
      if (next.done) {
        summaries.push(next.value);
        break;
      }
      sample.push(next.value);
      if (sample.length < per) continue;
      if (sample.every((e) => hasTrained(e.weights))) for (const e of sample) examples.add(e);
      sample = [];
    }
  }
  if (examples.length === 0)
    throw new DataError(
      'nothing_to_train',
      `${files.map((f) => f.path).join(', ')}: no row has a token to train (an assistant ` +
        'message on a channel whose data.loss is above 0); check with temper data check',
      { files: files.map((f) => f.path) },
    );
  return { examples, files: summaries };
}

/** Questions with known answers, for exact match; files whose format holds none give none. */
export async function loadPrompts(files: readonly DataFile[], signal?: AbortSignal): Promise<Prompt[]> {
  const prompts: Prompt[] = [];
  for (const file of files) {
    const format = formatOf(file);
    const { toPrompts } = format;
    if (!toPrompts) continue;
    for await (const { place, value, error } of rowsOf(file.path, signal)) {
      if (error) throw error;
      for (const p of convertRow(place, value, format, toPrompts))
        prompts.push({ ...p, source: { file: file.path, line: place.line } });
    }
  }
  return prompts;
}
