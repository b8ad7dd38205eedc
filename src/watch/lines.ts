// Lines of a file that grows, and the metrics that a line holds.
import { SOMETIMES } from '../runs/curves.js';
import type { StepMetrics } from '../runs/metrics.js';

/** A longer line is none of ours, and is passed over. */
const LONGEST_BYTES = 1 << 16;
const NEWLINE = 10;

/** Cuts pieces of a file into lines. The last one waits for its end: it may have been cut off. */
export class LineReader {
  #rest: Buffer = Buffer.alloc(0);
  #passing = false;

  /** @returns the lines that ended in this piece, in order */
  take(piece: Buffer): readonly string[] {
    const lines: string[] = [];
    let from = 0;
    for (let end = piece.indexOf(NEWLINE); end >= 0; end = piece.indexOf(NEWLINE, from)) {
      if (!this.#passing) lines.push(Buffer.concat([this.#rest, piece.subarray(from, end)]).toString('utf8'));
      this.#rest = Buffer.alloc(0);
      this.#passing = false;
      from = end + 1;
    }
    this.#passing ||= this.#rest.length + piece.length - from > LONGEST_BYTES;
    this.#rest = this.#passing ? Buffer.alloc(0) : Buffer.concat([this.#rest, piece.subarray(from)]);
    return lines;
  }
}

const MEASURED = ['loss', 'lr', 'gradNorm', 'tokens', 'tokensPerSecond', 'peakBytes'] as const;

/** @returns null: the line is no step */
export function stepOf(line: string): StepMetrics | null {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return null;
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return null;
  const given = value as Readonly<Record<string, unknown>>;
  const { step } = given;
  if (typeof step !== 'number' || !Number.isSafeInteger(step) || step < 1) return null;
  const [loss, lr, gradNorm, tokens, tokensPerSecond, peakBytes] = MEASURED.map((key) => {
    const x = given[key];
    return typeof x === 'number' ? x : Number.NaN;
  }) as [number, number, number, number, number, number];
  const more = SOMETIMES.flatMap((key) => (typeof given[key] === 'number' ? [[key, given[key]] as const] : []));
  return { step, loss, lr, gradNorm, tokens, tokensPerSecond, peakBytes, ...Object.fromEntries(more) };
}
