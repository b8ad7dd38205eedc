// One turn of the assistant that is released as far as it is allowed while it is sampled (safeguard/holdback). What is
// done about a block is the policy's to say: the turn ends there, or is taken to its end for people to look at.

import { Brake } from '../infer/brake.js';
import { isAnswer, isCall } from '../infer/content.js';
import type { Engine } from '../infer/engine.js';
import type { DoneEvent, GenerateRequest, TextEvent, TokenInfo } from '../infer/protocol.js';
import { type Clock, REAL_TIME } from '../safeguard/holdback/clock.js';
import { type HeldPiece, Holder, type ReleasedMessage } from '../safeguard/holdback/holder.js';
import { type BlockAction, type ReleaseRules, releaseRules } from '../safeguard/holdback/rules.js';
import type { HeldSink, OnHeld, ScreeningMode } from '../safeguard/holdback/sink.js';
import { type ReleasedChannel, releaseChannels, withheldNotice } from '../safeguard/release.js';
import type { Screen, ScreenResult } from '../safeguard/screen.js';
import { transcript } from '../safeguard/transcript.js';
import { review } from './review.js';
import type { Turn } from './turn.js';

/** How answers are held. */
export interface Holding {
  /** Default enforce. `shadow`: judged and logged, and released whatever the verdict: asked for by name alone. */
  readonly mode?: ScreeningMode;
  /** Takes each verdict before anything is released by it. */
  readonly log?: HeldSink;
  /** Where goes what a policy wants people to decide on; without it such a block is a refusal. */
  readonly onHeld?: OnHeld;
  /** Told how long a sentence waited for its verdict, ms. */
  readonly onSentence?: (ms: number) => void;
  /**
   * While a verdict is on its way the stream waits as soon as it has so many characters more than are being judged, 0:
   * at once; and a sentence may share its verdict with the next. Absent: it never waits.
   */
  readonly ahead?: number;
  /** By which a sentence is kept for the next; default real time. */
  readonly clock?: Clock;
}
/** Which answer it is. */
export interface AnswerName {
  /** As its client knows it. */
  readonly request: string;
  readonly choice: number;
  /** Name of the key that asked; null: none is needed. */
  readonly owner: string | null;
  readonly model: string;
}
export interface HeldTurnOptions extends Holding {
  /** Nothing leaves before all of it was judged. */
  readonly whole: boolean;
  /** Each channel is withheld by itself, and the turn goes on where others may follow. Default: all ends at a block. */
  readonly apart?: boolean;
  readonly name?: AnswerName;
  /** Why nothing of a turn may leave that was allowed; null: it may. With such a check nothing leaves before it. */
  readonly check?: ((done: DoneEvent) => Promise<string | null>) | undefined;
}

/** What stands in the place of what was not released. */
export interface Withheld {
  readonly action: BlockAction;
  /** null: nothing does, the answer just ends. */
  readonly refusal: string | null;
}
export interface HeldDone {
  readonly kind: 'done';
  readonly turn: Turn;
  /** null: all of it was released, or each channel was withheld by itself. */
  readonly withheld: Withheld | null;
  /** What has left. */
  readonly released: readonly ReleasedMessage[];
  /** Log-probabilities that have left. */
  readonly tokens: readonly TokenInfo[];
  /** Of the last verdict in the log; null: there is none. */
  readonly receipt: string | null;
}
export type HeldEvent =
  | { readonly kind: 'text'; readonly piece: HeldPiece; readonly tokens?: readonly TokenInfo[] }
  | HeldDone;

/** Wakes whoever waits; a ring before the wait counts. */
class Bell {
  #wake = (): void => {};
  #rung = false;
  readonly ring = (): void => {
    this.#rung = true;
    this.#wake();
  };
  async wait(): Promise<void> {
    if (!this.#rung)
      await new Promise<void>((done) => {
        this.#wake = done;
      });
    this.#rung = false;
  }
}

/** What is known of a turn that was stopped. */
class Sampled {
  readonly #began = performance.now();
  #first: number | null = null;
  #steps = 0;
  #thoughts = 0;
  add({ channel, recipient, pieces = 1 }: TextEvent): void {
    this.#first ??= performance.now();
    this.#steps += pieces;
    if (channel === 'analysis' && recipient === null) this.#thoughts += pieces;
  }
  async asDone(engine: Engine, request: GenerateRequest, messages: DoneEvent['messages']): Promise<DoneEvent> {
    const { prompt, adapter } = request;
    const asked =
      prompt === undefined
        ? engine.count(request.messages)
        : engine.read({ prompt, top: null, ...(adapter === undefined ? {} : { adapter }) }).then((p) => p.count);
    const now = performance.now(),
      first = this.#first ?? now;
    return {
      kind: 'done',
      finish: 'stop',
      cut: null,
      messages,
      tokens: new Int32Array(0),
      logprobs: new Float32Array(0),
      usage: {
        // Counts are not worth a failure.
        promptTokens: await asked.catch(() => 0),
        cachedTokens: 0,
        completionTokens: this.#steps,
        reasoningTokens: this.#thoughts,
        prefillMs: first - this.#began,
        decodeMs: now - first,
      },
    };
  }
}

/**
 * Runs one turn. Leaving the loop, or the signal, ends it and what is being judged of it.
 * @throws what the engine refuses · {ScreeningError} verdict_not_logged · the signal's reason
 */
export async function* heldTurn(
  engine: Engine,
  request: GenerateRequest,
  screen: Screen,
  options: HeldTurnOptions,
  signal: AbortSignal,
): AsyncGenerator<HeldEvent, void, void> {
  const { mode = 'enforce', apart = false, name, log, onSentence, ahead, clock = REAL_TIME, check } = options;
  const rules = releaseRules(screen.policies);
  const bell = new Bell(),
    stop = new AbortController(),
    sampled = new Sampled();
  const whole = options.whole || rules.whole || check !== undefined;
  const names = { log, subject: name?.request, choice: name?.choice };
  // Where nothing leaves before the end there is nothing to wait for.
  const brake = ahead === undefined || whole ? null : new Brake();
  const pace = (): void => brake?.set(holder.isAhead(ahead ?? 0));
  const wake = (): void => {
    pace();
    bell.ring();
  };
  const keeping = brake ? clock : undefined;
  const holder = new Holder({ screen, mode, apart, isCall, signal, whole, wake, onSentence, keeping, ...names });
  const asked = brake ? { ...request, brake: brake.cell } : request;
  let done: DoneEvent | null = null,
    over = false,
    failure: unknown = null;
  const sampling = (async () => {
    try {
      for await (const event of engine.generate(asked, AbortSignal.any([signal, stop.signal]))) {
        if (event.kind === 'done') done = event;
        else {
          sampled.add(event);
          holder.push(event);
          wake();
        }
      }
      if (done === null) failure = new Error('the engine ended a turn without its last event');
    } catch (e) {
      failure = e;
    }
    over = true;
    bell.ring();
  })();
  let answer: HeldPiece | null = null;
  function* leaving(): Generator<HeldEvent, void, void> {
    for (const piece of holder.take()) {
      if (isAnswer(piece) && !piece.withheld) answer = piece;
      yield { kind: 'text', piece };
      signal.throwIfAborted();
    }
  }
  // People see the whole of it; of a channel by itself the last one is the answer.
  const isOver = (): boolean =>
    apart
      ? holder.blocked.includes('final')
      : holder.blocked.length > 0 && actionOn(rules, holder.blockedBy, options) !== 'review';
  try {
    for (;;) {
      yield* leaving();
      if (over || isOver()) break;
      await bell.wait();
    }
    const stopped = isOver();
    // Nothing more is wanted of it: its slot is free as soon as it has noticed.
    if (stopped) stop.abort(new DOMException('the answer was blocked', 'AbortError'));
    await sampling;
    if (!stopped && failure !== null) throw failure;
    const last: DoneEvent = done ?? (await sampled.asDone(engine, request, holder.written));
    const result = stopped ? holder.stop() : await holder.end(last.messages);
    // A turn that was stopped has no whole that people could decide on.
    const { onHeld, ...nobody } = options;
    let withheld = apart ? null : withheldBy(rules, result, mode, stopped ? nobody : options);
    if (withheld?.action === 'truncate') await holder.truncate();
    if (withheld?.action === 'review' && onHeld) {
      const held = { request, messages: last.messages, result, receipt: holder.receipt, name };
      const { approved, notice } = await review(onHeld, held, signal);
      if (approved) holder.releaseAll();
      withheld = approved ? null : { action: 'review', refusal: withheld.refusal ?? notice };
    }
    const broken = withheld === null && check ? await check(last) : null;
    if (broken !== null) withheld = { action: 'refuse', refusal: broken };
    else yield* leaving();
    const { receipt, released } = holder;
    const allowed = withheld === null && (!apart || mode === 'shadow' || holder.blocked.length === 0);
    const tokens = allowed && answer !== null ? toldOf(last) : [];
    if (answer !== null && tokens.length > 0)
      yield { kind: 'text', piece: { ...(answer as HeldPiece), text: '' }, tokens };
    const channels = channelsOf(
      last.messages,
      result,
      mode === 'shadow' || (withheld === null && !apart),
      released,
      stopped,
    );
    yield {
      kind: 'done',
      turn: { done: last, screened: { channels, result, ...(receipt === null ? {} : { receipt }) } },
      withheld,
      released: broken === null ? released : [],
      tokens,
      receipt,
    };
  } finally {
    stop.abort(new DOMException('the turn is not wanted any more', 'AbortError'));
    holder.close();
    brake?.set(false);
    await sampling;
  }
}

/**
 * Log-probabilities leave when all is allowed, and not with the text: some text has no tokens, as a header that never
 * ended, and some has more bytes than its tokens. Of a token that a stop string ends in, what follows was not judged.
 */
const toldOf = ({ answer = [], stop, tokens }: DoneEvent): readonly TokenInfo[] =>
  stop !== undefined && answer.at(-1)?.token === tokens.at(-1) ? answer.slice(0, -1) : answer;
const actionOn = (rules: ReleaseRules, verdicts: ScreenResult['verdicts'], { onHeld }: Holding): BlockAction => {
  const action = rules.actionOn(verdicts);
  return action === 'review' && onHeld === undefined ? 'refuse' : action;
};
/** @returns null: all of it may leave */
function withheldBy(rules: ReleaseRules, result: ScreenResult, mode: ScreeningMode, options: Holding): Withheld | null {
  const labels = Object.keys(result.channels).filter((label) => result.channels[label] !== 'allow');
  if (mode === 'shadow' || labels.length === 0) return null;
  const action = actionOn(rules, result.verdicts, options);
  const own = rules.refusalOf(result.verdicts);
  if (action === 'truncate') return { action, refusal: null };
  if (action === 'review') return { action, refusal: own };
  return { action, refusal: own ?? labels.map((label) => withheldNotice(label, result.verdicts)).join(' ') };
}
/** What is said of each channel where the turn is shown by channels. */
function channelsOf(
  messages: DoneEvent['messages'],
  result: ScreenResult,
  all: boolean,
  released: readonly ReleasedMessage[],
  stopped: boolean,
): readonly ReleasedChannel[] {
  const texts = transcript(messages);
  if (all) return Object.entries(texts).map(([channel, text]) => ({ channel, text, withheld: false }));
  const left = transcript(released.map((r) => r.message));
  // Of a turn that was stopped nobody judged the rest.
  return releaseChannels(
    stopped ? { ...left, ...blockedOf(texts, result) } : texts,
    stopped ? asLeft(left, result) : result,
  );
}
const blockedOf = (texts: Readonly<Record<string, string>>, result: ScreenResult): Readonly<Record<string, string>> =>
  Object.fromEntries(Object.entries(texts).filter(([label]) => (result.channels[label] ?? 'allow') !== 'allow'));
const asLeft = (left: Readonly<Record<string, string>>, result: ScreenResult): ScreenResult => ({
  ...result,
  channels: { ...Object.fromEntries(Object.keys(left).map((label) => [label, 'allow' as const])), ...result.channels },
});
