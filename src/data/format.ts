// The contract of a dataset format. A new one is a file in formats/ and a line in formats/index.ts; nothing else asks
// which format it holds.
import type { z } from 'zod';
import type { Tokenizer } from '../harmony/types.js';
import type { Example, Prompt } from './example.js';

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
}

export type RowExample = Omit<Example, 'source'>;
export type RowPrompt = Omit<Prompt, 'source'>;

/** Errors it throws are DataErrors without a place; the loader adds file and line. */
export interface Format<Row = unknown> {
  readonly name: string;
  readonly row: z.ZodType<Row>;
  /** 2: a row is one sample of two examples, the better one first; absent: every example is a sample of its own. */
  readonly examplesPerSample?: 2;
  toExamples(row: Row, context: FormatContext): readonly RowExample[];
  /** Questions with known answers in the row, for exact match; absent: the format holds none. */
  toPrompts?(row: Row): readonly RowPrompt[];
}
