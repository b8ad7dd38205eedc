// Sampling over the model: sequences share one KV cache, each has its prompt read in pieces and then decodes together
// with the others. A synchronous stepper: whoever drives it (a worker, a test) decides what happens between two steps.
// Start reading at `step`; who takes part in one is decided in scheduler.ts.
//
// A sequence's bits are its own. The pieces of its prompt are cut at places that depend on it alone, and each is a pass
// by itself; streams decode in one pass, whose ops give a row the same bits in any company.

import { NativeError } from '../base/errors.js';
import { DecodeSteps, isUnsound, type StepAdapter, type StepResult } from '../model/decode-step.js';
import { KvCache } from '../model/kv-cache.js';
import { PAGE_TOKENS, pagesFor } from '../model/kv-pages.js';
import { type Batch, type ModelAdapter, type ModelWeights, placeOf } from '../model/types.js';
import { backendOf } from '../native/backends.js';
import { DecodeGroups } from './decode-groups.js';
import { DraftModel } from './draft-model.js';
import { Prefixes } from './prefixes.js';
import { PromptPass } from './prompt-pass.js';
import { admit, Company, prompts, readingMs, streams } from './scheduler.js';
import { checkSequence, type Finish, type Sampled, type Sequence, type SequenceOptions } from './sequence.js';
import { DEFAULT_PREFILL_TOKENS, type SessionOptions, type SessionUsage } from './session-options.js';
import { foreseenRows, MOST_DRAFT_ROWS, MOST_FORESEEN, Speculation } from './speculation.js';
import { createState, outcomeOf, type Row, rowOf, rowsOf, type State, streamOf, valuesOf, wishesOf } from './state.js';
import type { Wish } from './steer.js';
import { RowOfLogits, steered } from './steered.js';
import { youngCollector } from './young.js';

/** Kept prefixes that the cache has room of their own for, where its size is not given. */
const ROOMY_PREFIXES = 2;
/** Sizes of steps that stay recorded where there are guesses. */
const GUESSING_SIZES = 48;
/** Tokens of a text that a draft model reads between two steps. */
const DRAFT_PIECE = 256;
/** What passes without an adapter are timed as. */
const BASE = {};
/** Tokens of prompts that are read together beside streams, at most: streams may wait for a layer of them. */
const MOST_BESIDE = 128;
/** A step that no stream waits for ends after that all the same: requests come and go between two steps. */
const LONGEST_STEP_MS = 10;
/** Of what decode steps take of late: what one step changes in it. */
const RECENT = 0.05;
/** Steps beside prompts and streams after which garbage is collected, in the time of reading. */
const COLLECT_STEPS = 8;

export class Session implements Disposable {
  readonly capacity: number;
  readonly #cache: KvCache;
  readonly #free: number[];
  readonly #waiting: State[] = [];
  /** In the order of arrival. */
  readonly #running: State[] = [];
  /** Those of them that were cancelled in a pass that others are read in too. */
  readonly #leaving = new Set<State>();
  /** Beginnings of prompts that are kept. */
  readonly prefixes: Prefixes;
  readonly #steps: DecodeSteps;
  readonly #pass: PromptPass;
  readonly #row = new RowOfLogits();
  readonly #speculation: Speculation | null;
  readonly #drafter: DraftModel | null;
  readonly #company = new Company();
  readonly #groups = new DecodeGroups();
  /** What a decode step took of late. */
  #decodeMs = 0;
  /** null: V8 collects garbage when it wants to. */
  readonly #collect: (() => void) | null;
  /** Steps beside prompts since the last collection. */
  #uncollected = 0;
  /** The last step read nothing. */
  #rested = false;
  /** Sampled between two steps: told by the next. */
  readonly #late: Sampled[] = [];
  /** Told of a sequence that no token can be sampled for: it ends, and no other does. null: the step throws. */
  failed: ((sequence: Sequence, error: unknown) => void) | null = null;

  constructor(
    readonly model: ModelWeights,
    readonly options: SessionOptions,
  ) {
    this.capacity = options.capacity;
    const { slots, prefixes = 0 } = options;
    this.#collect = options.yields ? youngCollector() : null;
    this.#cache = new KvCache(model.config, slots + prefixes, options.capacity, placeOf(model), {
      // What is kept takes what sequences leave.
      pages:
        options.cacheTokens === undefined
          ? (slots + Math.min(prefixes, ROOMY_PREFIXES)) * pagesFor(options.capacity)
          : pagesFor(options.cacheTokens),
      ...(options.kvDtype === undefined ? {} : { dtype: options.kvDtype }),
      lookahead: options.speculation ? MOST_FORESEEN : 0,
    });
    this.prefixes = new Prefixes(
      this.#cache,
      Array.from({ length: prefixes }, (_, i) => slots + i),
    );
    this.#pass = new PromptPass(model, this.#cache, this.prefixes, {
      precision: options.precision,
      tokens: options.prefillTokens ?? DEFAULT_PREFILL_TOKENS,
      begins: (state) => this.#begins(state),
      take: (state, result, row, guesses) => this.#takeFirst(state, result, row, guesses),
    });
    const record = !model.streamsExperts && (options.graphs ?? true);
    const { rowsAlone, sharesRecordings } = backendOf(placeOf(model));
    const sizes = options.speculation && sharesRecordings ? GUESSING_SIZES : undefined;
    this.#steps = new DecodeSteps(model, this.#cache, options.precision, record, sizes, slots + MOST_DRAFT_ROWS);
    if (options.crowded) this.#steps.crowded = options.crowded;
    this.#drafter = options.draft && options.speculation ? this.#openDrafter(options.draft) : null;
    this.#speculation = options.speculation
      ? new Speculation({
          ...options.speculation,
          drafter: this.#drafter ?? options.speculation.drafter ?? null,
          ...(rowsAlone === null ? {} : { mostRows: rowsAlone }),
          foreseenRows: foreseenRows(model.config.vocab_size),
        })
      : null;
    this.#free = Array.from({ length: slots }, (_, i) => slots - 1 - i);
  }

  #openDrafter(draft: ModelWeights): DraftModel {
    const { precision, slots, capacity, kvDtype = 'f32', graphs = true } = this.options;
    const pages = Math.min(this.#cache.pages, slots * pagesFor(capacity));
    return new DraftModel(draft, { precision, slots, capacity, pages, kvDtype, graphs, pieceTokens: DRAFT_PIECE });
  }

  /**
   * Queues a sequence.
   * @throws {ConfigError} prompt_empty, prompt_too_long, token_range, max_tokens
   * @throws {NativeError} cache_full: the cache is too small for it, even if nothing else ran
   */
  start(options: SequenceOptions): Sequence {
    checkSequence(options, this.capacity, this.model.config.vocab_size);
    const pages = pagesFor(this.#mostTokens(options));
    if (pages > this.#cache.pages)
      throw new NativeError(
        'cache_full',
        `prompt and answer: ${pages} pages of ${PAGE_TOKENS} tokens, the cache has ${this.#cache.pages}; lower ` +
          'maxTokens or make the cache larger',
        { need: pages, limit: this.#cache.pages },
      );
    const begun = this.#speculation?.beginnings.of(options.adapter ?? BASE, options.tokens) ?? null;
    const state = createState(options, (of) => this.#pass.piece(of), begun);
    this.#waiting.push(state);
    return state;
  }
  /** Ends a sequence at once; unknown or ended ones are ignored. */
  cancel(sequence: Sequence): void {
    const waiting = this.#waiting.indexOf(sequence as State);
    if (waiting >= 0) {
      this.#waiting.splice(waiting, 1);
      return;
    }
    const state = sequence as State;
    if (!this.#running.includes(state)) return;
    this.#leaving.add(state);
    // What is read together ends together: the others' keys are in their rings, so that they cannot begin anew.
    const reading = this.#pass.with(state);
    if (!reading.every((q) => this.#leaving.has(q))) return;
    if (reading.length > 0) this.#pass.drop();
    for (const q of [state, ...reading]) if (this.#leaving.delete(q)) this.#release(q);
  }
  /** Drops all that was kept of an adapter, before it is freed; no sequence may run with it any more. */
  forget(adapter: ModelAdapter): void {
    this.#groups.forget();
    this.prefixes.forget(adapter);
    this.#steps.forget(adapter);
  }
  /** Drops recorded steps, before tensors of adapters are freed as they move. */
  forgetSteps(): void {
    // A piece that is being read has these tensors too, and cannot begin anew: rings have its keys already.
    this.#pass.run(this.#late, Number.POSITIVE_INFINITY, false);
    this.#steps.close();
    this.#groups.forget();
  }
  get idle(): boolean {
    return this.#waiting.length + this.#running.length + this.#late.length === 0;
  }
  /** What all that runs is held by, so that a step would do nothing; null: there is something to do. */
  get heldBy(): readonly Int32Array[] | null {
    if (this.idle || this.#waiting.length + this.#late.length > 0) return null;
    if (!this.#running.every((state) => state.decoding && state.held)) return null;
    return this.#running.flatMap(({ options }) => options.brake ?? []);
  }

  /** One token of every stream, and beside them pieces of prompts; the last piece of a prompt gives a first token. */
  step(): readonly Sampled[] {
    this.#admit();
    const since = performance.now(),
      decoding = streams(this.#running, this.#waiting),
      // Others are read as they come; these get a fuller step for it.
      beside = decoding.some((state) => !state.options.patient);
    const sampled = [...this.#late.splice(0), ...this.#decode(decoding)];
    const until = this.options.yields ? this.#readingEnds(since, beside) : Number.POSITIVE_INFINITY;
    if (beside && this.#rests(until)) return sampled;
    if (!this.#pass.run(sampled, until, beside)) return sampled;
    // Who has just ended makes room for others, which are read with those that wait.
    this.#admit();
    if (this.#isCompanyAwaited()) return sampled;
    // A pass over several prompts stops between layers alone.
    const most = beside ? MOST_BESIDE : Number.POSITIVE_INFINITY,
      joins = (state: State, group: readonly State[]): boolean =>
        group.reduce((n, q) => n + q.piece(), state.piece()) <= most && this.#pass.joins(state, group);
    for (const states of prompts([...this.#running], this.#pass.options.tokens, joins)) {
      this.#pass.begin(states);
      if (!this.#pass.run(sampled, until, beside) || performance.now() >= until) break;
    }
    return sampled;
  }
  /**
   * Whether a step beside streams reads nothing, as its time for it is over: it was held up, or garbage was collected
   * in it, which V8 would do at once and when it wants to. Not two one after the other.
   */
  #rests(until: number): boolean {
    // What was left before a prompt came is collected in the first step that reads it.
    this.#uncollected = this.#running.every((q) => q.decoding) ? COLLECT_STEPS - 1 : this.#uncollected + 1;
    if (this.#collect && this.#uncollected >= COLLECT_STEPS) {
      this.#uncollected = 0;
      this.#collect();
    }
    this.#rested = !this.#rested && performance.now() >= until;
    return this.#rested;
  }
  #admit(): void {
    this.#running.push(...admit(this.#waiting, (state) => this.#begin(state)));
  }
  /** Of ends of prompts that may be read together, while all that decode may wait too. */
  #isCompanyAwaited(): boolean {
    const decoding = streams(this.#running, this.#waiting),
      unread = this.#running.filter((q) => !q.decoding),
      comes = this.#waiting.length > 0 && decoding.length > 0;
    if (unread.length === 0 || ![...decoding, ...unread].every((q) => q.options.patient)) return false;
    if (!unread.every((q) => this.#pass.joins(q, []))) return false;
    return this.#company.isAwaited(
      unread.map((q) => q.piece()),
      this.#pass.options.tokens,
      comes,
    );
  }
  /** When streams, if there are any, want their next token. */
  #readingEnds(since: number, beside: boolean): number {
    const now = performance.now();
    if (!beside) return now + LONGEST_STEP_MS;
    // The median, more or less: steps that others on the machine held up say nothing of the next.
    const took = now - since,
      before = this.#decodeMs;
    if (before === 0) this.#decodeMs = took;
    else if (took > before) this.#decodeMs = Math.min(took, before * (1 + RECENT));
    else this.#decodeMs = Math.max(took, before / (1 + RECENT));
    const unread = this.#running.filter((q) => !q.decoding).length;
    // What this step took longer than most is not left for reading.
    return now + readingMs(Math.min(took, this.#decodeMs), unread) + Math.min(0, this.#decodeMs - took);
  }

  /** Pages of the cache: all of them, and those that nothing runs in and nobody was promised. */
  get cachePages(): { readonly all: number; readonly free: number; readonly pageTokens: number } {
    return { all: this.#cache.pages, free: this.#cache.freePages, pageTokens: PAGE_TOKENS };
  }
  /** What is taken now. */
  get usage(): SessionUsage {
    const { pages, usedPages, freePages } = this.#cache,
      kept = this.prefixes.slots;
    return {
      running: this.#running.length,
      waiting: this.#waiting.length,
      freeSlots: this.#free.length,
      pages,
      usedPages,
      freePages,
      keptPages: this.#cache.pagesOf(kept),
      prefixes: kept.length,
      draftedTokens: this.#speculation?.counts.drafted ?? 0,
      acceptedTokens: this.#speculation?.counts.accepted ?? 0,
    };
  }
  /**
   * Prompt tokens of a sequence that were in the cache before it began, and whether it has begun; of its tokens those
   * that were guessed, and those guesses that came.
   */
  progress(sequence: Sequence): {
    readonly begun: boolean;
    readonly cached: number;
    readonly drafted: number;
    readonly accepted: number;
  } {
    const { slot, prefilled, cached, track } = sequence as State;
    return { begun: slot >= 0 || prefilled > 0, cached, drafted: track.drafted, accepted: track.accepted };
  }
  /** Counts the whole cache as in use from now on. */
  commitCache(): void {
    this.#cache.commitAll();
    this.#drafter?.commitCache();
  }

  /** Tokens of a sequence when it is over. */
  #mostTokens({ tokens, maxTokens }: SequenceOptions): number {
    return Math.min(tokens.length + maxTokens, this.capacity);
  }
  #begin(state: State): boolean {
    const slot = this.#free.at(-1);
    if (slot === undefined) return false;
    while (!this.#cache.promise(slot, this.#mostTokens(state.options))) if (!this.prefixes.drop()) return false;
    state.slot = slot;
    this.#free.pop();
    return true;
  }

  /** One token of each, or more where guesses are right: a pass, and one for each adapter that lies in no pool. */
  #decode(all: readonly State[]): readonly Sampled[] {
    return this.#groups.of(all).flatMap(({ adapter, states, adapterRows }) => {
      const speculation = this.#speculation,
        kind = adapter ?? BASE;
      const guessed = speculation ? states.map((s) => streamOf(s, this.capacity - this.#cache.length(s.slot))) : [];
      const drafts = speculation?.drafts(kind, guessed) ?? states.map(() => []);
      const rows = rowsOf(states, drafts);
      const wishes = wishesOf(states),
        // What is wished for after a guess is known when that was right.
        keeps = wishes !== null || rows.some((r) => r.ahead > 0 && r.state.options.steer);
      const { params, u } = valuesOf(rows);
      const values = adapterRows
        ? {
            params,
            u,
            adapterRows: rows.length === states.length ? adapterRows : Int32Array.from(rows, (r) => rowOf(r.state)),
          }
        : { params, u };
      const lengths = states.map((s) => this.#cache.length(s.slot)),
        since = speculation?.clock() ?? 0;
      let result: StepResult;
      try {
        result = this.#steps.run(adapter, this.#batchOf(rows), values, keeps);
      } catch (e) {
        if (!isUnsound(e) || this.failed === null) throw e;
        return this.#decodeApart(adapter, states, lengths);
      }
      const took = (speculation?.clock() ?? 0) - since;
      let first = 0;
      const told = states.map((state, i) => {
        const sampled = this.#take(state, result, first, drafts[i] ?? [], wishes?.[i] ?? null);
        first += 1 + (drafts[i]?.length ?? 0);
        return sampled;
      });
      speculation?.ran(
        kind,
        guessed,
        drafts,
        told.map((t, i) => outcomeOf(t, drafts[i] ?? [])),
        took,
      );
      return told.flat();
    });
  }
  /**
   * A token of each by itself, where a step failed by the logits of one of them: it ends, and the others get the bits
   * that they would have had. @param lengths of each before that step
   */
  #decodeApart(adapter: StepAdapter, states: readonly State[], lengths: readonly number[]): readonly Sampled[] {
    states.forEach((state, i) => {
      this.#cache.redo(state.slot, lengths[i] ?? 0);
    });
    return states.flatMap((state) => {
      const wish = state.options.steer?.wish() ?? null,
        values = { ...valuesOf([{ state, ahead: 0 }]), adapterRows: Int32Array.of(rowOf(state)) };
      try {
        const batch = this.#batchOf(rowsOf([state], []));
        return this.#take(state, this.#steps.run(adapter, batch, values, wish !== null), 0, [], wish);
      } catch (e) {
        this.#fail(state, e);
        return [];
      }
    });
  }
  /** @throws the error, where more than the sequence may have failed */
  #fail(state: State, error: unknown): void {
    if (!isUnsound(error) || this.failed === null) throw error;
    this.#release(state);
    this.failed(state, error);
  }
  /** In a step that is not recorded rows of one stream read its keys together. */
  #batchOf(rows: readonly Row[]): Batch {
    const together = rows.length > this.#steps.mostRows,
      n = rows.length;
    const tokens = new Int32Array(n),
      positions = new Int32Array(n),
      starts: number[] = [],
      slots: number[] = [];
    rows.forEach(({ state, token, ahead }, i) => {
      tokens[i] = token;
      positions[i] = this.#cache.length(state.slot) + ahead;
      if (together && ahead > 0) return;
      starts.push(i);
      slots.push(state.slot);
    });
    starts.push(n);
    return { tokens, positions, starts: new Int32Array(starts), slots: new Int32Array(slots) };
  }

  /** What its answer may begin with, at its prompt's end. */
  #begins(state: State): readonly number[] {
    const { room } = streamOf(state, this.capacity - state.options.tokens.length);
    return this.#speculation?.begin(state.track, room) ?? [];
  }
  /** The first tokens of an answer, of the pass over its prompt's end. */
  #takeFirst(state: State, result: StepResult, row: number, guesses: readonly number[]): readonly Sampled[] {
    const told = this.#take(state, result, row, guesses, wishesOf([state])?.[0] ?? null);
    if (guesses.length > 0 && told.length > 0) this.#speculation?.began(state.track, guesses, outcomeOf(told, guesses));
    return told;
  }
  /**
   * The next token of a sequence, whose row of a pass is `first`, and one more for each guess after it that was right;
   * the others are taken back. @param wish of the first token
   */
  #take(
    state: State,
    result: StepResult,
    first: number,
    drafts: readonly number[],
    wish: Wish | null,
  ): readonly Sampled[] {
    if (this.#leaving.delete(state)) {
      this.#release(state);
      return [];
    }
    const before = this.#cache.length(state.slot) - drafts.length;
    const told: Sampled[] = [];
    for (let i = 0; ; i++) {
      const wished = i === 0 ? wish : (state.options.steer?.wish() ?? null);
      let sampled: Sampled;
      try {
        sampled = this.#takeRow(state, result, first + i, before + i, wished);
      } catch (e) {
        this.#fail(state, e);
        return told;
      }
      told.push(sampled);
      if (sampled.finish || i === drafts.length) return told;
      if (drafts[i] === sampled.token) continue;
      this.#cache.rewind(state.slot, before + i);
      return told;
    }
  }
  /** @param length tokens of the sequence up to that row */
  #takeRow(
    state: State,
    { tokens, logprobs, logits: rows, unsound }: StepResult,
    b: number,
    length: number,
    wish: Wish | null,
  ): Sampled {
    const error = unsound?.get(b);
    if (error) throw error;
    let token = tokens[b] as number,
      logprob = logprobs[b] as number,
      top: Sampled['top'];
    if (wish && rows)
      ({ token, logprob, top } = steered(this.model, state, wish, rows, b, { token, logprob }, this.#row));
    state.last = token;
    state.sampled++;
    state.options.steer?.took(token);
    if (this.#speculation) state.track.took(token);
    const { stop, maxTokens } = state.options;
    const full = length >= this.capacity;
    const finish: Finish | null = stop.has(token) ? 'stop' : state.sampled >= maxTokens || full ? 'length' : null;
    if (finish) this.#release(state);
    // Copies of objects cost as much as all the rest.
    return top && top.length > 0
      ? { sequence: state, token, logprob, finish, top }
      : { sequence: state, token, logprob, finish };
  }
  #release(state: State): void {
    this.#running.splice(this.#running.indexOf(state), 1);
    this.#cache.reset(state.slot);
    this.#drafter?.end(state.slot);
    this.#free.push(state.slot);
    state.slot = -1;
  }

  close(): void {
    this.#pass.drop();
    this.#steps.close();
    this.#drafter?.close();
    this.#cache.close();
    this.#running.length = 0;
    this.#leaving.clear();
    this.#waiting.length = 0;
  }
  [Symbol.dispose](): void {
    this.close();
  }
}
