// The seam between APIs and the engine. An API makes one `Generation` of a body and its own form of the `Released` that
// come back; admission, adapters, screening, reasoning and metering are decided here, once, for all of them. With
// policies nothing is released before its verdict, so no API can leak by its form.
//
// A new API is one file that exports an `Api` (api.ts), and a line in apis.ts.
import { randomInt } from 'node:crypto';
import { TemperError } from '../base/errors.js';
import type { AnswerName, HeldDone, Holding } from '../compose/held-turn.js';
import type { DoneEvent, GenerateRequest, TokenInfo } from '../infer/protocol.js';
import type { Prepared, TurnWish } from '../infer/structures.js';
import { releaseRules } from '../safeguard/holdback/rules.js';
import type { ScreeningMode } from '../safeguard/holdback/sink.js';
import type { Screen } from '../safeguard/screen.js';
import type { UnjudgedCause, Verdict } from '../safeguard/types.js';
import { ANSWER_FIELD, badRequest } from './api-error.js';
import type { Meter } from './meter.js';
import { type Part, type PartHead, partsOf, type Sorter, sorter } from './parts.js';
import { Gate, wholeOf } from './release-gate.js';
import type { Served } from './served.js';
import { isLate, pause } from './turns.js';

/**
 * When a model's thoughts leave. `auto`: where there is no policy, or all policies say `analysis: release` · `allowed`:
 * with policies too, once every verdict over them allows it · `never`.
 */
export type ReasoningRule = 'auto' | 'allowed' | 'never';

export interface GenerationService {
  readonly served: Served;
  /** null: no policy was given. */
  readonly screen: Screen | null;
  /** Of the screen. Absent: what is not allowed is withheld, and nothing is logged. */
  readonly holding?: Holding | undefined;
  readonly reasoning: ReasoningRule;
  /** Name of the key that asks; absent: none is needed. */
  readonly owner?: string | null;
  readonly admission: {
    /** Requests that run at once. */
    readonly slots: number;
    /** Told before anything is computed: who would be refused at once. @throws as `enter` */
    check(): void;
    /**
     * A place, to be given back. Who finds none to wait for is told before it returns.
     * @throws {ApiError} 429, 503 · the signal's reason
     */
    enter(signal: AbortSignal): Promise<() => void>;
  };
  readonly meter: Meter;
}

/** What any API's body becomes. */
export interface Generation {
  /** As the request names it. */
  readonly model: string;
  readonly request: GenerateRequest;
  /** Names of the tools that may be called, as the client declared them. */
  readonly tools?: readonly string[];
  /** Thoughts that are not shown are given sealed, for the client to hand back between the calls of a turn. */
  readonly sealed?: boolean;
  /** What its answer and its calls keep to. Nothing leaves that breaks it. */
  readonly wish?: TurnWish;
  /** Id of the answer, as its client gets it, and which of several it is. */
  readonly id?: string;
  readonly choice?: number;
}

export type FinishReason = 'stop' | 'length' | 'tool_calls' | 'content_filter';
/** What was decided, without a word of what is withheld. */
export interface Screening {
  /** Set where what is not allowed leaves all the same. */
  readonly mode?: Extract<ScreeningMode, 'shadow'>;
  readonly outcome: Verdict['outcome'];
  /** Of the last verdict in the log. */
  readonly receipt?: string;
  readonly verdicts: readonly {
    readonly policy: string;
    readonly channel: string;
    readonly outcome: Verdict['outcome'];
    readonly rule: string | null;
    readonly cause: UnjudgedCause | null;
  }[];
}
export interface Answer {
  readonly finish: FinishReason;
  /** All that leaves. */
  readonly parts: readonly Part[];
  /**
   * In place of what was withheld; then there are no parts, though a stream may have brought what was allowed before.
   * null with `content_filter`: the answer ends where it was still allowed.
   */
  readonly refusal: string | null;
  readonly usage: DoneEvent['usage'];
  /** null: no policy was given. */
  readonly screening: Screening | null;
  /**
   * Thoughts that are not shown, and all that is: what a conversation goes on with on this side. Empty where something
   * was withheld, as it must not come back by way of the context. Never sent.
   */
  readonly kept: readonly Part[];
  /** Of what is said, where the request asks for log-probabilities. */
  readonly tokens: readonly TokenInfo[];
  /** The text of the request that ended it; null: none did. */
  readonly stop: string | null;
}
/**
 * `begin`: the engine has taken it, or its first verdicts are there; what fails before has a status of its own. Pieces
 * of a part follow each other and are its text when joined; a call begins with a piece that may be empty. `sealed`: a
 * whole part that only this process can read (seal.ts). `end` comes last.
 */
export type Released =
  | { readonly kind: 'begin' }
  | {
      readonly kind: 'piece';
      readonly part: PartHead;
      readonly text: string;
      /** Of what is said, where log-probabilities are asked for: since the last piece. */
      readonly tokens?: readonly TokenInfo[];
    }
  | { readonly kind: 'sealed'; readonly part: PartHead; readonly text: string }
  | { readonly kind: 'end'; readonly answer: Answer };

/** A seed where the request says none. */
export const randomSeed = (): number => randomInt(2 ** 48 - 1);

function screeningOf({ turn, receipt }: Pick<HeldDone, 'turn' | 'receipt'>, holding: Holding): Screening | null {
  if (!turn.screened) return null;
  const { outcome, verdicts } = turn.screened.result;
  return {
    ...(holding.mode === 'shadow' ? { mode: holding.mode } : {}),
    outcome,
    verdicts: verdicts.map((v) => ({
      policy: v.policy,
      channel: v.channel,
      outcome: v.outcome,
      rule: v.rule,
      cause: v.cause,
    })),
    ...(receipt === null ? {} : { receipt }),
  };
}

type Ending = Pick<HeldDone, 'turn' | 'withheld' | 'released' | 'tokens' | 'receipt'>;
function answerOf(ending: Ending, sort: Sorter, shown: (part: PartHead) => boolean, holding: Holding): Answer {
  const { turn, withheld, released, tokens } = ending;
  const { done } = turn;
  const base = { usage: done.usage, screening: screeningOf(ending, holding), stop: done.stop ?? null };
  if (withheld) {
    // What is left would be half of an answer; where it is cut off, that is what it shows.
    const parts =
      withheld.action === 'truncate'
        ? released.map((r) => ({ ...sort(r.message, r.index), text: r.message.content }))
        : [];
    return {
      ...base,
      // It is not what ended what is shown.
      stop: null,
      tokens: [],
      finish: 'content_filter',
      parts: parts.filter(shown),
      refusal: withheld.refusal,
      kept: [],
    };
  }
  const kept = partsOf(done.messages, sort);
  const calls = kept.some((p) => p.kind === 'call');
  const finish = done.finish === 'length' ? 'length' : calls ? 'tool_calls' : 'stop';
  return { ...base, tokens, finish, parts: kept.filter(shown), refusal: null, kept };
}

/** What is to be kept to, ready. @throws {ApiError} 400 schema_unsupported, schema_invalid */
async function prepared({ served }: GenerationService, wish: TurnWish, signal: AbortSignal): Promise<Prepared> {
  try {
    return await served.structures.prepare(wish, signal);
  } catch (e) {
    if (e instanceof TemperError && (e.code === 'schema_unsupported' || e.code === 'schema_invalid'))
      throw badRequest(e.code, `schema: ${e.message}`, wish.answer === undefined ? 'tools' : ANSWER_FIELD);
    throw e;
  }
}
/** @returns why nothing of a turn may leave; null: it may */
async function brokenBy(held: Prepared | null, done: DoneEvent, signal: AbortSignal): Promise<string | null> {
  // Cut off, it claims nothing.
  if (!held || done.finish === 'length') return null;
  const broken = await held.check(done.messages, signal);
  return broken === null ? null : `[withheld: it does not keep to its schema: ${broken}]`;
}

/**
 * Runs one request. Leaving the loop, or the signal, ends it: its place, slot and pages come back.
 * @param whole nothing is wanted before all of it is there, so that with policies all of it is judged once
 * @throws {ApiError} 404, 429, 503 · what the engine refuses · the signal's reason
 */
export function generate(
  service: GenerationService,
  generation: Generation,
  signal: AbortSignal,
  whole = false,
): AsyncGenerator<Released, void, void> {
  const { onRevoked } = service.served;
  return onRevoked ? revocable(onRevoked, service, generation, signal, whole) : run(service, generation, signal, whole);
}
/** Ends at once when what answers is revoked. */
async function* revocable(
  onRevoked: NonNullable<Served['onRevoked']>,
  service: GenerationService,
  generation: Generation,
  ended: AbortSignal,
  whole: boolean,
): AsyncGenerator<Released, void, void> {
  const revoked = new AbortController();
  const untold = onRevoked(generation.model, (why) => revoked.abort(why));
  try {
    yield* run(service, generation, AbortSignal.any([ended, revoked.signal]), whole);
  } finally {
    untold();
  }
}
async function* run(
  service: GenerationService,
  { model, request: given, tools = [], sealed = false, wish, id = '', choice = 0 }: Generation,
  signal: AbortSignal,
  whole: boolean,
): AsyncGenerator<Released, void, void> {
  const { served, screen, meter, holding = {}, owner = null } = service;
  served.find(model);
  requireNoOthers(service, given.topLogprobs);
  service.admission.check();
  const held = wish ? await prepared(service, wish, signal) : null;
  const gate = new Gate(thoughtsLeave(service), sealed);
  const sort = sorter(tools);
  const name: AnswerName = { request: id, choice, owner, model };
  const leave = await service.admission.enter(signal);
  try {
    // Who waited gets what the name stands for now, if it may still be used.
    const { adapter } = served.find(model);
    const request: GenerateRequest =
      adapter === null && !held
        ? given
        : {
            ...given,
            ...(adapter === null ? {} : { adapter }),
            ...(held ? { structure: held.structure } : {}),
          };
    const ending = screen
      ? yield* judged({ served, screen, holding }, request, { held, whole, name, gate, sort }, signal)
      : yield* unjudged(served, request, { held, gate, sort }, signal);
    for (const part of gate.rest()) yield part;
    meter.turn(ending.turn.done, ending.withheld !== null);
    yield { kind: 'end', answer: answerOf(ending, sort, gate.shows, holding) };
  } finally {
    leave();
  }
}

/**
 * Words beside those that were sampled are the model's as well, and no judge reads them.
 * @throws {ApiError} 400 unsupported_parameter: where nothing leaves before its verdict
 */
export function requireNoOthers(
  { screen, holding }: Pick<GenerationService, 'screen' | 'holding'>,
  top: number | null | undefined,
  field = 'top_logprobs',
): void {
  if (screen === null || holding?.mode === 'shadow' || !top) return;
  throw badRequest(
    'unsupported_parameter',
    `${field}: got ${top}, wanted 0: with policies no word leaves that was not judged, as others beside a token`,
    field,
  );
}

function thoughtsLeave({ screen, reasoning }: GenerationService): boolean {
  if (!screen || reasoning === 'never') return reasoning !== 'never';
  return reasoning === 'allowed' || releaseRules(screen.policies).analysis === 'release';
}

interface Turning {
  readonly held: Prepared | null;
  readonly gate: Gate;
  readonly sort: Sorter;
}
const schemaRefusal = (broken: string | null): HeldDone['withheld'] =>
  broken === null ? null : { action: 'refuse', refusal: broken };

async function* judged(
  { served, screen, holding }: { readonly served: Served; readonly screen: Screen; readonly holding: Holding },
  request: GenerateRequest,
  { held, whole, name, gate, sort }: Turning & { readonly whole: boolean; readonly name: AnswerName },
  signal: AbortSignal,
): AsyncGenerator<Released, Ending, void> {
  const { heldTurn } = await import('../compose/held-turn.js');
  const waits = held !== null && held.checked.length > 0;
  const check = waits ? (done: DoneEvent): Promise<string | null> => brokenBy(held, done, signal) : undefined;
  let ending: HeldDone | undefined;
  let begun = false;
  for await (const event of heldTurn(served.engine, request, screen, { ...holding, whole, name, check }, signal)) {
    if (!begun) yield { kind: 'begin' };
    begun = true;
    if (event.kind === 'done') ending = event;
    else
      for (const part of gate.pass(sort(event.piece, event.piece.message), event.piece.text, event.tokens)) yield part;
  }
  if (!ending) throw new Error('a turn ended without its end');
  if (waits || ending.withheld) return ending;
  return { ...ending, withheld: schemaRefusal(await brokenBy(held, ending.turn.done, signal)) };
}

async function* unjudged(
  served: Served,
  request: GenerateRequest,
  { held, gate, sort }: Turning,
  signal: AbortSignal,
): AsyncGenerator<Released, Ending, void> {
  let done: DoneEvent | undefined;
  let begun = false;
  // What the grammar alone does not keep to leaves after the check.
  const waits = held !== null && held.checked.length > 0;
  for await (const event of served.engine.generate(request, signal)) {
    if (!begun) yield { kind: 'begin' };
    begun = true;
    if (event.kind === 'done') done = event;
    else if (event.tokens && isLate()) await pause();
    if (event.kind === 'text' && !waits)
      for (const part of gate.pass(sort(event, event.message), event.text, event.tokens)) yield part;
  }
  if (!done) throw new Error('the engine ended a turn without its last event');
  const withheld = schemaRefusal(await brokenBy(held, done, signal));
  if (waits && withheld === null) yield* wholeOf(done, sort, gate);
  return { turn: { done, screened: null }, withheld, released: [], tokens: done.answer ?? [], receipt: null };
}
