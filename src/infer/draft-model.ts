// A smaller model that guesses: it has read what a stream has, and samples on with the parameters and the uniform
// numbers that the stream's own tokens will have, so that two models that see it alike choose alike.
import { DecodeSteps } from '../model/decode-step.js';
import { atOnce, cacheLayers } from '../model/gpt-oss.js';
import { KvCache } from '../model/kv-cache.js';
import { type Batch, type ModelWeights, placeOf } from '../model/types.js';
import type { PRECISION } from '../native/ops.js';
import { type Drafter, MOST_DRAFTS, type Stream } from './speculation.js';
import type { Track } from './track.js';

export interface DraftModelOptions {
  readonly precision: keyof typeof PRECISION;
  readonly slots: number;
  readonly capacity: number;
  /** Pages of its cache. */
  readonly pages: number;
  readonly kvDtype: 'f32' | 'bf16';
  readonly graphs: boolean;
  /** Most tokens of a text that are read between two steps of the streams. */
  readonly pieceTokens: number;
}
/** Whose text a slot holds. */
interface Held {
  readonly track: Track;
  /** Tokens of the text that were read, and guesses that were read after them. */
  length: number;
  guesses: readonly number[];
}
interface Row {
  readonly stream: Stream;
  readonly token: number;
  readonly position: number;
  /** Tokens between what it samples and what the stream samples next; −1: its sample is not wanted. */
  readonly later: number;
}

export class DraftModel implements Drafter, Disposable {
  readonly #cache: KvCache;
  readonly #steps: DecodeSteps;
  readonly #held = new Map<number, Held>();

  constructor(
    readonly model: ModelWeights,
    readonly options: DraftModelOptions,
  ) {
    const { slots, pages, kvDtype, precision, graphs } = options;
    const capacity = Math.min(options.capacity, model.config.max_position_embeddings);
    this.#cache = new KvCache(model.config, slots, capacity, placeOf(model), {
      pages,
      dtype: kvDtype,
      lookahead: MOST_DRAFTS,
    });
    this.#steps = new DecodeSteps(model, this.#cache, precision, graphs && !model.streamsExperts);
  }

  ready({ track, slot }: Stream): boolean {
    const held = this.#held.get(slot);
    if (held?.track !== track) return false;
    const { length } = track.text;
    return length - this.#agreed(slot, held) <= MOST_DRAFTS && length + MOST_DRAFTS < this.#cache.capacity;
  }
  /** Takes back guesses that did not come. @returns tokens of the text that are in the cache */
  #agreed(slot: number, held: Held): number {
    const { text } = held.track;
    let n = 0;
    while (n < held.guesses.length && held.length + n + 1 < text.length && text[held.length + n] === held.guesses[n])
      n++;
    held.length += n;
    held.guesses = [];
    if (this.#cache.length(slot) > held.length) this.#cache.rewind(slot, held.length);
    return held.length;
  }

  /** One piece of one text. */
  read(streams: readonly Stream[]): void {
    for (const stream of streams) {
      const { track, slot, room } = stream,
        { text } = track;
      if (this.ready(stream) || text.length + MOST_DRAFTS >= this.#cache.capacity) continue;
      let held = this.#held.get(slot);
      if (held?.track !== track) {
        this.end(slot);
        // No room: it is not guessed for.
        if (!this.#cache.promise(slot, text.length + room)) continue;
        held = { track, length: 0, guesses: [] };
        this.#held.set(slot, held);
      }
      const from = held.length,
        // The last one is read when it is asked what follows.
        to = Math.min(text.length - 1, from + this.options.pieceTokens);
      this.#pass(slot, text.slice(from, to), from);
      held.length = to;
      return;
    }
  }
  #pass(slot: number, tokens: Int32Array, from: number): void {
    const batch: Batch = {
      tokens,
      positions: Int32Array.from(tokens, (_, i) => from + i),
      starts: Int32Array.of(0, tokens.length),
      slots: Int32Array.of(slot),
    };
    const { precision } = this.options;
    atOnce(cacheLayers(this.model, null, batch, { precision, cache: this.#cache }));
  }

  draft(streams: readonly Stream[], counts: readonly number[]): readonly (readonly number[])[] {
    const drafts: number[][] = streams.map(() => []);
    const deepest = Math.max(...counts);
    for (let depth = 0; depth < deepest; depth++) {
      const rows: Row[] = [];
      for (const [i, stream] of streams.entries()) {
        if (counts[i]! <= depth) continue;
        const { text } = stream.track;
        if (depth > 0) {
          const token = drafts[i]!.at(-1)!;
          rows.push({ stream, token, position: text.length + depth - 1, later: depth });
          continue;
        }
        const from = this.#held.get(stream.slot)!.length;
        for (let at = from; at < text.length; at++)
          rows.push({ stream, token: text[at]!, position: at, later: at + 1 < text.length ? -1 : 0 });
      }
      const tokens = this.#step(rows);
      rows.forEach(({ stream, later }, r) => {
        if (later >= 0) drafts[streams.indexOf(stream)]!.push(tokens[r]!);
      });
    }
    streams.forEach((stream, i) => {
      const held = this.#held.get(stream.slot)!;
      held.length = stream.track.text.length;
      held.guesses = drafts[i]!.slice(0, -1); // the last was not read
    });
    return drafts;
  }
  #step(rows: readonly Row[]): Int32Array {
    const batch: Batch = {
      tokens: Int32Array.from(rows, (r) => r.token),
      positions: Int32Array.from(rows, (r) => r.position),
      starts: Int32Array.from({ length: rows.length + 1 }, (_, i) => i),
      slots: Int32Array.from(rows, (r) => r.stream.slot),
    };
    const unwanted = [0, 0, 1, 0];
    return this.#steps.run(null, batch, {
      params: Float32Array.from(rows.flatMap((r) => (r.later < 0 ? unwanted : r.stream.params))),
      u: Float32Array.from(rows, (r) => (r.later < 0 ? 0 : r.stream.uniform(r.later))),
    }).tokens;
  }

  end(slot: number): void {
    this.#held.delete(slot);
    this.#cache.reset(slot);
  }
  /** Counts the whole cache as in use from now on. */
  commitCache(): void {
    this.#cache.commitAll();
  }
  close(): void {
    this.#steps.close();
    this.#cache.close();
  }
  [Symbol.dispose](): void {
    this.close();
  }
}
