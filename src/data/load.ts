// Dataset files → examples: a source gives rows (sources/), a format says what they mean (formats/). Every complaint
// names file and line; the loader knows sources and formats only through their registry entries.
import type { z } from 'zod';
import { ConfigError, DataError, TemperError } from '../base/errors.js';
import { hasLoneSurrogate, withoutNulls } from '../base/json.js';
import type { Tokenizer } from '../harmony/types.js';
import type { Example, Prompt } from './example.js';
import { ExampleStore } from './example-store.js';
import {
  type ChannelWeights,
  type Format,
  type FormatContext,
  RECIPE_SETTINGS,
  type RowExample,
  type SettingNames,
} from './format.js';
import { FORMATS } from './formats/index.js';
import { rowHint } from './hints.js';
import type { Note, NoteCount, Notes } from './notes.js';
import { placeName } from './source.js';
import { sourceOf } from './sources/index.js';

export interface DataFile {
  readonly path: string;
  readonly format: string;
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

function contextFor(context: LoadContext, note: (note: Note) => void): FormatContext {
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

/** The branch of a union that got furthest: the one that was meant. */
function innermost(issue: z.core.$ZodIssue): z.core.$ZodIssue {
  if (issue.code !== 'invalid_union') return issue;
  const depth = (branch: readonly z.core.$ZodIssue[]): number => Math.max(...branch.map((i) => i.path.length));
  const best = [...issue.errors].sort((a, b) => depth(b) - depth(a))[0]?.[0];
  return best && best.path.length > 0 ? innermost({ ...best, path: [...issue.path, ...best.path] }) : issue;
}

function rowIssue(issues: readonly z.core.$ZodIssue[], settings: SettingNames): string {
  const all = issues.map(innermost);
  const unknown = all.flatMap((i) => (i.code === 'unrecognized_keys' ? i.keys.map((k) => [...i.path, k]) : []));
  if (unknown.length > 0) {
    const names = [...new Set(unknown.map((path) => path.filter((p) => typeof p !== 'number').join('.')))];
    const shown = unknown.map((path) => path.join('.'));
    return (
      `unknown field${shown.length > 1 ? 's' : ''} ${shown.slice(0, 8).join(', ')}` +
      `${shown.length > 8 ? ', …' : ''}; to leave ${names.length > 1 ? 'them' : 'it'} out: ` +
      `${settings.ignore}${settings.ignore.startsWith('-') ? names.join(',') : `[${names.join(', ')}]`}`
    );
  }
  const issue = all[0];
  return issue ? `${issue.path.join('.') || 'the row'}: ${issue.message}` : 'unreadable';
}

/** The value without the fields to ignore. */
function withoutFields(value: unknown, names: readonly (readonly string[])[]): unknown {
  if (names.length === 0 || value === null || typeof value !== 'object') return value;
  if (Array.isArray(value)) return value.map((v) => withoutFields(v, names));
  return Object.fromEntries(
    Object.entries(value).flatMap(([k, v]): [string, unknown][] => {
      const inside = names.filter(([first]) => first === k).map(([, ...rest]) => rest);
      return inside.some((rest) => rest.length === 0) ? [] : [[k, withoutFields(v, inside)]];
    }),
  );
}

/** Where a row stands, as data and as messages name it. */
interface RowPlace {
  readonly file: string;
  readonly line: number;
  readonly name: string;
}

/** Parses one row and hands it to `convert`; whatever is wrong with it becomes a DataError with its place. */
function convertRow<T>(
  place: RowPlace,
  value: unknown,
  format: Format,
  context: Pick<LoadContext, 'ignore' | 'settings'> & { readonly note?: (note: Note) => void },
  convert: (row: unknown) => T,
): T {
  const { file, line, name } = place;
  const settings = context.settings ?? RECIPE_SETTINGS;
  if (hasLoneSurrogate(value))
    throw new DataError(
      'lone_surrogate',
      `${name}: a text holds half of a surrogate pair (\\ud800…\\udfff), which no UTF-8 has; ` +
        'repair the row or leave it out',
      { file, line },
    );
  const plain = withoutNulls(
    withoutFields(
      value,
      (context.ignore ?? []).map((n) => n.split('.')),
    ),
    (path) => {
      if (path[0] === 'tools' || path.includes('arguments')) context.note?.('null_argument');
    },
  );
  const parsed = format.row.safeParse(plain);
  if (!parsed.success)
    throw new DataError(
      'bad_row',
      `${name}: not a ${format.name} row: ${rowHint(plain, format.name) ?? rowIssue(parsed.error.issues, settings)}`,
      { file, line },
    );
  try {
    return convert(parsed.data);
  } catch (e) {
    throw placed(e, place);
  }
}

const placed = (e: unknown, { file, line, name }: RowPlace): unknown =>
  e instanceof TemperError && e.details.line === undefined
    ? new DataError(e.code, `${name}: ${e.message}`, { ...e.details, file, line }, { cause: e })
    : e;

/** The example as it is trained; null: it is too long and left out. @throws {DataError} row_too_long */
function fitted(one: RowExample, context: LoadContext, { file, line, name }: RowPlace): RowExample | null {
  const length = Math.max(one.length ?? 0, one.tokens.length);
  // What comes last is only predicted: it needs no position.
  const known = (context.positions ?? Infinity) + 1,
    most = Math.min(context.maxTokens, known);
  if (length <= most) return one;
  const atLeast = length > 2 * most ? 'at least ' : '';
  const { maxTokens, onLong } = context.settings ?? RECIPE_SETTINGS;
  if ((context.onLong ?? 'error') === 'error')
    throw new DataError(
      'row_too_long',
      known < context.maxTokens
        ? `${name}: the row has ${atLeast}${length} tokens, the model knows ${known - 1} positions ` +
            '(max_position_embeddings); ' +
            `shorten the row, or set ${onLong}`
        : `${name}: the row has ${atLeast}${length} tokens, more than ${maxTokens} ${most}; shorten ` +
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

/** Notes of a file, each counted once a row. */
class NoteCounter {
  readonly counts: Partial<Record<Note, NoteCount>> = {};
  #row: Set<Note> = new Set();
  readonly note = (note: Note): void => {
    this.#row.add(note);
  };
  endRow(line: number): void {
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

/**
 * Every example of a file in order, as a stream; where a sample has two, both or none. Rows that fail go to `onBad`
 * when given and end the reading otherwise.
 */
export async function* streamExamples(
  file: DataFile,
  context: LoadContext,
  onBad?: (error: DataError) => void,
): AsyncGenerator<Example, FileSummary, void> {
  const format = formatOf(file);
  const notes = new NoteCounter();
  const formatContext = contextFor(context, notes.note);
  const rowContext = { ignore: context.ignore, note: notes.note, settings: formatContext.settings };
  const reading = rowsOf(file.path, context.signal);
  const tally = new Tally();
  const per = format.examplesPerSample ?? 1;
  let next = await reading.next();
  for (; !next.done; next = await reading.next()) {
    const { place, value, error } = next.value;
    tally.rows++;
    try {
      if (error) throw error;
      if (holdsReplacement(value)) notes.note('replacement_character');
      const examples = convertRow(place, value, format, rowContext, (row) => format.toExamples(row, formatContext));
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
        if (step.done) break;
        given++;
        const one = fitted(step.value, context, place);
        if (one && one.tokens.length < (step.value.length ?? step.value.tokens.length)) tally.truncated++;
        if (one) {
          checkTokens(one.tokens, context, place);
          sample.push(one);
        } else tally.dropped++;
        if (given % per !== 0) continue;
        if (sample.length === per)
          for (const e of sample) {
            tally.add(e);
            yield { ...e, source: { file: file.path, line: place.line } };
          }
        sample = [];
      }
      if (given === 0) tally.untrainedRows++;
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
    ...(context.ignore ? { ignore: context.ignore } : {}),
  };
}

/** Takes a file's examples in order and keeps the samples all of whose examples have a token to train. */
export function samplesInto(store: ExampleStore, file: DataFile): (example: Example) => void {
  const per = formatOf(file).examplesPerSample ?? 1;
  let sample: Example[] = [];
  return (example) => {
    sample.push(example);
    if (sample.length < per) return;
    if (sample.every((e) => hasTrained(e.weights))) for (const e of sample) store.add(e);
    sample = [];
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
    const keep = samplesInto(examples, file);
    for (;;) {
      const next = await stream.next();
      if (next.done) {
        summaries.push(next.value);
        break;
      }
      keep(next.value);
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
      for (const p of convertRow(place, value, format, { ignore: file.ignore }, toPrompts))
        prompts.push({ ...p, source: { file: file.path, line: place.line } });
    }
  }
  return prompts;
}
