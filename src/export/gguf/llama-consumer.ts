// llama.cpp as the consumer of an export: log-probabilities of every token after every prefix, beside ours.
//
// llama.cpp rounds the bounds between which YaRN mixes frequencies to whole numbers. What is compared is therefore our
// model with bounds rounded in the same way, at every position; what the rounding does to the model is said apart.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import type { ConsumerResult } from '../consumer.js';
import type { ExportSource, LlamaFile, Reloaded } from '../format.js';
import { logitsOf } from '../verify-logits.js';
import { asLlamaRounds } from './llama-rounding.js';
import { startLlamaServer } from './llama-server.js';
import { asLlamaRotates } from './model.js';
import { wholeBytes, writeWholeGguf } from './whole.js';

/** f32 weights: sums in another order, and probabilities that pass through f32. */
const TOLERANCE = 1e-4;
/**
 * llama.cpp on the CPU rounds the inputs of products (llama-rounding.ts); it is compared with our model that does so
 * too. Sums in another order let an input fall to the other code here and there, and where that happened in early
 * layers, two runs end up apart like two draws of the same noise: √2 of what the rounding itself does to the model,
 * which is computed here. A little more than that is allowed.
 */
const DRAWS = 1.5;
/** Log-probabilities that are asked for at most. */
const MOST_LOGITS = 2 ** 22;
/** A base of an adapter with no more bytes than this is written in f32. */
const SMALL_BASE = 2 ** 30;
/** Below it a probability is no number of f32 any more. */
const UNDERFLOW = -87;

function logSoftmax(logits: Float32Array): Float64Array {
  const most = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  let sum = 0;
  for (const x of logits) sum += Math.exp(x - most);
  const all = most + Math.log(sum);
  return Float64Array.from(logits, (x) => x - all);
}

/** Differences of many vectors, and how far the wanted ones spread. */
class Differences {
  compared = 0;
  most = 0;
  largest = 0;
  #squares = 0;
  #spread = 0;
  add(got: Float64Array, want: Float64Array): void {
    const mean = want.reduce((a, b) => a + b, 0) / want.length;
    for (let i = 0; i < want.length; i++) {
      const w = want[i] ?? Number.NaN,
        g = got[i] ?? Number.NaN;
      if (g === -Infinity && w < UNDERFLOW) continue;
      const d = Number.isNaN(g - w) ? Infinity : Math.abs(g - w);
      this.most = Math.max(this.most, d);
      this.largest = Math.max(this.largest, Math.abs(w));
      this.#squares += d * d;
      this.#spread += (w - mean) ** 2;
      this.compared++;
    }
  }
  relative(): number {
    return Math.sqrt(this.#squares / (this.#spread || 1));
  }
}

/** Which lengths of prefixes of a sequence are asked for: all, or so many spread over it, the last among them. */
export function prefixLengths(length: number, most: number): number[] {
  const n = Math.max(1, Math.min(length, most));
  return Array.from({ length: n }, (_, i) => Math.round(((i + 1) * length) / n));
}

const rowOf = (logits: Float32Array, position: number, V: number): Float32Array =>
  logits.subarray(position * V, (position + 1) * V);

export interface AskOptions {
  readonly signal?: AbortSignal | undefined;
  /** Of each sequence, at most so many (default: all that MOST_LOGITS leave). */
  readonly prefixes?: number;
}
/**
 * @throws {ConfigError} consumer_failed, format_unfit · the signal's reason
 */
export async function askLlama(
  program: string,
  file: LlamaFile,
  source: ExportSource,
  exported: Reloaded,
  sequences: readonly Int32Array[],
  { signal, prefixes = Infinity }: AskOptions = {},
): Promise<ConsumerResult> {
  const { config } = source.base,
    { vocab_size: V } = config;
  const [asTheirs, asOurs] = [asLlamaRotates(config), config].map((c) => ({ ...exported.model, config: c }));
  if (!asTheirs || !asOurs) throw new Error('unreachable');
  const folder = mkdtempSync(join(tmpdir(), 'temper-llama-'));
  try {
    const model = file.kind === 'model' ? file : await baseFor(source, folder, signal);
    const server = await startLlamaServer({
      program,
      model: model.path,
      ...(file.kind === 'adapter' ? { lora: file.path } : {}),
      maxTokens: sequences.reduce((n, s) => Math.max(n, s.length), 0),
      vocabSize: V,
      signal,
    });
    const theirs = new Differences(),
      bounds = new Differences(),
      inputs = new Differences(),
      apart = new Differences();
    const asRounded = model.f32 ? null : asLlamaRounds(asTheirs);
    let positions = 0;
    try {
      const each = Math.min(prefixes, Math.ceil(MOST_LOGITS / V / sequences.length));
      for (const tokens of sequences) {
        const want = logitsOf(asTheirs, exported.adapter, tokens),
          own = logitsOf(asOurs, exported.adapter, tokens),
          rounded = asRounded && logitsOf(asRounded, exported.adapter, tokens);
        for (const length of prefixLengths(tokens.length, each)) {
          await setImmediate(); // lets messages in
          const ours = logSoftmax(rowOf(want, length - 1, V));
          const answer = await server.logProbabilities([...tokens.subarray(0, length)]);
          const alike = rounded ? logSoftmax(rowOf(rounded, length - 1, V)) : ours;
          theirs.add(answer, alike);
          apart.add(answer, ours);
          inputs.add(alike, ours);
          bounds.add(logSoftmax(rowOf(own, length - 1, V)), ours);
          positions++;
        }
      }
    } finally {
      await server.close();
    }
    const relative = theirs.relative(),
      tolerance = TOLERANCE + (asRounded ? DRAWS * inputs.relative() : 0);
    const exponent = (x: number): string => x.toExponential(2);
    return {
      ok: relative <= tolerance,
      consumer: 'llama.cpp',
      versions: `llama.cpp ${server.version}`,
      compared: theirs.compared,
      maxDifference: theirs.most,
      maxLogit: theirs.largest,
      maxEffect: 0,
      tolerance,
      relative,
      ...(asRounded ? { rounding: { moves: inputs.relative(), apart: apart.relative() } } : {}),
      note:
        `log-probabilities after ${positions} prefixes, ours with YaRN's bounds rounded as llama.cpp rounds them; ` +
        `that alone moves them by ${exponent(bounds.relative())} of their spread` +
        (asRounded
          ? `; inputs of products are rounded as llama.cpp rounds them too, which moves them by ` +
            `${exponent(inputs.relative())}: without it llama.cpp lies ${exponent(apart.relative())} apart`
          : ''),
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** The base of an adapter, for the time of the comparison. */
async function baseFor(
  source: ExportSource,
  folder: string,
  signal?: AbortSignal,
): Promise<{ readonly path: string; readonly f32: boolean }> {
  const path = join(folder, 'base.gguf');
  const f32 = wholeBytes(source.base, 'f32') <= SMALL_BASE;
  const base: ExportSource = { ...source, adapter: null, [Symbol.dispose]: () => {} };
  await writeWholeGguf(path, base, f32 ? 'f32' : 'as stored', { signal });
  return { path, f32 };
}
