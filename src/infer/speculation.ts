// Tokens that are checked before they are sampled. A stream's next tokens are guessed, run beside its last one in the
// same pass, a row each, and sampled row by row as they would have been one at a time: with the same bits, as a row's
// do not depend on those beside it, and with the same uniform numbers. A guess that is what was sampled saves a step;
// the first that is not ends the stream's part, and its rows are taken back. So no token depends on what was guessed.
//
// This file decides how many guesses are worth their rows: the whole policy. It knows neither model nor cache.
import { Beginnings } from './beginnings.js';
import { StepTimes } from './step-times.js';
import { BEGUN_KIND, Experience, FORESEEN_KIND, kindOf, MODEL_KIND, type Track } from './track.js';

/** Most guesses of one stream in a step, and of all together. */
export const MOST_DRAFTS = 7;
export const MOST_DRAFT_ROWS = 16;
/** The same where every stream's request says what will come, and that mostly comes. */
export const MOST_FORESEEN = 63;
export const MOST_FORESEEN_ROWS = 64;
/** Of small models a row takes less than what is around a step: more, as far as their logits take 4 MiB. */
export const foreseenRows = (vocabSize: number): number =>
  Math.max(MOST_FORESEEN_ROWS, Math.min(1024, Math.floor(2 ** 20 / vocabSize)));
/** That such a guess is right: where nothing is known of it, and the least that is worth a row. */
const FORESEEN_HOPE = 0.9,
  LEAST_FORESEEN_CHANCE = 0.7;
/** So many of them are checked at once that all of them come so often. */
const ALL_COME = 0.5;
/** Guesses of all together in a step: a size that is new must be run some times until it is as fast as it can be. */
const COUNTS: readonly number[] = [1, 3, 7, 15];
/** Share of a stream's decoding time that guesses may have cost it, all in all. */
const MOST_LOSS = 0.02;
/** By how much a step must promise to be better. */
const LEAST_GAIN = 1.03;
/** Of shorter steps what is around a guess takes too large a share, ms. */
const LEAST_STEP_MS = 2;
/** Steps with guesses after which one goes without, so that it stays known what such a step takes. */
const PLAIN_AFTER = 32;
/** Share of the time of all steps in which a drafter may read that does not promise to pay. */
const MOST_READING = 0.01;
/** What a drafter's token is thought to take of a step, where none was measured. */
const UNSEEN_DRAFT = 0.125;
/** That a guess is right of which nothing is known. */
const HOPE = 0.6;
/** Of the time of a step whose rows all cost the same: more is put down to chance. */
const MOST_PRICE = 1.5;
/** Steps after which a guess is thought as good as if nothing were known. */
const ASK_AGAIN = 24;
/** What is left of everybody's experience after one more guess, and of a stream's after a step. */
const KEEPS = { all: 0.995, step: 0.998, foreseen: 0.99 };

/** Guesses that take time: a smaller model's. */
export interface Drafter {
  /** Whether it has read what a stream has so far, or nearly. */
  ready(stream: Stream): boolean;
  /** Reads more of one that it is not ready for: so much that others do not wait long. */
  read(streams: readonly Stream[]): void;
  /** The next tokens of each, at most `counts[i]` of them, as it would sample them. */
  draft(streams: readonly Stream[], counts: readonly number[]): readonly (readonly number[])[];
  /** Nobody asks for this slot's stream any more. */
  end(slot: number): void;
}
export interface SpeculationOptions {
  /** auto: where measured times say that it pays; always: wherever there is a guess. */
  readonly when: 'auto' | 'always';
  /** Most rows of a step that has guesses; absent: any. */
  readonly mostRows?: number;
  /** Most guesses of one in which all are foreseen. Default MOST_FORESEEN_ROWS. */
  readonly foreseenRows?: number;
  /** Where nothing like it was written before. */
  readonly drafter?: Drafter | null;
  /** ms; absent: performance.now. */
  readonly clock?: () => number;
}
/** A stream before a step. */
export interface Stream {
  readonly track: Track;
  /** Most guesses that its end, its promise in the cache and the context leave room for. */
  readonly room: number;
  /** Its place in caches. */
  readonly slot: number;
  /** Sampling parameters as op `sample` takes them, and the uniform number of a token that comes so much later. */
  readonly params: readonly number[];
  readonly uniform: (later: number) => number;
}
/** What a stream got of a step. */
export interface Outcome {
  readonly tokens: number;
  /** A guess was not what was sampled. */
  readonly missed: boolean;
}
export interface SpeculationCounts {
  /** Guesses that were checked, and those of them that were right. */
  readonly drafted: number;
  readonly accepted: number;
}
export type Drafts = readonly (readonly number[])[];

/** What could be guessed of a stream. */
interface Offer {
  readonly kind: number;
  readonly most: number;
  /** null: a model's, which are not there yet. */
  readonly tokens: readonly number[] | null;
}
const NO_OFFER: Offer = { kind: 0, most: 0, tokens: [] };
const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);

export class Speculation {
  readonly clock: () => number;
  /** What answers began with. */
  readonly beginnings = new Beginnings();
  readonly #all = new Experience(KEEPS.all);
  /** Of what requests foresaw alone; it fades, so that it is tried again. */
  readonly #foresight = new Experience(KEEPS.all);
  /** By what a pass is made with, as adapters take time. */
  readonly #times = new WeakMap<object, StepTimes>();
  /** Of one token more of the drafter's, by streams. */
  readonly #draftTimes = new StepTimes();
  /** Of the step under way: its offers, and what drafting took, ms. */
  #offers: readonly Offer[] = [];
  #draftMs = 0;
  /** Since it was opened. */
  #stepMs = 0;
  #readMs = 0;
  #drafted = 0;
  #accepted = 0;

  constructor(readonly options: SpeculationOptions) {
    this.clock = options.clock ?? (() => performance.now());
  }
  get counts(): SpeculationCounts {
    return { drafted: this.#drafted, accepted: this.#accepted };
  }
  #timesOf(kind: object): StepTimes {
    const times = this.#times.get(kind) ?? new StepTimes();
    this.#times.set(kind, times);
    return times;
  }

  /**
   * Guesses that are to be checked in the next step, for each stream: none where they are not worth it.
   * @param kind what the pass is made with
   */
  drafts(kind: object, streams: readonly Stream[]): Drafts {
    const { when, mostRows = Number.POSITIVE_INFINITY } = this.options;
    this.#draftMs = 0;
    const foreseen = this.#foreseen(streams, mostRows);
    if (foreseen) return foreseen;
    const rows = Math.min(MOST_DRAFT_ROWS, mostRows - streams.length),
      short = when === 'auto' && (this.#timesOf(kind).known(streams.length) ?? LEAST_STEP_MS) < LEAST_STEP_MS;
    // Of a stream alone there are few sizes of steps: each soon runs as fast as it can.
    const begun = short && streams.length > 1 ? null : this.#begun(streams, rows);
    if (begun) return begun;
    if (short) {
      this.#offers = [];
      return streams.map(() => []);
    }
    this.#read(kind, streams, rows);
    this.#offers = streams.map((s) => this.#offer(s, Math.min(MOST_DRAFTS, rows, s.room)));
    if (this.#offers.every((o) => o.most < 1)) return streams.map(() => []);
    const counts = when === 'always' ? this.#shared(rows) : this.#worthwhile(this.#timesOf(kind), streams, rows);
    return this.#made(streams, counts);
  }
  /**
   * Where every request foresees its answer nobody waits for what another one guesses, and times are not asked: what
   * was foreseen is checked as far as there are rows. null: it is as with any other stream.
   */
  #foreseen(streams: readonly Stream[], mostRows: number): Drafts | null {
    const rows = Math.min(this.options.foreseenRows ?? MOST_FORESEEN_ROWS, mostRows - streams.length);
    if (rows <= MOST_DRAFTS || !streams.every(({ track }) => track.foreseen)) return null;
    const offers = streams.map(({ track, room }): Offer => {
      const most = Math.min(MOST_FORESEEN, rows, room, this.#likely(track)),
        tokens = track.foresees(most);
      return { kind: FORESEEN_KIND, most: tokens.length, tokens };
    });
    if (offers.every((o) => o.most < 1)) return null;
    this.#offers = offers;
    return this.#made(streams, this.#shared(rows));
  }
  /**
   * Of streams that have just begun, while others wait for them: that happens once a stream, and what nearly always
   * comes is worth its rows whatever they take. null: there are none.
   */
  #begun(streams: readonly Stream[], rows: number): Drafts | null {
    if (rows < 1) return null;
    const offers = streams.map(({ track, room }): Offer => {
      const tokens = track.begins(Math.min(MOST_DRAFTS, rows, room));
      return { kind: BEGUN_KIND, most: tokens.length, tokens };
    });
    if (offers.every((o) => o.most < 1)) return null;
    this.#offers = offers;
    return this.#made(streams, this.#shared(rows));
  }
  /** The same at a prompt's end, whose pass has them as rows of their own. @param room as a stream's */
  begin(track: Track, room: number): readonly number[] {
    return track.begins(Math.min(MOST_DRAFTS, room));
  }
  /** That pass is done. */
  began(track: Track, guesses: readonly number[], { tokens }: Outcome): void {
    this.#count(track, guesses.length, tokens - 1);
  }
  #count(track: Track, drafted: number, right: number): void {
    track.drafted += drafted;
    track.accepted += right;
    this.#drafted += drafted;
    this.#accepted += right;
  }
  /** How many that were foreseen come in a row, more or less. */
  #likely({ experience }: Track): number {
    const chance = experience.chance(FORESEEN_KIND, this.#foresight.chance(FORESEEN_KIND, FORESEEN_HOPE));
    return chance < LEAST_FORESEEN_CHANCE ? 0 : Math.floor(Math.log(ALL_COME) / Math.log(Math.min(chance, 0.999)));
  }
  /** Lets the drafter read on. Reading is an outlay for all that follows, and not counted against the stream. */
  #read(kind: object, streams: readonly Stream[], rows: number): void {
    const { drafter, when } = this.options;
    if (!drafter || rows < 1) return;
    const worth = when === 'always' || this.#readMs <= MOST_READING * this.#stepMs;
    if (!worth && !this.#drafterPays(this.#timesOf(kind), streams.length, rows)) return;
    const since = this.clock();
    drafter.read(streams);
    this.#readMs += this.clock() - since;
  }
  /** Whether the drafter would make streams faster that all take as many of its guesses. */
  #drafterPays(times: StepTimes, B: number, rows: number): boolean {
    const plain = times.known(B),
      chance = this.#all.chance(MODEL_KIND, HOPE);
    if (plain === null) return false;
    let tokens = 1,
      likely = 1;
    for (let n = 1; n <= Math.min(MOST_DRAFTS, Math.floor(rows / B)); n++) {
      likely *= chance;
      tokens += likely;
      const ms = (times.of(B * (1 + n)) ?? plain) + n * (this.#draftTimes.of(B) ?? plain * UNSEEN_DRAFT);
      if (tokens * plain > ms * LEAST_GAIN) return true;
    }
    return false;
  }
  #offer(stream: Stream, most: number): Offer {
    if (most < 1) return NO_OFFER;
    const { track } = stream,
      { tokens, matched } = track.guess(most),
      found: Offer = { kind: kindOf(matched), most: tokens.length, tokens };
    if (!this.options.drafter?.ready(stream)) return found;
    const own: Offer = { kind: MODEL_KIND, most, tokens: null };
    return tokens.length > 0 && this.#chance(track, found) >= this.#chance(track, own) ? found : own;
  }
  /** Of its own kind as far as that is known, then as the stream's others, then as those of all streams. */
  #chance({ experience, idle }: Track, { kind, most }: Offer): number {
    if (most < 1) return 0;
    const chance = experience.chance(kind, experience.overall(this.#all.chance(kind, HOPE)));
    return idle < ASK_AGAIN ? chance : Math.max(chance, HOPE);
  }
  /** As many of each as come to their turn, one after the other. */
  #shared(rows: number): number[] {
    const counts = this.#offers.map(() => 0);
    for (let left = rows, depth = 0; left > 0 && depth < MOST_FORESEEN; depth++)
      this.#offers.forEach(({ most }, i) => {
        if (left < 1 || most <= depth) return;
        counts[i]!++;
        left--;
      });
    return counts;
  }
  /** Adds the likeliest guess again and again; what promises most tokens for its time, and slows nobody, is taken. */
  #worthwhile(times: StepTimes, streams: readonly Stream[], rows: number): readonly number[] {
    const B = streams.length,
      plain = times.known(B);
    const chances = this.#offers.map((o, i) => this.#chance(streams[i]!.track, o)),
      counts = chances.map(() => 0);
    if (plain === null || times.guessed >= PLAIN_AFTER) return counts;
    const likely = chances.slice(),
      tokens = chances.map(() => 1);
    let best: readonly number[] = counts.slice(),
      score = (B / plain) * LEAST_GAIN;
    for (let n = 1; n <= rows; n++) {
      let next = -1;
      for (let i = 0; i < B; i++) if (this.#offers[i]!.most > counts[i]! && likely[i]! > (likely[next] ?? 0)) next = i;
      if (next < 0) break;
      counts[next]!++;
      tokens[next]! += likely[next]!;
      likely[next]! *= chances[next]!;
      if (!COUNTS.includes(n)) continue;
      const drafting = this.#draftingTakes(counts, plain),
        here = sum(tokens) / ((times.of(B + n) ?? plain) + drafting),
        // Hope is enough for trying what is new, but not for what it may cost.
        most = (times.known(B + n) ?? wholePrice(plain, B, n)) + drafting;
      if (here <= score || !streams.every(({ track }, i) => bearable(track, most - tokens[i]! * plain))) continue;
      score = here;
      best = counts.slice();
    }
    return best;
  }
  /** ms; where it was never measured it is thought to be little, so that it is. */
  #draftingTakes(counts: readonly number[], plain: number): number {
    const own = counts.filter((n, i) => n > 0 && this.#offers[i]!.tokens === null);
    return own.length === 0 ? 0 : Math.max(...own) * (this.#draftTimes.of(own.length) ?? plain * UNSEEN_DRAFT);
  }
  #made(streams: readonly Stream[], counts: readonly number[]): Drafts {
    const made: (readonly number[])[] = this.#offers.map(({ tokens }, i) => tokens?.slice(0, counts[i]) ?? []);
    const asked = streams.flatMap((_, i) => (this.#offers[i]!.tokens === null && counts[i]! > 0 ? [i] : []));
    const { drafter } = this.options;
    if (!drafter || asked.length === 0) return made;
    const deepest = Math.max(...asked.map((i) => counts[i]!));
    const took = this.#timed(() => {
      const drafted = drafter.draft(
        asked.map((i) => streams[i]!),
        asked.map((i) => counts[i]!),
      );
      asked.forEach((i, at) => {
        made[i] = drafted[at]!;
      });
    });
    this.#draftTimes.add(asked.length, took / deepest);
    return made;
  }
  #timed(work: () => void): number {
    const since = this.clock();
    work();
    const took = this.clock() - since;
    this.#draftMs += took;
    return took;
  }

  /**
   * What a step is said to have cost, ms: what its size takes of late, as chance holds up any step. While that is not
   * known it is what it took, but not much more than if its rows cost as much as those of a step without guesses.
   */
  #price(times: StepTimes, rows: number, B: number, ms: number): number {
    const plain = times.known(B);
    return times.known(rows) ?? (plain === null ? ms : Math.min(ms, MOST_PRICE * wholePrice(plain, B, rows - B)));
  }
  /** A step is done. @param ms what its pass took */
  ran(kind: object, streams: readonly Stream[], drafts: Drafts, outcomes: readonly Outcome[], ms: number): void {
    const times = this.#timesOf(kind),
      rows = streams.length + sum(drafts.map((d) => d.length)),
      plain = times.known(streams.length),
      more = rows - streams.length,
      took = this.#price(times, rows, streams.length, ms) + this.#draftMs;
    times.add(rows, ms);
    this.#stepMs += took;
    times.guessed = more > 0 ? times.guessed + 1 : 0;
    this.#foresight.fade(KEEPS.foreseen);
    streams.forEach(({ track }, i) => {
      track.idle++;
      const { tokens, missed } = outcomes[i]!,
        drafted = drafts[i]!.length,
        right = tokens - 1;
      track.spent += took;
      track.experience.fade(KEEPS.step);
      if (more > 0 && plain !== null) track.lost = Math.max(0, track.lost + took - tokens * plain);
      if (drafted === 0) return;
      this.#count(track, drafted, right);
      const { kind: guessed } = this.#offers[i]!;
      if (guessed === BEGUN_KIND) return;
      track.idle = 0;
      for (const e of [track.experience, guessed === FORESEEN_KIND ? this.#foresight : this.#all])
        e.add(guessed, right, missed ? 1 : 0);
    });
  }
}
/** Of a step in which `more` rows cost as much as those that are there anyway. */
const wholePrice = (plain: number, streams: number, more: number): number => (plain * (streams + more)) / streams;
/** Whether a stream may lose so much, ms: with what it lost by now it must be little beside all of its time. */
const bearable = (track: Track, loss: number): boolean => track.lost + Math.max(0, loss) <= MOST_LOSS * track.spent;
