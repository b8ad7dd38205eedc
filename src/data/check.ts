// What a dataset holds before anything is trained on it: counts, lengths, what is masked, bad rows by line, rendered
// samples.

import type { DataError } from '../base/errors.js';
import type { Tokenizer } from '../harmony/types.js';
import { CHANNELS, type ChannelName, type Example } from './example.js';
import { type DataFile, type FileSummary, type LoadContext, streamExamples } from './load.js';
import type { Overlap } from './overlap.js';

/** A stretch of tokens of one kind, as text. */
export interface Stretch {
  readonly text: string;
  readonly trained: boolean;
  readonly channel: ChannelName;
}
export interface Sample {
  readonly line: number;
  readonly stretches: readonly Stretch[];
}
export interface FileCheck extends FileSummary {
  readonly lengths: {
    readonly min: number;
    readonly median: number;
    readonly p95: number;
    readonly max: number;
  } | null;
  readonly trainedByChannel: Readonly<Partial<Record<ChannelName, number>>>;
  readonly badRows: number;
  /** Why nothing can be learnt from the file though its rows are good: it has none, or none with a token to train. */
  readonly nothing: string | null;
  /** The first of them: at most `maxErrors`. */
  readonly errors: readonly { readonly line: number; readonly code: string; readonly message: string }[];
  readonly samples: readonly Sample[];
  /** Of held-out rows: those that are trained on too, token for token; null: none. */
  readonly overlap?: Overlap | null;
}
export interface CheckOptions {
  readonly samples?: number;
  readonly maxErrors?: number;
  readonly onExample?: (example: Example) => void;
}

/** Tokens as text in which <|…|> is always a control token: the same letters in plain text are written <\\|…|>. */
function shown(ids: Int32Array, tokenizer: Tokenizer): string {
  let out = '';
  for (let from = 0; from < ids.length; ) {
    let end = from + 1;
    const special = tokenizer.isSpecial(ids[from] ?? 0);
    while (end < ids.length && tokenizer.isSpecial(ids[end] ?? 0) === special) end++;
    const text = tokenizer.decode(ids.subarray(from, end));
    out += special ? text : text.replaceAll('<|', '<\\|');
    from = end;
  }
  return out;
}

function sampleOf(example: Example, tokenizer: Tokenizer | null): Sample {
  const stretches: Stretch[] = [];
  let from = 0;
  const kind = (i: number): string => `${(example.weights[i] ?? 0) > 0}${example.channels?.[i] ?? 0}`;
  if (example.tokens.length === 0) return { line: example.source.line, stretches };
  for (let i = 1; i <= example.tokens.length; i++) {
    if (i < example.tokens.length && kind(i) === kind(from)) continue;
    const ids = example.tokens.subarray(from, i);
    stretches.push({
      text: tokenizer ? shown(ids, tokenizer) : Array.from(ids).join(' '),
      trained: (example.weights[from] ?? 0) > 0,
      channel: CHANNELS[example.channels?.[from] ?? 0] ?? 'none',
    });
    from = i;
  }
  return { line: example.source.line, stretches };
}

/** Of counts by value. */
function quantiles(counts: ReadonlyMap<number, number>): FileCheck['lengths'] {
  const sorted = [...counts].sort(([a], [b]) => a - b);
  const total = sorted.reduce((n, [, count]) => n + count, 0);
  if (total === 0) return null;
  const at = (share: number): number => {
    let left = Math.min(total - 1, Math.floor(share * total));
    for (const [value, count] of sorted) {
      if (left < count) return value;
      left -= count;
    }
    return 0;
  };
  return { min: at(0), median: at(0.5), p95: at(0.95), max: at(1) };
}

/** Reads all of a file, past its bad rows. */
export async function checkFile(file: DataFile, context: LoadContext, options: CheckOptions = {}): Promise<FileCheck> {
  const { samples: wanted = 0, maxErrors = 20, onExample } = options;
  const errors: { line: number; code: string; message: string }[] = [];
  let badRows = 0;
  /** How many examples have how many tokens: bounded by the longest example, not by the file. */
  const lengths = new Map<number, number>();
  const byChannel: Partial<Record<ChannelName, number>> = {};
  const samples: Sample[] = [];
  const stream = streamExamples(file, context, (e: DataError) => {
    badRows++;
    if (errors.length < maxErrors) errors.push({ line: Number(e.details.line ?? 0), code: e.code, message: e.message });
  });
  for (;;) {
    const next = await stream.next();
    if (next.done) {
      const { rows, trainedTokens } = next.value;
      return {
        ...next.value,
        nothing:
          rows === 0
            ? 'has no rows; wanted one JSON object per line'
            : badRows === 0 && trainedTokens === 0
              ? 'has nothing to train: no assistant message with a loss weight above 0'
              : null,
        lengths: quantiles(lengths),
        trainedByChannel: byChannel,
        badRows,
        errors,
        samples,
      };
    }
    const example = next.value;
    onExample?.(example);
    lengths.set(example.tokens.length, (lengths.get(example.tokens.length) ?? 0) + 1);
    for (let i = 1; i < example.weights.length; i++) {
      if ((example.weights[i] ?? 0) <= 0) continue;
      const name = CHANNELS[example.channels?.[i] ?? 0] ?? 'none';
      byChannel[name] = (byChannel[name] ?? 0) + 1;
    }
    if (samples.length < wanted) samples.push(sampleOf(example, context.tokenizer?.() ?? null));
  }
}
