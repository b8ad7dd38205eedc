// Hold-back of one answer. Text goes in as it is sampled and is judged a beginning at a time, each channel by itself;
// out comes only what stands in a beginning that every policy allowed and whose verdicts are logged, in the order of
// the turn: nothing leaves that stands after something that was not allowed. A call leaves whole. `end` judges all of
// it, as one call over the finished answer does, and the rest leaves by that verdict alone.
import { setMaxListeners } from 'node:events';
import type { Message, Role } from '../../harmony/types.js';
import { withheldNotice } from '../release.js';
import { type ScreenResult, worst } from '../screen.js';
import { channelOf, headOf, transcript } from '../transcript.js';
import type { Verdict } from '../types.js';
import { Asker, type AskerOptions } from './asker.js';
import type { Clock } from './clock.js';
import { CutFinder } from './cuts.js';
import { HeldChannel } from './held-channel.js';

/** Text of a turn as it is sampled; its messages come one after the other. */
export interface Said {
  /** Which message of the turn, from 0. */
  readonly message: number;
  readonly role: Role;
  /** As the model wrote it. */
  readonly channel: string;
  readonly recipient: string | null;
  readonly text: string;
}
/** Text that may leave. `withheld`: a notice, in the place of its channel. */
export interface HeldPiece extends Said {
  readonly withheld: boolean;
}
export interface HolderOptions extends AskerOptions {
  /** A channel that is not allowed is withheld by itself; else nothing leaves after it. */
  readonly apart: boolean;
  /** A message to somebody who is to act: it leaves whole. */
  readonly isCall: (recipient: string | null) => boolean;
  readonly signal: AbortSignal;
  /** Told when something may have come to leave. */
  readonly wake: () => void;
  /** Told how long a sentence waited, from the character that ended it until it left, ms. */
  readonly onSentence?: ((ms: number) => void) | undefined;
  /**
   * Where text is not written on while it is judged: a sentence may be kept for the next, so that they share a verdict,
   * for a time by this clock.
   */
  readonly keeping?: Clock | undefined;
}

interface HeldMessage {
  readonly said: Omit<Said, 'text'>;
  readonly channel: HeldChannel;
  readonly head: string;
  readonly call: boolean;
  readonly finder: CutFinder;
  /** Where its text begins in its channel's; -1: it says nothing yet. */
  start: number;
  text: string;
  over: boolean;
  /** How much of it has left. */
  released: number;
  /** There is nothing left to leave. */
  gone: boolean;
  /** When its sentences ended. */
  readonly ends: { readonly at: number; readonly ms: number }[];
}
/** What has left of a message. */
export interface ReleasedMessage {
  readonly index: number;
  readonly message: Message;
}

/** Of verdicts that nobody waits for any more. */
const GIVEN_UP = new DOMException('the verdict is not wanted any more', 'AbortError');

export class Holder {
  readonly #asker: Asker;
  readonly #messages: HeldMessage[] = [];
  readonly #channels = new Map<string, HeldChannel>();
  readonly #closed = new AbortController();
  /** Of channels whose sentences are kept, how to forget that. */
  readonly #kept = new Map<HeldChannel, () => void>();
  /** The first message that has not left whole. */
  #first = 0;
  #ended = false;
  #failure: unknown = null;

  constructor(readonly options: HolderOptions) {
    this.#asker = new Asker(options);
    const { signal } = options;
    if (signal.aborted) this.close();
    setMaxListeners(0, signal); // one for each answer of a request is no leak
    signal.addEventListener('abort', this.#onAbort, { once: true });
  }
  readonly #onAbort = (): void => {
    this.close();
    this.options.wake();
  };
  /** Of the last verdict that was logged; null: none was. */
  get receipt(): string | null {
    return this.#asker.receipt;
  }
  /** How often the screen was asked. */
  get calls(): number {
    return this.#asker.calls;
  }
  get failed(): boolean {
    return this.#failure !== null;
  }
  /** Whether a verdict is on its way and its channel has so many characters more than are being judged. */
  isAhead(characters: number): boolean {
    if (this.#ended || this.#failure !== null || this.#closed.signal.aborted) return false;
    return [...this.#channels.values()].some((c) => c.judging !== null && c.text.length - c.judging.at >= characters);
  }
  /** Channels that were blocked; in shadow none is. */
  get blocked(): readonly string[] {
    return [...this.#channels.values()].filter((c) => c.blocked).map((c) => c.label);
  }
  /** What was said of them. */
  get blockedBy(): readonly Verdict[] {
    return [...this.#channels.values()].flatMap((c) => (c.blocked ? (c.result?.verdicts ?? []) : []));
  }
  /** All that was pushed. Not to be shown. */
  get written(): readonly Message[] {
    return this.#messages.map(({ said, text }) => messageOf(said, text));
  }
  /** Ends what is being judged. */
  close(): void {
    this.options.signal.removeEventListener('abort', this.#onAbort);
    this.#closed.abort(GIVEN_UP);
    this.#stopJudging();
  }
  #stopJudging(): void {
    this.#keepNothing();
    for (const { judging } of this.#channels.values()) judging?.stop.abort(GIVEN_UP);
  }
  #keepNothing(): void {
    for (const forget of this.#kept.values()) forget();
    this.#kept.clear();
  }
  #now(): number {
    return this.options.keeping?.now() ?? 0;
  }

  push(said: Said): void {
    if (this.#ended) throw new Error('text was pushed after the end of its answer: each has a holder of its own');
    if (said.message < this.#messages.length - 1) throw new Error('text was pushed to a message that is over');
    const before = this.#messages.at(-1);
    if (before && before.said.message < said.message) this.#end(before);
    this.#add(this.#messageAt(said), said.text);
  }
  #messageAt({ text: _, ...said }: Said): HeldMessage {
    // Messages that say nothing are not told of.
    while (this.#messages.length < said.message)
      this.#messages.push({ ...this.#open({ ...said, message: this.#messages.length }, ''), over: true, gone: true });
    const known = this.#messages[said.message];
    if (known) return known;
    const { role, channel, recipient } = said;
    const head = headOf({ role, channel, ...(recipient === null ? {} : { recipient }) });
    const message = this.#open(said, head);
    this.#messages.push(message);
    return message;
  }
  #open(said: Omit<Said, 'text'>, head: string): HeldMessage {
    const label = channelOf(said);
    const channel = this.#channels.get(label) ?? new HeldChannel(label);
    this.#channels.set(label, channel);
    const call = this.options.isCall(said.recipient);
    const fresh = { start: -1, text: '', over: false, released: 0, gone: false };
    return { said, channel, head, call, finder: new CutFinder(), ends: [], ...fresh };
  }
  #add(message: HeldMessage, text: string): void {
    const { channel, head } = message;
    if (message.start < 0) {
      if (head + text === '') return;
      channel.text += channel.text === '' ? head : `\n${head}`;
      message.start = channel.text.length;
    }
    channel.write(this.#now());
    channel.text += text;
    message.text += text;
    for (const at of message.call ? [] : message.finder.push(text)) this.#cut(message, at);
    this.#kick(channel);
  }
  #cut(message: HeldMessage, at: number): void {
    message.channel.cut(message.start + at, this.#now());
    message.ends.push({ at, ms: performance.now() });
  }
  #end(message: HeldMessage): void {
    if (message.over) return;
    message.over = true;
    if (message.start >= 0) this.#cut(message, message.text.length);
    this.#kick(message.channel, false);
    this.options.wake();
  }

  /** Asks for the next verdict of a channel, where one is worth it. @param keeps it may wait for the next sentence */
  #kick(channel: HeldChannel, keeps = true): void {
    if (this.options.whole || this.#ended || this.#failure !== null || this.#closed.signal.aborted) return;
    const at = channel.next;
    if (at === null) return;
    if (keeps && this.#keep(channel)) return;
    this.#kept.get(channel)?.();
    this.#kept.delete(channel);
    const stop = new AbortController();
    const over = this.#asker
      .ask({ [channel.label]: channel.text.slice(0, at) }, false, stop.signal)
      .then((result) => this.#judged(channel, at, stop.signal, result))
      .catch((e: unknown) => this.#fail(e));
    channel.asked({ at, stop, over });
  }
  /** @returns whether what is worth a verdict waits for the next sentence */
  #keep(channel: HeldChannel): boolean {
    const { keeping } = this.options;
    if (!keeping) return false;
    const ms = channel.patience(keeping.now());
    if (ms === 0) return false;
    const over = (): void => {
      this.#kick(channel, false);
      this.options.wake();
    };
    if (!this.#kept.has(channel)) this.#kept.set(channel, keeping.later(over, ms));
    return true;
  }
  #judged(channel: HeldChannel, at: number, stopped: AbortSignal, result: ScreenResult): void {
    channel.answered();
    if (stopped.aborted || this.#closed.signal.aborted) return;
    channel.judged = at;
    channel.calls++;
    channel.result = result;
    if (allows(result, channel.label)) channel.approved = Math.max(channel.approved, at);
    else if (this.options.mode === 'shadow') {
      // What leaves whatever is said of it waits for no more verdicts; the whole is judged all the same.
      channel.approved = Number.POSITIVE_INFINITY;
      channel.unjudged = Number.POSITIVE_INFINITY;
    } else if (result.outcome === 'block') [channel.blocked, channel.blockedAt] = [true, at];
    // A judge that failed may answer for the whole: that decides.
    else channel.unjudged++;
    this.#kick(channel);
    this.options.wake();
  }
  #fail(error: unknown): void {
    this.#failure ??= error;
    this.close();
    this.options.wake();
  }

  /**
   * Text that may leave now, each piece once.
   * @throws {ScreeningError} verdict_not_logged · the signal's reason
   */
  *take(): Generator<HeldPiece, void, void> {
    for (;;) {
      if (this.#failure !== null) throw this.#failure;
      this.options.signal.throwIfAborted();
      const message = this.#messages[this.#first];
      if (!message) return;
      const piece = message.gone ? null : this.#pieceOf(message);
      if (message.gone) this.#first++;
      if (piece) yield piece;
      else if (!message.gone) return;
    }
  }
  #pieceOf(message: HeldMessage): HeldPiece | null {
    const { channel, said } = message;
    if (channel.blocked) {
      if (!this.options.apart) return null;
      message.gone = true;
      if (channel.noticed || message.start < 0) return null;
      channel.noticed = true;
      return { ...said, text: withheldNotice(channel.label, channel.result?.verdicts ?? []), withheld: true };
    }
    const silent = message.start < 0;
    const allowed = silent ? 0 : Math.min(message.text.length, channel.approved - message.start);
    message.gone = message.over && (silent || allowed === message.text.length);
    const from = message.released;
    if (silent || (message.call ? !message.gone : allowed <= from)) return null;
    message.released = allowed;
    const now = performance.now();
    for (let end = message.ends[0]; end && end.at <= allowed; end = message.ends[0]) {
      message.ends.shift();
      this.options.onSentence?.(now - end.ms);
    }
    return { ...said, text: message.text.slice(from, allowed), withheld: false };
  }
  /** What has left of each message. */
  get released(): readonly ReleasedMessage[] {
    return this.#messages.flatMap(({ said, call, text, released, gone }, index) => {
      if (call ? !gone : released === 0) return [];
      return [{ index, message: messageOf(said, text.slice(0, released)) }];
    });
  }

  /**
   * The answer is there: all of it is judged. Where a beginning was blocked that verdict stands.
   * @param messages all that the model wrote, of which what was pushed is the beginning
   */
  async end(messages: readonly Message[]): Promise<ScreenResult> {
    const channels = transcript(messages);
    this.#adopt(messages);
    this.#ended = true;
    this.#keepNothing();
    for (const { label, text, judging } of this.#channels.values())
      if (judging && judging.at === text.length && text === channels[label]) await judging.over;
      else judging?.stop.abort(GIVEN_UP);
    if (this.#failure !== null) throw this.#failure;
    const final = await this.#asker.ask(channels, true, this.#closed.signal);
    this.options.signal.throwIfAborted();
    return this.#settle(final);
  }
  /** The answer was stopped where something was blocked. @returns what was said of its channels */
  stop(): ScreenResult {
    this.#ended = true;
    this.#stopJudging();
    return combined([...this.#channels.values()].flatMap((c) => c.result?.verdicts ?? []));
  }
  #settle(final: ScreenResult): ScreenResult {
    const result = combined(
      final.verdicts.flatMap((v, i, all) => {
        const { blocked, result: before } = this.#channels.get(v.channel) ?? { blocked: false, result: null };
        if (!blocked || final.channels[v.channel] === 'block') return [v];
        return all.findIndex((other) => other.channel === v.channel) === i ? (before?.verdicts ?? []) : [];
      }),
    );
    const shadow = this.options.mode === 'shadow';
    for (const c of this.#channels.values()) {
      const own = combined(result.verdicts.filter((v) => v.channel === c.label));
      // A channel without text has no verdict, and nothing to leave.
      if (own.verdicts.length === 0) continue;
      c.result = own;
      c.allowed = own.outcome === 'allow';
      if (shadow || (c.allowed && (this.options.apart || result.outcome === 'allow')))
        c.approved = Number.POSITIVE_INFINITY;
      else if (!c.allowed && !c.blocked) [c.blocked, c.blockedAt] = [true, c.text.length];
    }
    return result;
  }
  /** All of it may leave: people decided so. */
  releaseAll(): void {
    for (const c of this.#channels.values()) {
      c.blocked = false;
      c.approved = Number.POSITIVE_INFINITY;
    }
  }
  /**
   * What may leave of an answer that is cut off where it was still allowed: channels that are allowed, and of each that
   * is blocked the longest beginning that is. It is found by halving, so that a judge who does not take back what he
   * allowed finds the same in every stream as in the whole.
   */
  async truncate(): Promise<void> {
    for (const c of this.#channels.values()) {
      if (c.allowed) c.approved = Number.POSITIVE_INFINITY;
      const end = c.blocked ? c.blockedAt - 1 : c.text.length;
      const places = c.cuts.filter((at) => at > c.approved && at <= end);
      // Of a channel that was not blocked when the answer was stopped all is likely to be allowed.
      let next = c.blocked ? places.length >> 1 : places.length - 1;
      // A judge that cannot judge the whole is not asked for pieces of it.
      let over = c.blocked && c.result?.outcome !== 'block';
      for (let [low, high] = [0, places.length]; low < high && !over; next = (low + high) >> 1) {
        const outcome = await this.#outcomeTo(c, places[next]!);
        over = outcome === 'unjudged';
        if (outcome === 'allow') low = next + 1;
        else high = next;
      }
      c.blocked = false;
    }
  }
  async #outcomeTo(channel: HeldChannel, at: number): Promise<Verdict['outcome']> {
    const channels = { [channel.label]: channel.text.slice(0, at) };
    const result = await this.#asker.ask(channels, false, this.#closed.signal);
    this.options.signal.throwIfAborted();
    if (allows(result, channel.label)) channel.approved = at;
    else if (result.outcome === 'allow') return 'unjudged';
    return result.outcome;
  }
  /** The last word over what was pushed. @throws the engine said something else than it streamed */
  #adopt(messages: readonly Message[]): void {
    for (const [index, m] of messages.entries()) {
      const channel = m.channel ?? this.#messages[index]?.said.channel ?? 'unknown';
      const said = { message: index, role: m.role, channel, recipient: m.recipient ?? null, text: '' };
      const known = this.#messages[index];
      const own = known && !(known.over && known.start < 0) ? known : this.#replaced(said);
      if (!m.content.startsWith(own.text)) throw new Error('an answer ended with other text than it was streamed with');
      const before = this.#messages[index - 1];
      if (before) this.#end(before);
      if (own.text.length < m.content.length || own.start < 0) this.#add(own, m.content.slice(own.text.length));
    }
    const last = this.#messages.at(-1);
    if (last) this.#end(last);
    if (this.#messages.slice(messages.length).some((m) => m.text !== ''))
      throw new Error('an answer ended with fewer messages than it was streamed with');
  }
  #replaced(said: Said): HeldMessage {
    this.#messages.splice(said.message, 1);
    const rest = this.#messages.splice(said.message);
    const own = this.#messageAt(said);
    this.#messages.push(...rest);
    return own;
  }
}

const messageOf = ({ role, channel, recipient }: Omit<Said, 'text'>, content: string): Message => ({
  role,
  channel,
  content,
  ...(recipient === null ? {} : { recipient }),
});
const allows = (result: ScreenResult, channel: string): boolean =>
  result.outcome === 'allow' && Object.hasOwn(result.channels, channel) && result.channels[channel] === 'allow';

function combined(verdicts: readonly Verdict[]): ScreenResult {
  const labels = [...new Set(verdicts.map((v) => v.channel))].filter((label) => label !== '');
  const of = (label: string): Verdict['outcome'] => worst(verdicts.filter((v) => v.channel === label));
  return { outcome: worst(verdicts), channels: Object.fromEntries(labels.map((l) => [l, of(l)])), verdicts };
}
