// Rows → examples: a source gives rows (sources/), a format says what they mean (formats/). Every complaint names file
// and line; sources and formats are known only through their registry entries.
import { ConfigError, DataError } from '../base/errors.js';
import { withoutNulls } from '../base/json.js';
import type { Tokenizer } from '../harmony/types.js';
import type { Example } from './example.js';
import {
  type ChannelWeights,
  type Format,
  type FormatContext,
  RECIPE_SETTINGS,
  type RowExample,
  type SettingNames,
} from './format.js';
import { FORMATS } from './formats/index.js';
import type { Note, NoteCount, Notes } from './notes.js';
import type { Part } from './part.js';
import { AUTO, recognised } from './recognise.js';
import { type PlacedRow, parsedRow, placed, type RowPlace, rowsOf, withoutFields } from './rows.js';

export interface DataFile {
  /** A file, a pattern, or a folder of files (files.ts). */
  readonly path: string;
  /** By name; `auto`: told by the first rows. */
  readonly format: string;
  /** How often each sample is there; part of one: so many of them, chosen by `shuffle`. Absent: 1. */
  readonly weight?: number | undefined;
  /** Most rows; the first ones, or such as `shuffle` chooses. */
  readonly limit?: number | undefined;
  /** Seed of an order of the rows; absent: as they stand. */
  readonly shuffle?: number | undefined;
  /** Absent: all rows. */
  readonly part?: Part | undefined;
  /** Fields of rows that `loadPrompts` leaves out. */
  readonly ignore?: readonly string[] | undefined;
}
export type OnLong = 'error' | 'drop' | 'truncate';
/** A recipe's settings of how rows are read. */
export type RowSettings = Pick<LoadContext, 'maxTokens' | 'loss' | 'onLong' | 'ignore' | 'markup'>;
export const rowSettings = ({ maxTokens, loss, onLong, ignore, markup }: RowSettings): RowSettings => ({
  maxTokens,
  loss,
  onLong,
  ignore,
  markup,
});

export interface LoadContext {
  /** Loads the tokenizer; called only by formats that hold text. null: there is none. */
  readonly tokenizer: (() => Tokenizer) | null;
  readonly vocabSize: number;
  readonly maxTokens: number;
  /** Positions that the model knows; absent: nobody said. */
  readonly positions?: number | undefined;
  readonly loss: ChannelWeights;
  /** What happens to a longer example; default error. */
  readonly onLong?: OnLong | undefined;
  /** Fields of rows to leave out, by name; `messages.source` is a field of every message. */
  readonly ignore?: readonly string[] | undefined;
  /** Markup in what is trained; default refuse. */
  readonly markup?: 'refuse' | 'text' | undefined;
  /** Default: those of a recipe. */
  readonly settings?: SettingNames;
  /** Of what is loaded to train on; default 1. */
  readonly examplesPerSample?: 1 | 2;
  readonly signal?: AbortSignal;
}
export interface FileSummary {
  readonly path: string;
  readonly format: string;
  /** Of format `auto`: why that one was taken. */
  readonly because?: string;
  readonly part?: Part | undefined;
  readonly limit?: number | undefined;
  readonly sha256: string;
  readonly rows: number;
  readonly examples: number;
  readonly tokens: number;
  readonly trainedTokens: number;
  /** Examples, or rows that give none, with nothing to train. */
  readonly untrainedRows: number;
  /** Examples longer than maxTokens that were left out, and that were cut. */
  readonly dropped: number;
  readonly truncated: number;
  readonly notes: Notes;
  readonly ignore?: readonly string[] | undefined;
}
/** @throws {ConfigError} unknown_format · {DataError} format_ambiguous, format_unknown */
export async function formatOf(
  file: DataFile,
  signal?: AbortSignal,
): Promise<{ readonly format: Format; readonly because?: string }> {
  if (file.format === AUTO) {
    const { path, ignore } = file;
    // A file without rows is complained of as one of chat rows.
    return (await recognised({ path, ignore }, signal)) ?? { format: FORMATS[0] as Format };
  }
  const format = FORMATS.find((f) => f.name === file.format);
  if (!format)
    throw new ConfigError(
      'unknown_format',
      `${file.path}: format ${file.format} is not known; wanted one of ` +
        `${FORMATS.map((f) => f.name).join(', ')}, or auto`,
      { file: file.path, got: file.format },
    );
  return { format };
}

export function contextFor(context: LoadContext, note: (note: Note) => void): FormatContext {
  return {
    vocabSize: context.vocabSize,
    loss: context.loss,
    maxTokens: context.maxTokens,
    cuts: context.onLong === 'truncate',
    markup: context.markup ?? 'refuse',
    settings: context.settings ?? RECIPE_SETTINGS,
    note,
    tokenizer: () => {
      if (!context.tokenizer)
        throw new DataError('no_tokenizer', 'rows of text need a tokenizer; give model.tokenizer (--tokenizer)');
      return context.tokenizer();
    },
  };
}

/** The example as it is trained; null: it is too long and left out. @throws {DataError} row_too_long */
function fitted(one: RowExample, context: LoadContext, { file, line, name }: RowPlace): RowExample | null {
  const length = Math.max(one.length ?? 0, one.tokens.length);
  // What comes last is only predicted: it needs no position.
  const known = (context.positions ?? Infinity) + 1,
    most = Math.min(context.maxTokens, known);
  if (length <= most) return one;
  const atLeast = length > 2 * most ? 'at least ' : '';
  const what = one.part ? `the ${one.part} answer with its prompt` : 'the row';
  const { maxTokens, onLong } = context.settings ?? RECIPE_SETTINGS;
  if ((context.onLong ?? 'error') === 'error')
    throw new DataError(
      'row_too_long',
      known < context.maxTokens
        ? `${name}: ${what} has ${atLeast}${length} tokens, the model knows ${known - 1} positions ` +
            '(max_position_embeddings); ' +
            `shorten the row, or set ${onLong}`
        : `${name}: ${what} has ${atLeast}${length} tokens, more than ${maxTokens} ${most}; shorten ` +
            `the row, raise ${maxTokens}, ` +
            `or set ${onLong}`,
      { file, line, tokens: length },
    );
  if (context.onLong === 'drop') return null;
  return {
    tokens: one.tokens.slice(0, most),
    weights: one.weights.slice(0, most),
    ...(one.channels ? { channels: one.channels.slice(0, most) } : {}),
  };
}

function checkTokens(tokens: Int32Array, context: LoadContext, { file, line, name }: RowPlace): void {
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

export const hasTrained = (weights: Float32Array): boolean => weights.some((w, i) => i > 0 && w > 0);

/** Notes of a file, each counted once a row. */
class NoteCounter {
  readonly counts: Partial<Record<Note, NoteCount>> = {};
  #row: Set<Note> = new Set();
  readonly note = (note: Note): void => {
    this.#row.add(note);
  };
  endRow(line: number): void {
    if (this.#row.size === 0) return;
    for (const note of this.#row) {
      const { rows = 0, line: first = line } = this.counts[note] ?? {};
      this.counts[note] = { rows: rows + 1, line: first };
    }
    this.#row = new Set();
  }
}

const holdsReplacement = (value: unknown): boolean =>
  typeof value === 'string'
    ? value.includes('\ufffd')
    : Array.isArray(value)
      ? value.some(holdsReplacement)
      : typeof value === 'object' && value !== null && Object.values(value).some(holdsReplacement);

/** Counts over the examples of a file. */
class Tally {
  rows = 0;
  examples = 0;
  tokens = 0;
  trainedTokens = 0;
  untrainedRows = 0;
  dropped = 0;
  truncated = 0;
  add({ tokens, weights }: RowExample): void {
    this.examples++;
    this.tokens += tokens.length;
    for (let i = 1; i < weights.length; i++) if ((weights[i] ?? 0) > 0) this.trainedTokens++;
    if (!hasTrained(weights)) this.untrainedRows++;
  }
}

export interface RowHooks {
  /** Rows that fail; absent: the first one ends the reading. */
  readonly onBad?: (error: DataError) => void;
  /** Good rows, before their examples. */
  readonly onRow?: (row: PlacedRow) => void;
  /** Rows are looked at without being tokenised: there are no examples where that would take a tokenizer. */
  readonly withoutTokens?: boolean;
}

/** Examples of a row that are short enough; where a sample has two, both or none. @returns how many it gave in all */
function* fittedExamples(
  { place }: PlacedRow,
  examples: Iterable<RowExample>,
  per: number,
  context: LoadContext,
  tally: Tally,
): Generator<RowExample, number, void> {
  let sample: RowExample[] = [];
  let given = 0;
  const iterator = examples[Symbol.iterator]();
  for (;;) {
    let step: IteratorResult<RowExample>;
    try {
      step = iterator.next();
    } catch (e) {
      throw placed(e, place);
    }
    if (step.done) return given;
    given++;
    const one = fitted(step.value, context, place);
    if (one && one.tokens.length < (step.value.length ?? step.value.tokens.length)) tally.truncated++;
    if (one) {
      checkTokens(one.tokens, context, place);
      sample.push(one);
    } else tally.dropped++;
    if (given % per !== 0) continue;
    if (sample.length === per) yield* sample;
    sample = [];
  }
}

/**
 * Every example of a file in order, as a stream. Rows that fail go to `onBad` when given and end the reading otherwise.
 */
export async function* streamExamples(
  file: DataFile,
  context: LoadContext,
  { onBad, onRow, withoutTokens }: RowHooks = {},
): AsyncGenerator<Example, FileSummary, void> {
  const ignore = file.ignore ?? context.ignore;
  const { format, because } = await formatOf({ ...file, ignore }, context.signal);
  const notes = new NoteCounter();
  const formatContext = contextFor(context, notes.note);
  const rowContext = { ignore, note: notes.note, settings: formatContext.settings };
  const { path, part, shuffle } = file;
  const limit = shuffle === undefined ? file.limit : undefined;
  const reading = rowsOf({ path, part, limit }, context.signal);
  const tally = new Tally();
  const per = format.examplesPerSample ?? 1;
  const check = withoutTokens ? format.check : undefined;
  try {
    let next = await reading.next();
    for (; !next.done; next = await reading.next()) {
      const row = next.value;
      const { place } = row;
      tally.rows++;
      try {
        if (row.error) throw row.error;
        if (!row.isClean && holdsReplacement(row.value)) notes.note('replacement_character');
        const value = parsedRow(row, format, rowContext);
        if (check) {
          try {
            check(value, formatContext);
          } catch (e) {
            throw placed(e, place);
          }
          onRow?.(row);
        } else {
          let isTold = false;
          const told = (): void => {
            if (!isTold) onRow?.(row);
            isTold = true;
          };
          const examples = fittedExamples(row, examplesOf(format, value, formatContext, place), per, context, tally);
          for (let step = examples.next(); ; step = examples.next()) {
            if (step.done) {
              if (step.value === 0) tally.untrainedRows++;
              break;
            }
            told();
            tally.add(step.value);
            yield { ...step.value, source: { file: place.file, line: place.line } };
          }
          told();
        }
      } catch (e) {
        if (!onBad || !(e instanceof DataError)) throw e;
        onBad(e);
      }
      notes.endRow(place.line);
    }
    return {
      path: file.path,
      format: format.name,
      sha256: next.value,
      ...tally,
      notes: notes.counts,
      ...(because ? { because } : {}),
      ...(part ? { part } : {}),
      ...(file.limit === undefined ? {} : { limit: file.limit }),
      ...(context.ignore ? { ignore: context.ignore } : {}),
    };
  } finally {
    await reading.return(''); // lets go of the file, also where a bad row or the caller ends it
  }
}

function examplesOf(format: Format, value: unknown, context: FormatContext, place: RowPlace): Iterable<RowExample> {
  try {
    return format.toExamples(value, context);
  } catch (e) {
    throw placed(e, place);
  }
}

async function* asTokens(
  stream: AsyncGenerator<Example, FileSummary, void>,
): AsyncGenerator<object, FileSummary, void> {
  try {
    for (;;) {
      const next = await stream.next();
      if (next.done) return next.value;
      yield { tokens: [...next.value.tokens], weights: [...next.value.weights] };
    }
  } finally {
    await stream.return(undefined as never);
  }
}

/**
 * The rows of a file as they are to be written: as they stand (without what `ignore` names, members that are null left
 * out), as `chat`, or as `tokens`. The first row that is bad ends it.
 * @throws {DataError} bad rows, format_unfit: rows that are no conversations
 */
export async function* rowsAs(
  file: DataFile,
  context: LoadContext,
  to: 'chat' | 'tokens' | undefined,
): AsyncGenerator<object, Pick<FileSummary, 'path' | 'format' | 'sha256'>, void> {
  const { format } = await formatOf({ ...file, ignore: context.ignore }, context.signal);
  if (to === 'tokens') {
    return yield* asTokens(streamExamples({ ...file, format: format.name }, context));
  }
  if (to === 'chat' && !format.toChat)
    throw new ConfigError('format_unfit', `${file.path}: rows of format ${format.name} are no conversations`, {
      file: file.path,
      format: format.name,
    });
  const formatContext = contextFor(context, () => {});
  const rowContext = { ignore: context.ignore, settings: formatContext.settings };
  const reading = rowsOf(file, context.signal);
  try {
    for (;;) {
      const next = await reading.next();
      if (next.done) return { path: file.path, format: format.name, sha256: next.value };
      const row = next.value;
      if (row.error) throw row.error;
      const parsed = parsedRow(row, format, rowContext);
      try {
        format.check?.(parsed, formatContext);
        yield to === 'chat'
          ? (format.toChat?.(parsed) as object)
          : (withoutNulls(withoutFields(row.value, context.ignore)) as object);
      } catch (e) {
        throw placed(e, row.place);
      }
    }
  } finally {
    await reading.return('');
  }
}
