// What a dataset holds before anything is trained on it: counts, lengths, what is masked, bad rows by line, rendered
// samples.

import type { DataError } from '../base/errors.js';
import type { Tokenizer } from '../harmony/types.js';
import { CHANNELS, type ChannelName, type Example } from './example.js';
import { type DataFile, type FileSummary, type LoadContext, streamExamples } from './examples.js';
import type { Leakage } from './leakage.js';
import type { Overlap } from './overlap.js';
import type { PlacedRow } from './rows.js';
import { rowHash, SeenRows } from './seen.js';

/** A stretch of tokens of one kind, as text. */
export interface Stretch {
  readonly text: string;
  readonly trained: boolean;
  /** Loss weight of its tokens. */
  readonly weight: number;
  readonly channel: ChannelName;
}
/** A column of the histogram: examples of `from` tokens or bytes on, up to before the next one. */
export interface Bar {
  readonly from: number;
  readonly count: number;
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
  /** What `lengths` and `histogram` count: tokens of examples; without a tokenizer, bytes of rows of text. */
  readonly unit: 'tokens' | 'bytes';
  /** Powers of two. */
  readonly histogram: readonly Bar[];
  /** Share of the tokens that are trained; null: nothing was tokenised. */
  readonly trainedShare: number | null;
  /** Rows that say what an earlier one says, to the letter. */
  readonly duplicates: {
    readonly rows: number;
    readonly first: readonly { readonly line: number; readonly of: number }[];
    /** Rows that were compared; fewer than there are where there was no more room. */
    readonly compared: number;
  };
  /** Of held-out rows: which of them are trained on too; null: nothing was compared. */
  readonly leakage: Leakage | null;
  /** Of them those that are the same to the letter; null: none. Absent where nothing was compared. */
  readonly overlap?: Overlap | null;
  readonly trainedByChannel: Readonly<Partial<Record<ChannelName, number>>>;
  readonly badRows: number;
  /** Why nothing can be learnt from the file though its rows are good: it has none, or none with a token to train. */
  readonly nothing: string | null;
  /** The first of them: at most `maxErrors`. */
  readonly errors: readonly { readonly line: number; readonly code: string; readonly message: string }[];
  readonly samples: readonly Sample[];
}
export interface CheckOptions {
  readonly samples?: number;
  readonly maxErrors?: number;
  /** Told of every good row. */
  readonly onRow?: (row: PlacedRow) => void;
  /** Told now and then how many rows were read. */
  readonly onProgress?: (rows: number) => void;
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
  const weightAt = (i: number): number => example.weights[i] ?? 0;
  const kind = (i: number): string => `${weightAt(i)}:${example.channels?.[i] ?? 0}`;
  if (example.tokens.length === 0) return { line: example.source.line, stretches };
  for (let i = 1; i <= example.tokens.length; i++) {
    if (i < example.tokens.length && kind(i) === kind(from)) continue;
    const ids = example.tokens.subarray(from, i);
    stretches.push({
      text: tokenizer ? shown(ids, tokenizer) : Array.from(ids).join(' '),
      trained: weightAt(from) > 0,
      weight: weightAt(from),
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

function histogramOf(counts: ReadonlyMap<number, number>): Bar[] {
  const bars = new Map<number, number>();
  for (const [value, count] of counts) {
    const from = value < 1 ? 0 : 2 ** Math.floor(Math.log2(value));
    bars.set(from, (bars.get(from) ?? 0) + count);
  }
  const froms = [...bars.keys()].filter((f) => f > 0);
  // Bars of nothing between others are shown too.
  for (let f = Math.min(...froms); f < Math.max(...froms); f *= 2) if (!bars.has(f)) bars.set(f, 0);
  return [...bars].sort(([a], [b]) => a - b).map(([from, count]) => ({ from, count }));
}

/** Counts over the rows and examples of one file. */
class Check {
  readonly errors: { line: number; code: string; message: string }[] = [];
  badRows = 0;
  /** How many have which length: bounded by the longest one, not by the file. */
  readonly lengths = new Map<number, number>();
  readonly byChannel: Partial<Record<ChannelName, number>> = {};
  readonly samples: Sample[] = [];
  readonly #seen = new SeenRows();
  readonly #twice: { line: number; of: number }[] = [];
  #repeated = 0;
  #rows = 0;

  duplicate(hash: Awaited<ReturnType<typeof rowHash>>, row: PlacedRow, shown: number): void {
    this.#rows++;
    const of = this.#seen.add(hash(row), row.place.line);
    if (of === 0) return;
    this.#repeated++;
    if (this.#twice.length < shown) this.#twice.push({ line: row.place.line, of });
  }
  length(n: number): void {
    this.lengths.set(n, (this.lengths.get(n) ?? 0) + 1);
  }
  trained(example: Example): void {
    for (let i = 1; i < example.weights.length; i++) {
      if ((example.weights[i] ?? 0) <= 0) continue;
      const name = CHANNELS[example.channels?.[i] ?? 0] ?? 'none';
      this.byChannel[name] = (this.byChannel[name] ?? 0) + 1;
    }
  }
  get duplicates(): FileCheck['duplicates'] {
    const compared = this.#seen.isFull ? this.#seen.size + this.#repeated : this.#rows;
    return { rows: this.#repeated, first: this.#twice, compared };
  }
}

const FIRST_SHOWN = 5;
const PROGRESS_ROWS = 4096;

/** Reads all of a file, past its bad rows. Without a tokenizer rows of text are read and checked all the same. */
export async function checkFile(file: DataFile, context: LoadContext, options: CheckOptions = {}): Promise<FileCheck> {
  const { samples: wanted = 0, maxErrors = 20 } = options;
  const check = new Check();
  const hash = await rowHash();
  const withoutTokens = context.tokenizer === null;
  let [rows, isTokenised] = [0, false];
  const stream = streamExamples(file, context, {
    withoutTokens,
    onBad: (e: DataError) => {
      check.badRows++;
      if (check.errors.length < maxErrors)
        check.errors.push({ line: Number(e.details.line ?? 0), code: e.code, message: e.message });
    },
    onRow: (row) => {
      check.duplicate(hash, row, FIRST_SHOWN);
      options.onRow?.(row);
      if (withoutTokens && !isTokenised && row.raw) check.length(row.raw.length);
      if (++rows % PROGRESS_ROWS === 0) options.onProgress?.(rows);
    },
  });
  for (;;) {
    const next = await stream.next();
    if (next.done) return checked(next.value, check, isTokenised || !withoutTokens);
    const example = next.value;
    if (!isTokenised) check.lengths.clear();
    isTokenised = true;
    check.length(example.tokens.length);
    check.trained(example);
    if (check.samples.length < wanted) check.samples.push(sampleOf(example, context.tokenizer?.() ?? null));
  }
}

function checked(summary: FileSummary, check: Check, isTokenised: boolean): FileCheck {
  const { rows, tokens, trainedTokens } = summary;
  const nothing =
    rows === 0
      ? 'has no rows; wanted one JSON object per line'
      : check.badRows === 0 && trainedTokens === 0 && isTokenised
        ? 'has nothing to train: no assistant message with a loss weight above 0'
        : null;
  return {
    ...summary,
    nothing,
    unit: isTokenised ? 'tokens' : 'bytes',
    lengths: quantiles(check.lengths),
    histogram: histogramOf(check.lengths),
    trainedShare: isTokenised && tokens > 0 ? trainedTokens / tokens : null,
    duplicates: check.duplicates,
    leakage: null,
    trainedByChannel: check.byChannel,
    badRows: check.badRows,
    errors: check.errors,
    samples: check.samples,
  };
}
