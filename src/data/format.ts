// The contract of a dataset format. A new one is a file in formats/ and a line in formats/index.ts; nothing else asks
// which format it holds.
import type { z } from 'zod';
import type { ChatRow } from '../harmony/chat.js';
import type { Tokenizer } from '../harmony/types.js';
import type { Example, Prompt } from './example.js';
import type { Note } from './notes.js';

export interface ChannelWeights {
  readonly analysis: number;
  readonly commentary: number;
  readonly final: number;
}

export interface FormatContext {
  /** Throws a DataError when the run has none; only formats that hold text call it. */
  readonly tokenizer: () => Tokenizer;
  /** Rows of the model's embedding: a token id must be below. */
  readonly vocabSize: number;
  readonly loss: ChannelWeights;
  /** An example of more tokens is not needed whole; its `RowExample.length` is told all the same. */
  readonly maxTokens: number;
  /** Whether the beginning of such an example is wanted, or its length alone. */
  readonly cuts: boolean;
  /** Markup in what is trained: an error, or text like any other. */
  readonly markup: 'refuse' | 'text';
  /** How messages name settings: of a recipe, or of the command that reads a file alone. */
  readonly settings: SettingNames;
  /** Told of what is doubtful in the row; may be told of one kind several times. */
  note(note: Note): void;
}

export interface SettingNames {
  readonly maxTokens: string;
  readonly onLong: string;
  readonly markup: string;
  readonly ignore: string;
  readonly format: string;
}
export const RECIPE_SETTINGS: SettingNames = {
  maxTokens: 'data.maxTokens',
  onLong: 'data.onLong: drop or truncate',
  markup: 'data.markup: text',
  ignore: 'data.ignore: ',
  format: 'format',
};
export const FLAG_SETTINGS: SettingNames = {
  maxTokens: '--max-tokens',
  onLong: '--on-long drop or truncate',
  markup: '--markup text',
  ignore: '--ignore ',
  format: '--format',
};

/**
 * `length`: tokens of the whole example, or more than maxTokens, where those given are cut; `part`: which of the row's
 * it is, for errors.
 */
export type RowExample = Omit<Example, 'source' | 'index'> & {
  readonly length?: number;
  readonly part?: 'chosen' | 'rejected';
};
export type RowPrompt = Omit<Prompt, 'source'>;

/** Errors it throws are DataErrors without a place; the loader adds file and line. */
export interface Format<Row = unknown> {
  readonly name: string;
  readonly row: z.ZodType<Row>;
  /** 2: a row is one sample of two examples, the better one first; absent: every example is a sample of its own. */
  readonly examplesPerSample?: 2;
  toExamples(row: Row, context: FormatContext): Iterable<RowExample>;
  /** What toExamples would complain of, as far as it can be told without a tokenizer; absent: toExamples needs none. */
  check?(row: Row, context: FormatContext): void;
  /** Whether a row is so plain that `row` need not look at it: right, and what `row` would give. */
  isPlain?(row: unknown): row is Row;
  /** The fields by which a row shows that it is of this format; null: it does not show it. */
  recognise?(row: Readonly<Record<string, unknown>>): string | null;
  /** The same row as `chat` has it; absent: it says something else. */
  toChat?(row: Row): ChatRow;
  /** Questions with known answers in the row, for exact match; absent: the format holds none. */
  toPrompts?(row: Row): readonly RowPrompt[];
}
