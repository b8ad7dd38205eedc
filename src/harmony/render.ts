// Conversation → tokens, by id, each text segment encoded on its own: nothing a message says can become a control
// token.
//
// Train = serve. A turn ends with an assistant message on channel final. Serving a turn feeds everything before it,
// with the analysis of earlier turns left out and earlier finals ended by <|end|>. renderTraining makes examples whose
// tokens begin with exactly that prompt; what follows the prompt is what the model must produce, ended by <|return|>,
// or by <|call|> where a tool is called.
import { DataError } from '../base/errors.js';
import type { Message, Tokenizer } from './types.js';

export interface Conversation {
  readonly messages: readonly Message[];
  /** Places of assistant messages that are history only: never trained. */
  readonly untrained?: ReadonlySet<number>;
}

/**
 * Which analysis messages are left out:
 * `keep` none · `earlier-turns` those of turns that are over · `first-final` as OpenAI's library does by default: those
 * before the first final, if the last assistant message is a final.
 */
export type AnalysisRule = 'keep' | 'earlier-turns' | 'first-final';

/** Tokens with their origin, all of one length. */
export interface Rendered {
  readonly tokens: Int32Array;
  /** Index in conversation.messages; −1 for a generation prompt. */
  readonly message: Int32Array;
  /** 1 where the assistant must produce the token itself. */
  readonly trained: Uint8Array;
}

/** Ids of the tokens that structure a conversation, by their short names. */
export interface ControlIds {
  readonly start: number;
  readonly end: number;
  readonly message: number;
  readonly channel: number;
  readonly constrain: number;
  readonly return: number;
  readonly call: number;
  readonly endoftext: number;
}
export function controlIds({ special }: Tokenizer): ControlIds {
  const id = (name: string): number => {
    const found = special[`<|${name}|>`];
    if (found === undefined)
      throw new DataError(
        'control_token_missing',
        `the tokenizer has no <|${name}|>, which harmony needs; use the tokenizer.json released with gpt-oss`,
      );
    return found;
  };
  return {
    start: id('start'),
    end: id('end'),
    message: id('message'),
    channel: id('channel'),
    constrain: id('constrain'),
    return: id('return'),
    call: id('call'),
    endoftext: id('endoftext'),
  };
}

/**
 * Where sampling stops: a whole turn is done, a tool is called, or the text is over. <|end|> is not among them: after
 * analysis the model goes on.
 */
export function stopTokens(tokenizer: Tokenizer): number[] {
  const ids = controlIds(tokenizer);
  return [ids.return, ids.call, ids.endoftext];
}

export const CONSTRAIN = '<|constrain|>';
const isAnalysis = (m: Message): boolean => m.role === 'assistant' && m.channel === 'analysis';
const isFinal = (m: Message): boolean => m.role === 'assistant' && m.channel === 'final';
const isCall = (m: Message): boolean => m.role === 'assistant' && m.recipient !== undefined;

/**
 * Places of the messages that stay. @param continues whether something follows the last message (a generation prompt)
 */
export function keptMessages(messages: readonly Message[], rule: AnalysisRule, continues: boolean): number[] {
  let dropBefore = 0;
  if (rule === 'earlier-turns')
    dropBefore = messages.findLastIndex((m, i) => isFinal(m) && (continues || i < messages.length - 1));
  if (rule === 'first-final') {
    const last = messages.findLast((m) => m.role === 'assistant');
    dropBefore = last && isFinal(last) ? messages.findIndex(isFinal) : 0;
  }
  return [...messages.keys()].filter((i) => !(i < dropBefore && isAnalysis(messages[i]!)));
}

export interface RenderOptions {
  /** Default `keep`. */
  readonly analysis?: AnalysisRule;
}

/** The conversation as history: every message closed by <|end|>, calls by <|call|>. */
export function renderConversation(
  conversation: Conversation,
  tokenizer: Tokenizer,
  options: RenderOptions = {},
): Int32Array {
  const { messages } = conversation;
  const writer = new Writer(tokenizer);
  for (const i of keptMessages(messages, options.analysis ?? 'keep', false))
    writer.message(messages[i]!, i, { trained: false, returns: false });
  return writer.done().tokens;
}

/**
 * What the model is fed for its next message: the history, then `<|start|>assistant`. Default rule: `earlier-turns`.
 */
export function renderPrompt(
  conversation: Conversation,
  tokenizer: Tokenizer,
  options: RenderOptions = {},
): Int32Array {
  const { messages } = conversation;
  const writer = new Writer(tokenizer);
  for (const i of keptMessages(messages, options.analysis ?? 'earlier-turns', true))
    writer.message(messages[i]!, i, { trained: false, returns: false });
  writer.generationPrompt();
  return writer.done().tokens;
}

/**
 * The beginning of a text that is more than `most` tokens for certain, or all of it: what a row too long by far costs
 * does not grow with it.
 */
export function beginning(text: string, most: number, { longestToken }: Tokenizer): string {
  const enough = 2 * (longestToken ?? Number.POSITIVE_INFINITY) * most;
  if (!(text.length > enough)) return text;
  return text.slice(0, enough).replace(/[\ud800-\udbff]$/, '');
}

/** An example to be: its length is known before it is made. */
export interface Renderable {
  /** Tokens; at least so many, where that is more than `most` of trainingExamples. */
  readonly length: number;
  /** @param most tokens to make; default all */
  render(most?: number): Rendered;
}

/**
 * Examples to train on, analysis kept. Each assistant message is trained in exactly one of them. A new example begins
 * with every turn that follows a turn with analysis, because serving such a turn drops the earlier analysis; turns
 * without analysis share one. Trained: all of an assistant message after the generation prompt `<|start|>assistant`,
 * terminator included; the `<|start|>assistant` too where the model goes on by itself after an <|end|>. Not trained:
 * the <|end|> of an earlier final, where the model must write <|return|>, which history never shows.
 *
 * Each message is encoded once; what an example takes beyond that is its own tokens.
 * @param most tokens that an example may have: what is longer needs not be exact
 */
export function* trainingExamples(
  conversation: Conversation,
  tokenizer: Tokenizer,
  most = Number.POSITIVE_INFINITY,
): Generator<Renderable> {
  const { messages, untrained } = conversation;
  const isTrained = (i: number): boolean => messages[i]?.role === 'assistant' && !untrained?.has(i);
  const writer = new Writer(tokenizer);
  const encoded: Encoded[] = [];
  let from = 0; // the first message this example trains on
  const history: number[] = []; // before `from`, without analysis
  let historyLength = 0;
  let [thinks, lastTrained] = [false, -1];
  for (const [i, m] of messages.entries()) {
    encoded.push(writer.encode(m, i, most));
    if (isTrained(i)) lastTrained = i;
    const last = i === messages.length - 1;
    if (!last && !(isFinal(m) && thinks)) {
      thinks ||= isAnalysis(m);
      continue;
    }
    if (lastTrained >= from) {
      const [first, end, earlier] = [from, lastTrained, history.length];
      let length = historyLength;
      for (let k = first; k <= end; k++) length += encoded[k]?.tokens.length ?? 0;
      yield {
        length,
        render(most = length) {
          const out = new Writer(tokenizer);
          const add = (k: number): void =>
            out.add(encoded[k]!, messages[k]!, k, {
              trained: k >= first && isTrained(k),
              returns: k === end && isFinal(messages[k]!),
            });
          for (let k = 0; k < earlier && out.length < most; k++) add(history[k]!);
          for (let k = first; k <= end && out.length < most; k++) add(k);
          return out.done(Math.min(most, length));
        },
      };
    }
    for (let k = from; k <= i; k++)
      if (!isAnalysis(messages[k]!)) {
        history.push(k);
        historyLength += encoded[k]?.tokens.length ?? 0;
      }
    [from, thinks] = [i + 1, false];
  }
}

/** All of them. */
export const renderTraining = (conversation: Conversation, tokenizer: Tokenizer): Rendered[] =>
  Array.from(trainingExamples(conversation, tokenizer), (e) => e.render());

/**
 * Loss weight of predicting each token: its channel's weight where trained, else 0. A message of no known channel
 * counts as final.
 */
export function lossWeights(
  rendered: Rendered,
  conversation: Conversation,
  loss: Readonly<Record<'analysis' | 'commentary' | 'final', number>>,
): Float32Array {
  const weights = new Float32Array(rendered.tokens.length);
  for (let i = 0; i < weights.length; i++) {
    if (!rendered.trained[i]) continue;
    const channel = conversation.messages[rendered.message[i]!]?.channel;
    weights[i] = channel === 'analysis' || channel === 'commentary' ? loss[channel] : loss.final;
  }
  return weights;
}

/** A message's tokens, ended as history ends it. */
interface Encoded {
  readonly tokens: Int32Array;
  /** Tokens of `<|start|>` and the author. */
  readonly author: number;
}
interface How {
  readonly trained: boolean;
  /** The last message: a final ends in <|return|>. */
  readonly returns: boolean;
}

class Writer {
  readonly #pieces: { readonly tokens: Int32Array; readonly trained: Uint8Array; readonly message: number }[] = [];
  readonly #ids: ControlIds;
  length = 0;
  /**
   * The previous message is the assistant's and ended in <|end|>, within what is trained: the model starts the next one
   * itself.
   */
  #goesOn = false;

  constructor(readonly tokenizer: Tokenizer) {
    this.#ids = controlIds(tokenizer);
  }

  message(m: Message, index: number, how: How): void {
    this.add(this.encode(m, index), m, index, how);
  }

  encode(m: Message, index: number, most = Number.POSITIVE_INFINITY): Encoded {
    checkHeader(m, index);
    const ids = this.#ids;
    const pieces: ArrayLike<number>[] = [];
    let length = 0;
    const put = (tokens: ArrayLike<number>): void => {
      pieces.push(tokens);
      length += tokens.length;
    };
    const text = (s: string): void => put(this.tokenizer.encode(s));
    put([ids.start]);
    text(m.role === 'tool' ? (m.name ?? '') : m.role);
    if (m.role !== 'tool' && m.name !== undefined) text(`:${m.name}`);
    const author = length;
    if (m.recipient !== undefined && m.recipient !== 'all') text(` to=${m.recipient}`);
    if (m.channel !== undefined) {
      put([ids.channel]);
      text(m.channel);
    }
    if (m.contentType?.startsWith(CONSTRAIN)) {
      text(' ');
      put([ids.constrain]);
      text(m.contentType.slice(CONSTRAIN.length));
    } else if (m.contentType !== undefined) text(` ${m.contentType}`);
    put([ids.message]);
    text(beginning(m.content, most, this.tokenizer));
    put([isCall(m) ? ids.call : ids.end]);
    const tokens = new Int32Array(length);
    let at = 0;
    for (const piece of pieces) {
      tokens.set(piece, at);
      at += piece.length;
    }
    return { tokens, author };
  }

  add({ tokens, author }: Encoded, m: Message, index: number, { trained, returns }: How): void {
    const mask = new Uint8Array(tokens.length).fill(trained ? 1 : 0);
    if (!this.#goesOn) mask.fill(0, 0, author);
    if (isFinal(m) && !returns) mask[mask.length - 1] = 0;
    let own = tokens;
    if (returns && !isCall(m)) {
      own = tokens.slice();
      own[own.length - 1] = this.#ids.return;
    }
    this.#push(own, mask, index);
    this.#goesOn = trained && !isCall(m) && !isFinal(m);
  }

  generationPrompt(): void {
    const tokens = Int32Array.of(this.#ids.start, ...this.tokenizer.encode('assistant'));
    this.#push(tokens, new Uint8Array(tokens.length), -1);
  }

  #push(tokens: Int32Array, trained: Uint8Array, message: number): void {
    this.#pieces.push({ tokens, trained, message });
    this.length += tokens.length;
  }

  /** @param most tokens; what is beyond is cut */
  done(most = this.length): Rendered {
    const out = { tokens: new Int32Array(most), message: new Int32Array(most), trained: new Uint8Array(most) };
    let at = 0;
    for (const p of this.#pieces) {
      const n = Math.min(p.tokens.length, most - at);
      out.tokens.set(p.tokens.subarray(0, n), at);
      out.trained.set(p.trained.subarray(0, n), at);
      out.message.fill(p.message, at, at + n);
      at += n;
    }
    return out;
  }
}

/** Header fields are words; white space in one would read as another field. */
function checkHeader(m: Message, index: number): void {
  for (const field of ['name', 'channel', 'recipient'] as const) {
    const value = m[field];
    if (value !== undefined && (value === '' || /\s/.test(value)))
      throw new DataError(
        'bad_header',
        `message ${index} (${m.role}): ${field} is ${JSON.stringify(value)}, wanted one word`,
      );
  }
  if (m.contentType !== undefined && (m.contentType === '' || m.contentType !== m.contentType.trim()))
    throw new DataError(
      'bad_header',
      `message ${index} (${m.role}): contentType is ${JSON.stringify(m.contentType)}, wanted a ` +
        'name without space around it',
    );
  if (m.role === 'tool' && m.name === undefined)
    throw new DataError('bad_header', `message ${index}: a tool message needs the tool's name`);
}
