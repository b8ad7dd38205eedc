// Cases of hold-back: turns, cut into pieces and interleaved with verdicts in any order, with blocks, failures and
// aborts. A case is decided by its numbers alone, and checks after every step that nothing has left before its verdict.
import type { Message } from '../../src/harmony/types.js';
import { isCall } from '../../src/infer/content.js';
import type { Clock } from '../../src/safeguard/holdback/clock.js';
import { Holder, type HolderOptions, type Said } from '../../src/safeguard/holdback/holder.js';
import type { Channels, Screen, ScreenResult } from '../../src/safeguard/screen.js';
import { transcript } from '../../src/safeguard/transcript.js';
import type { Verdict } from '../../src/safeguard/types.js';

/** Numbers in [0, n), the same for the same seed. */
export type Random = (n: number) => number;
export function randomOf(seed: number): Random {
  let state = seed | 0;
  return (n) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % n;
  };
}

/** What a judge of a case says of a text. `mark`: a text with the mark in it is blocked, and stays so. */
export type Judging = 'all' | 'mark' | 'hash' | 'failing';
export const MARK = '§';
function outcomeOf(judging: Judging, text: string): Verdict['outcome'] {
  if (judging === 'all') return 'allow';
  if (judging === 'mark') return text.includes(MARK) ? 'block' : 'allow';
  let hash = 7;
  for (let i = 0; i < text.length; i++) hash = (Math.imul(hash, 31) + text.charCodeAt(i)) | 0;
  const n = (hash >>> 3) % 8;
  if (judging === 'failing') return n < 3 ? 'unjudged' : 'allow';
  return n === 0 ? 'block' : n === 1 ? 'unjudged' : 'allow';
}

/** A screen whose verdicts fall when the case says so. */
class SteppedScreen implements Screen {
  readonly policies = [];
  readonly pending: (() => void)[] = [];
  /** Texts that were allowed, by channel. */
  readonly allowed = new Map<string, Set<string>>();
  constructor(
    readonly judging: Judging,
    /** Verdicts fall at once. */
    readonly now: boolean,
  ) {}
  async screen(channels: Channels, signal?: AbortSignal): Promise<ScreenResult> {
    if (!this.now)
      await new Promise<void>((done) => {
        this.pending.push(done);
        signal?.addEventListener('abort', () => done(), { once: true });
      });
    const verdicts = Object.entries(channels).map(([channel, text]): Verdict => {
      const outcome = signal?.aborted ? 'unjudged' : outcomeOf(this.judging, text);
      return {
        outcome,
        policy: 'p',
        channel,
        rule: outcome === 'block' ? 'P1' : null,
        rationale: '',
        cause: outcome === 'unjudged' ? (signal?.aborted ? 'aborted' : 'timeout') : null,
        detail: '',
        digests: { policy: '', content: text, judge: '' },
        latencyMs: 0,
      };
    });
    const of = verdicts.map((v) => v.outcome);
    return {
      outcome: of.includes('block') ? 'block' : of.length > 0 && of.every((o) => o === 'allow') ? 'allow' : 'unjudged',
      channels: Object.fromEntries(verdicts.map((v) => [v.channel, v.outcome])),
      verdicts,
    };
  }
}

const WORDS = [
  'one',
  'two.',
  'It is so.',
  'Yes!',
  '\n',
  'e.g.',
  '3.14',
  '(done.)',
  'ok?',
  '漢字です。',
  '🦊',
  'é',
  'x',
];
function contentOf(random: Random, marked: boolean): string {
  const words = Array.from({ length: random(14) }, () => WORDS[random(WORDS.length)] as string);
  if (marked && random(2) === 0) words.splice(random(words.length + 1), 0, MARK);
  return words.join(' ');
}
const KINDS: readonly Omit<Message, 'content'>[] = [
  { role: 'assistant', channel: 'analysis' },
  { role: 'assistant', channel: 'final' },
  { role: 'assistant', channel: 'final' },
  { role: 'assistant', channel: 'commentary' },
  { role: 'assistant', channel: 'commentary', recipient: 'functions.look' },
  { role: 'assistant', channel: 'commentary', recipient: 'functions.find' },
  { role: 'assistant', channel: 'analysis', recipient: 'browser.open' },
  { role: 'tool', channel: 'commentary' },
];
export function turnOf(random: Random, marked: boolean): readonly Message[] {
  return Array.from({ length: 1 + random(4) }, () => ({
    ...(KINDS[random(KINDS.length)] as Omit<Message, 'content'>),
    content: contentOf(random, marked),
  }));
}

/** The turn as an engine tells it, cut into pieces. @param cuts offsets in all of its text */
function piecesOf(turn: readonly Message[], isCutAt: (at: number) => boolean): readonly Said[] {
  let at = 0;
  return turn.flatMap((m, message) => {
    const head = { message, role: m.role, channel: m.channel ?? 'unknown', recipient: m.recipient ?? null };
    const pieces: Said[] = m.recipient === undefined ? [] : [{ ...head, text: '' }];
    let from = 0;
    for (let i = 1; i <= m.content.length; i++) {
      at++;
      if (i < m.content.length && !isCutAt(at)) continue;
      pieces.push({ ...head, text: m.content.slice(from, i) });
      from = i;
    }
    return pieces;
  });
}

export interface Case {
  readonly seed: number;
  readonly judging: Judging;
  readonly choices: number;
  /** Of the first choice the one place where its text is cut; -1: many. */
  readonly split: number;
  /** What is done about a block. */
  readonly action: 'refuse' | 'truncate';
  /** The step after which the client is gone; -1: it stays. */
  readonly abortAt: number;
  /** The record, counted from 0, that cannot be logged; -1: all can. */
  readonly unlogged: number;
  /** Characters beyond what is being judged after which no more is written; -1: it never waits. */
  readonly ahead: number;
  /** Sentences may be kept for the next one. */
  readonly keeps: boolean;
}
export interface Outcome {
  readonly released: readonly string[];
  readonly blocked: number;
  readonly aborted: boolean;
  readonly failed: boolean;
  readonly waits: number;
  /** Sentences for which no other came in time. */
  readonly waitedOut: number;
}

/** What has left of a turn, in its order: its text, a bar between its messages. */
const shownOf = (pieces: readonly Said[]): string => {
  const texts: string[] = [];
  for (const p of pieces) texts[p.message] = (texts[p.message] ?? '') + p.text;
  return Array.from(texts, (t) => t ?? '').join('|');
};
const wholeOf = (turn: readonly Message[]): string => turn.map((m) => m.content).join('|');

class Choice {
  readonly out: Said[] = [];
  readonly holder: Holder;
  readonly pieces: Said[];
  done: Promise<void> | null = null;
  over = false;
  error: unknown = null;
  blocked = false;
  /** Steps in which it waited for a verdict. */
  waits = 0;
  readonly allowed = new Map<string, string[]>();

  constructor(
    readonly turn: readonly Message[],
    pieces: readonly Said[],
    readonly options: Omit<HolderOptions, 'wake' | 'isCall'>,
    readonly of: Case,
  ) {
    this.pieces = [...pieces];
    this.holder = new Holder({ ...options, isCall, wake: () => {} });
  }
  /** One thing happens to it. */
  step(): void {
    if (this.over || this.done) return;
    if (this.of.ahead >= 0 && this.holder.isAhead(this.of.ahead)) {
      this.waits++;
      return;
    }
    const next = this.holder.blocked.length > 0 ? undefined : this.pieces.shift();
    if (next) this.holder.push(next);
    else
      this.done = this.#end().catch((e: unknown) => {
        this.error = e;
      });
  }
  async #end(): Promise<void> {
    const stopped = this.holder.blocked.length > 0 && this.pieces.length > 0;
    const result = stopped ? this.holder.stop() : await this.holder.end(this.turn);
    this.blocked = result.outcome !== 'allow' && Object.keys(result.channels).length > 0;
    if (this.blocked && this.of.action === 'truncate') await this.holder.truncate();
    this.take();
    check(this.of, this);
    this.over = true;
  }
  /** @returns whether something has left */
  take(): boolean {
    if (this.error !== null) return false;
    const before = this.out.length;
    try {
      for (const piece of this.holder.take()) this.out.push(piece);
    } catch (e) {
      this.error = e;
    }
    return this.out.length > before;
  }
}

/** Some of what follows from what happened happens, without a timer. */
async function tick(random: Random): Promise<void> {
  for (let i = random(12); i >= 0; i--) await null;
}

function fail(why: string, c: Case, choice?: Choice): never {
  const shown = choice ? ` of ${JSON.stringify(choice.turn)}: ${JSON.stringify(choice.out)}` : '';
  throw new Error(`${why}: ${JSON.stringify(c)}${shown}`);
}

/** What has left stands in texts that were allowed, in the order of the turn, calls whole. */
function check(c: Case, choice: Choice): void {
  const shown = shownOf(choice.out);
  const whole = wholeOf(choice.turn);
  if (!whole.startsWith(shown) && whole !== shown)
    fail('something else left than was said, or out of order', c, choice);
  if (c.judging === 'mark' && shown.includes(MARK)) fail('what is blocked has left', c, choice);
  const last = choice.out.at(-1)?.message ?? -1;
  for (const [index, m] of choice.turn.slice(0, last + 1).entries()) {
    const text = choice.out.filter((p) => p.message === index).map((p) => p.text);
    if (isCall(m.recipient) && text.length > 0 && (text.length !== 1 || text[0] !== m.content))
      fail('a call left in pieces', c, choice);
    if (index < last && text.join('') !== m.content) fail('a message left before the one before it had', c, choice);
  }
  const textOf = (i: number): string =>
    choice.out
      .filter((p) => p.message === i)
      .map((p) => p.text)
      .join('');
  // A message that says nothing is not told of while it is sampled, and stands in the whole with its header.
  const all = choice.turn.slice(0, last + 1).map((m, i) => ({ ...m, content: textOf(i) }));
  const told = all.filter((m) => m.content !== '' || isCall(m.recipient));
  const [short, long] = [transcript(told), transcript(all)];
  for (const channel of Object.keys(long)) {
    const allowed = choice.allowed.get(channel) ?? [];
    const [a, b] = [short[channel] ?? '', long[channel] ?? ''];
    if (a !== '' && !allowed.some((text) => text.startsWith(a) || text.startsWith(b)))
      fail(`text of ${channel} left before its verdict`, c, choice);
  }
}

const GONE = new DOMException('gone', 'AbortError');

/** Runs one. @throws where something is not as it must be */
export async function runCase(c: Case): Promise<Outcome> {
  const random = randomOf(c.seed);
  const screen = new SteppedScreen(c.judging, false);
  const gone = new AbortController();
  let records = 0,
    steps = 0,
    waitedOut = 0;
  const kept = new Set<() => void>();
  const keeping: Clock = {
    now: () => steps,
    later(run) {
      kept.add(run);
      return () => kept.delete(run);
    },
  };
  const choices = Array.from({ length: c.choices }, (_, i) => {
    const turn = turnOf(random, c.judging === 'mark');
    const often = 1 + random(6);
    const isCutAt = c.split >= 0 && i === 0 ? (at: number) => at === c.split : () => random(often) === 0;
    const choice: Choice = new Choice(
      turn,
      piecesOf(turn, isCutAt),
      {
        screen,
        whole: false,
        mode: 'enforce',
        apart: false,
        signal: gone.signal,
        keeping: c.keeps ? keeping : undefined,
        log: {
          async append({ channel, outcome, digests }) {
            if (records++ === c.unlogged) throw new Error('disk full');
            await null;
            // Contents stand in for their digests here. Allowed, and logged.
            if (outcome === 'allow')
              choice.allowed.set(channel, [...(choice.allowed.get(channel) ?? []), digests.content]);
            return { receipt: String(records) };
          },
        },
      },
      c,
    );
    return choice;
  });
  let left = -1;
  while (choices.some((x) => !x.over && x.error === null)) {
    if (steps++ === c.abortAt) {
      gone.abort(GONE);
      left = choices.reduce((n, x) => n + x.out.length, 0);
    }
    const pending = screen.pending;
    // Verdicts in any order, beside text that goes on.
    const late = [...kept][random(1 + kept.size)];
    if (late && random(6) === 0) {
      kept.delete(late);
      waitedOut++;
      late();
    } else if (pending.length > 0 && random(3) === 0) pending.splice(random(pending.length), 1)[0]?.();
    else choices[random(choices.length)]?.step();
    if (pending.length > 0 && choices.every((x) => x.done !== null || x.over))
      pending.splice(random(pending.length), 1)[0]?.();
    await tick(random);
    for (const x of choices) if (x.take()) check(c, x);
    if (steps > 5000) fail('it does not end', c);
  }
  const aborted = gone.signal.aborted;
  if (aborted && choices.reduce((n, x) => n + x.out.length, 0) !== left)
    fail('something left after the client had gone', c);
  for (const x of choices) {
    if (x.error !== null && !aborted && c.unlogged < 0) fail(`failed: ${String(x.error)}`, c, x);
    if (x.error !== null || aborted) continue;
    const shown = shownOf(x.out);
    const unary = await unaryOf(x.turn, c);
    // Messages at the end that say nothing bring nothing.
    const bare = (text: string): string => text.replace(/\|+$/, '');
    if (!x.blocked && bare(shown) !== bare(wholeOf(x.turn))) fail('all is allowed, and not all left', c, x);
    // Where all of it is allowed a stream may have been blocked before; else both release all of it.
    if (!x.blocked && shown !== unary) fail('a stream and the whole differ', c, x);
    if (c.judging === 'mark' && c.action === 'truncate' && shown !== unary)
      fail(`cut off elsewhere than the whole (${JSON.stringify(unary)})`, c, x);
  }
  for (const x of choices) x.holder.close();
  return {
    released: choices.map((x) => shownOf(x.out)),
    blocked: choices.filter((x) => x.blocked).length,
    aborted,
    failed: choices.some((x) => x.error !== null),
    waits: choices.reduce((n, x) => n + x.waits, 0),
    waitedOut,
  };
}

/** What one call over the finished turn releases. */
async function unaryOf(turn: readonly Message[], c: Case): Promise<string> {
  const screen = new SteppedScreen(c.judging, true);
  const signal = new AbortController().signal;
  const holder = new Holder({ screen, whole: true, mode: 'enforce', apart: false, isCall, signal, wake: () => {} });
  const result = await holder.end(turn);
  if (result.outcome !== 'allow' && c.action === 'truncate') await holder.truncate();
  const shown = shownOf([...holder.take()]);
  holder.close();
  return shown;
}

/** The case of a number: every kind of it comes, and of turns every place where they can be cut. */
export function caseOf(n: number): Case {
  const random = randomOf(n * 7919 + 13);
  const judging = (['mark', 'mark', 'all', 'hash', 'failing'] as const)[random(5)] as Judging;
  return {
    seed: random(1 << 30),
    judging,
    choices: 1 + random(3),
    split: -1,
    action: random(2) === 0 ? 'refuse' : 'truncate',
    abortAt: random(6) === 0 ? random(30) : -1,
    unlogged: random(8) === 0 ? random(8) : -1,
    ahead: random(3) === 0 ? -1 : random(40),
    keeps: random(3) > 0,
  };
}
/** One turn in two pieces, for each place between two of its characters. */
export function splitsOf(seed: number, judging: Judging, action: Case['action']): readonly Case[] {
  const random = randomOf(seed);
  const length = turnOf(random, judging === 'mark').reduce((n, m) => n + m.content.length, 0);
  return Array.from({ length }, (_, split) => ({
    seed,
    judging,
    choices: 1,
    split,
    action,
    abortAt: -1,
    unlogged: -1,
    ahead: (seed % 3) * 12 - 1,
    keeps: seed % 3 > 0,
  }));
}
