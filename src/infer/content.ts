// What of a turn is its answer, as a client sees it: messages to nobody but the reader, thoughts apart. Texts that end
// an answer and log-probabilities of its tokens are of these alone.
import type { Message, Role, Tokenizer } from '../harmony/types.js';
import type { Delta } from './channels.js';
import type { TokenInfo } from './protocol.js';
import type { Candidate } from './sequence.js';
import { StopStrings } from './stop-strings.js';

/** Recipients that are no tools: who reads the answer anyway. */
const READERS: readonly string[] = ['all', 'user', 'assistant'];
/** `to=` names somebody who is to act. */
export const isCall = (recipient: string | null | undefined): boolean =>
  recipient !== null && recipient !== undefined && !READERS.includes(recipient);
const CHANNELS: readonly (string | undefined)[] = ['final', 'commentary'];
/** Text of the answer: the assistant's, on a channel that is shown, no call. */
export const isAnswer = (m: {
  readonly role: Role;
  readonly channel?: string;
  readonly recipient?: string | null;
}): boolean => m.role === 'assistant' && CHANNELS.includes(m.channel) && !isCall(m.recipient);

const NO_OTHERS: TokenInfo['top'] = [];

/** Holds the answer's text back as far as it must, and gathers its tokens. */
export class Content {
  #strings: StopStrings;
  #message = -1;
  /** UTF-16 units of the message's text that have left. */
  #left = 0;
  #waiting: { readonly info: TokenInfo; readonly at: number }[] = [];
  /** Bytes of all tokens, and of all text that has left. */
  #bytes = 0;
  #bytesLeft = 0;
  /** Those whose text has left. */
  readonly tokens: TokenInfo[] = [];

  constructor(
    readonly tokenizer: Tokenizer,
    readonly stops: readonly string[],
    /** Log-probabilities are told, and so many others beside each; null: none are. */
    readonly top: number | null,
  ) {
    this.#strings = new StopStrings(stops);
  }
  get stopped(): boolean {
    return this.#strings.stopped;
  }
  /** The text that ended it. */
  get stop(): string | null {
    return this.#strings.found;
  }

  /** A token of the answer's text, before the text that it brings. */
  token(token: number, logprob: number, top: readonly Candidate[]): void {
    if (this.top === null || this.tokenizer.isSpecial(token)) return;
    const { tokenizer } = this;
    const info: TokenInfo = {
      token,
      bytes: tokenizer.bytes(token),
      logprob,
      top: top.length === 0 ? NO_OTHERS : this.#others(top, this.top),
    };
    this.#waiting.push({ info, at: this.#bytes });
    this.#bytes += info.bytes.length;
  }

  /** Control tokens are no text: they are not shown as what could have been said. */
  #others(top: readonly Candidate[], most: number): TokenInfo['top'] {
    const { tokenizer } = this;
    return top
      .filter((c) => !tokenizer.isSpecial(c.token))
      .slice(0, most)
      .map((c) => ({ ...c, bytes: tokenizer.bytes(c.token) }));
  }

  /** @returns what of it may leave now */
  delta(delta: Delta): Delta & { readonly tokens?: readonly TokenInfo[] } {
    if (delta.message !== this.#message) {
      this.#message = delta.message;
      this.#strings = new StopStrings(this.stops);
      this.#left = 0;
    }
    const text = this.#strings.push(delta.text);
    this.#left += text.length;
    this.#bytesLeft += Buffer.byteLength(text);
    return this.#withTokens(text === delta.text ? delta : { ...delta, text });
  }
  /** The message is over. @returns what waited */
  rest(last: Delta): Delta & { readonly tokens?: readonly TokenInfo[] } {
    this.#bytesLeft = this.#bytes;
    return this.#withTokens({ ...last, text: this.#strings.rest() });
  }
  #withTokens(delta: Delta): Delta & { readonly tokens?: readonly TokenInfo[] } {
    const waiting = this.#waiting;
    let n = 0;
    while (n < waiting.length && waiting[n]!.at < this.#bytesLeft) n++;
    if (n === 0) return delta;
    const tokens = waiting.splice(0, n).map((t) => t.info);
    for (const info of tokens) this.tokens.push(info);
    return { ...delta, tokens };
  }
  /** The turn's messages with the text that ended it, and what came after, cut off. */
  cut(messages: readonly Message[]): readonly Message[] {
    if (!this.stopped) return messages;
    return messages
      .slice(0, this.#message + 1)
      .map((m, i) => (i === this.#message ? { ...m, content: m.content.slice(0, this.#left) } : m));
  }
}
