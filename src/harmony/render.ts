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
      throw new DataError('control_token_missing', `the tokenizer has no <|${name}|>; harmony needs it`);
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
 * Where sampling stops: a whole turn is done, or a tool is called. <|end|> is not among them: after analysis the model
 * goes on.
 */
export function stopTokens(tokenizer: Tokenizer): number[] {
  const ids = controlIds(tokenizer);
  return [ids.return, ids.call];
}

export const CONSTRAIN = '<|constrain|>';
const isAnalysis = (m: Message): boolean => m.role === 'assistant' && m.channel === 'analysis';
const isFinal = (m: Message): boolean => m.role === 'assistant' && m.channel === 'final';

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
 * Examples to train on, analysis kept. Each assistant message is trained in exactly one of them. A new example begins
 * with every turn that follows a turn with analysis, because serving such a turn drops the earlier analysis; turns
 * without analysis share one. Trained: all of an assistant message after the generation prompt `<|start|>assistant`,
 * terminator included; the `<|start|>assistant` too where the model goes on by itself after an <|end|>. Not trained:
 * the <|end|> of an earlier final, where the model must write <|return|>, which history never shows.
 */
export function renderTraining(conversation: Conversation, tokenizer: Tokenizer): Rendered[] {
  const { messages } = conversation;
  const examples: Rendered[] = [];
  let from = 0; // the first message this example trains on
  for (let i = 0; i < messages.length; i++) {
    const last = i === messages.length - 1;
    if (!last && !(isFinal(messages[i]!) && messages.slice(from, i).some(isAnalysis))) continue;
    const lastAssistant = messages.findLastIndex((m, k) => k <= i && m.role === 'assistant');
    if (lastAssistant >= from) examples.push(renderExample(messages, from, lastAssistant, tokenizer));
    from = i + 1;
  }
  return examples;
}

function renderExample(messages: readonly Message[], from: number, last: number, tokenizer: Tokenizer): Rendered {
  const writer = new Writer(tokenizer);
  for (let i = 0; i <= last; i++) {
    const m = messages[i]!;
    if (i < from && isAnalysis(m)) continue;
    writer.message(m, i, { trained: i >= from && m.role === 'assistant', returns: i === last && isFinal(m) });
  }
  return writer.done();
}

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

class Writer {
  readonly #tokens: number[] = [];
  readonly #message: number[] = [];
  readonly #trained: number[] = [];
  readonly #ids: ControlIds;
  /**
   * The previous message is the assistant's and ended in <|end|>, within what is trained: the model starts the next one
   * itself.
   */
  #goesOn = false;

  constructor(readonly tokenizer: Tokenizer) {
    this.#ids = controlIds(tokenizer);
  }

  message(m: Message, index: number, how: { readonly trained: boolean; readonly returns: boolean }): void {
    checkHeader(m, index);
    const ids = this.#ids;
    const put = (trained: boolean, ...tokens: number[]): void => this.#put(tokens, index, trained);
    const text = (trained: boolean, s: string): void => this.#put(this.tokenizer.encode(s), index, trained);
    const { trained } = how;
    const startTrained = trained && this.#goesOn;
    put(startTrained, ids.start);
    if (m.role === 'tool') text(startTrained, m.name ?? '');
    else {
      text(startTrained, m.role);
      if (m.name !== undefined) text(startTrained, `:${m.name}`);
    }
    if (m.recipient !== undefined && m.recipient !== 'all') text(trained, ` to=${m.recipient}`);
    if (m.channel !== undefined) {
      put(trained, ids.channel);
      text(trained, m.channel);
    }
    if (m.contentType?.startsWith(CONSTRAIN)) {
      text(trained, ' ');
      put(trained, ids.constrain);
      text(trained, m.contentType.slice(CONSTRAIN.length));
    } else if (m.contentType !== undefined) text(trained, ` ${m.contentType}`);
    put(trained, ids.message);
    text(trained, m.content);
    const calls = m.role === 'assistant' && m.recipient !== undefined;
    const earlierFinal = isFinal(m) && !how.returns;
    put(trained && !earlierFinal, calls ? ids.call : how.returns ? ids.return : ids.end);
    this.#goesOn = trained && !calls && !isFinal(m);
  }

  generationPrompt(): void {
    this.#put([this.#ids.start], -1, false);
    this.#put(this.tokenizer.encode('assistant'), -1, false);
  }

  #put(tokens: ArrayLike<number>, message: number, trained: boolean): void {
    for (let i = 0; i < tokens.length; i++) {
      this.#tokens.push(tokens[i]!);
      this.#message.push(message);
      this.#trained.push(trained ? 1 : 0);
    }
  }

  done(): Rendered {
    return {
      tokens: Int32Array.from(this.#tokens),
      message: Int32Array.from(this.#message),
      trained: Uint8Array.from(this.#trained),
    };
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
