// A turn under way: sampled tokens go in, its text goes out, as far as no ending may have begun in it.
import type { Tokenizer } from '../harmony/types.js';
import type { Delta, Tracker } from './channels.js';
import { Content, isAnswer } from './content.js';
import type { TurnConstraint } from './grammar/turn.js';
import type { DoneEvent, GenerateRequest, TextEvent } from './protocol.js';
import { Repetition } from './repetition.js';
import type { Finish, Sampled } from './sequence.js';

export interface ActiveTurnOptions {
  readonly request: GenerateRequest;
  readonly promptTokens: number;
  readonly tracker: Tracker;
  /** What holds it to a structure. */
  readonly constraint: TurnConstraint | null;
  /** null: nobody reads it as it comes. */
  readonly emit: ((event: TextEvent) => void) | null;
}

/** Tokens of it that were guessed, and those that came. */
export interface Guesses {
  readonly drafted: number;
  readonly accepted: number;
}

export class ActiveTurn {
  readonly #content: Content;
  readonly #repetition: Repetition | null;
  readonly #tokens: number[] = [];
  readonly #logprobs: number[] = [];
  readonly #startMs = performance.now();
  #firstMs = this.#startMs;
  /** Tokens of analysis messages. */
  #reasoning = 0;
  /** The last piece of the answer, some of which may wait. */
  #last: Delta | null = null;
  /** Of prompt tokens. */
  #cached = 0;

  constructor(
    readonly tokenizer: Tokenizer,
    readonly options: ActiveTurnOptions,
  ) {
    const { stop = [], topLogprobs = null, repetitionStop } = options.request;
    this.#content = new Content(tokenizer, stop, topLogprobs);
    this.#repetition = repetitionStop === undefined ? null : new Repetition(repetitionStop);
  }

  /** Nothing was sampled yet. */
  get fresh(): boolean {
    return this.#tokens.length === 0;
  }
  /** The first token is there. @param cached prompt tokens that were computed before */
  begin(cached: number): void {
    this.#firstMs = performance.now();
    this.#cached = cached;
  }

  /** @returns what the turn was, when it is over */
  take({ token, logprob, finish, top = [] }: Sampled, guesses: Guesses): DoneEvent | null {
    const content = this.#content,
      { tracker, constraint } = this.options;
    this.#tokens.push(token);
    this.#logprobs.push(logprob);
    // Whatever ends the turn ends its message, and is no text: an end by the model's own word may be any token.
    const { special } = this.tokenizer;
    const read = finish !== 'stop' || token === special['<|call|>'] ? token : (special['<|return|>'] ?? token);
    if (tracker.thinking) this.#reasoning++;
    if (tracker.current && isAnswer(tracker.current)) content.token(token, logprob, top);
    for (const delta of tracker.push(read)) this.#emit(delta);
    // With guesses it is some tokens ahead; where it is stuck, it lets the turn end and nothing else.
    const stuck = finish === 'stop' && constraint?.stuck === true;
    const cut = content.stopped
      ? 'stop_string'
      : stuck
        ? 'stuck'
        : !finish && this.#repetition?.push(token)
          ? 'repetition'
          : null;
    return finish || cut ? this.#done(token, finish, cut, guesses) : null;
  }
  #emit(delta: Delta): void {
    const content = this.#content,
      { emit } = this.options;
    if (content.stopped) return;
    if (this.#last !== null && this.#last.message !== delta.message) this.#flush();
    if (!isAnswer(delta)) {
      emit?.({ kind: 'text', ...delta });
      return;
    }
    this.#last = delta;
    const now = content.delta(delta);
    if (emit && (now.text !== '' || now.tokens)) emit({ kind: 'text', ...now });
  }
  #flush(): void {
    if (this.#last === null || this.#content.stopped) return;
    const rest = this.#content.rest(this.#last);
    this.#last = null;
    if (rest.text !== '' || 'tokens' in rest) this.options.emit?.({ kind: 'text', ...rest });
  }
  #done(token: number, finish: Finish | null, cut: DoneEvent['cut'], guesses: Guesses): DoneEvent {
    const content = this.#content,
      { tracker, promptTokens } = this.options;
    const rest = tracker.end();
    for (const delta of rest.deltas) this.#emit(delta);
    this.#flush();
    const ended = cut === 'stop_string' ? 'stop' : cut !== null || finish === 'length' ? 'length' : 'stop';
    const call = ended === 'stop' && cut === null && token === this.tokenizer.special['<|call|>'];
    return {
      kind: 'done',
      finish: call ? 'call' : ended,
      cut,
      ...(content.stop === null ? {} : { stop: content.stop }),
      messages: content.cut(rest.messages),
      ...(content.top === null ? {} : { answer: content.tokens }),
      tokens: Int32Array.from(this.#tokens),
      logprobs: Float32Array.from(this.#logprobs),
      usage: {
        promptTokens,
        cachedTokens: this.#cached,
        completionTokens: this.#tokens.length,
        reasoningTokens: this.#reasoning,
        ...(guesses.drafted > 0 ? { draftedTokens: guesses.drafted, acceptedTokens: guesses.accepted } : {}),
        prefillMs: this.#firstMs - this.#startMs,
        decodeMs: performance.now() - this.#firstMs,
      },
    };
  }
}
