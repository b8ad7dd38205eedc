// Tokens → messages, as they arrive. Whatever a model writes is taken for the most likely thing it meant (facts E2);
// nothing throws, and no control token ever shows up as text.
import { TextDecoder } from 'node:util';
import { type Began, type Header, type HeaderParts, readCutHeader, readHeader, words } from './header.js';
import { type ControlIds, controlIds } from './render.js';
import type { Message, Tokenizer } from './types.js';

/** How a message ended; `none`: it was cut off, or the next one began without an end. */
export type Terminator = 'end' | 'return' | 'call' | 'none';
export interface ParsedMessage extends Message {
  readonly terminator: Terminator;
}

/**
 * `message` counts the messages from 0. A delta is valid Unicode; bytes of an unfinished character wait for the rest.
 */
export type ParseEvent =
  | { readonly type: 'header'; readonly message: number; readonly header: Header }
  | { readonly type: 'delta'; readonly message: number; readonly header: Header; readonly text: string }
  | { readonly type: 'end'; readonly message: number; readonly value: ParsedMessage };

export interface ParseOptions {
  /** Begins in the middle of `<|start|>assistant…`, as a completion does. Default true. */
  readonly completion?: boolean;
  /**
   * Declared tools (functions.get_weather): a recipient with something glued to its end is cut to the longest that
   * fits.
   */
  readonly recipients?: readonly string[];
}

// A part of a header has at most three words (role or channel, recipient, type). Text that goes on, or breaks a line,
// is the message itself, its <|message|> forgotten.
const MAX_WORDS = 4;
const MAX_HEADER_CHARS = 512;

export class HarmonyParser {
  readonly messages: ParsedMessage[] = [];
  readonly #ids: ControlIds;
  #state: 'header' | 'body' | 'between' = 'between';
  #header: Header | null = null;
  #parts: { -readonly [K in keyof HeaderParts]: HeaderParts[K] } = { role: '', channel: null, constrain: null };
  #part: keyof HeaderParts = 'role';
  #began: Began = 'start';
  #text: string[] = [];
  readonly #plain: Plain;
  readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  /** A character may be unfinished in it. */
  #decoding = false;
  #events: ParseEvent[] = [];

  constructor(
    readonly tokenizer: Tokenizer,
    readonly options: ParseOptions = {},
  ) {
    this.#ids = controlIds(tokenizer);
    this.#plain = plainOf(tokenizer);
    if (options.completion ?? true) this.#beginHeader('prompt');
  }

  /** The header of the message being written, null between messages and while a header is still coming. */
  get current(): Header | null {
    return this.#header;
  }

  /** Takes one token. @returns what became known by it, in order; often nothing. */
  push(token: number): ParseEvent[] {
    this.#events = [];
    const ids = this.#ids;
    switch (token) {
      case ids.start:
        this.#close('none');
        this.#beginHeader('start');
        break;
      case ids.channel:
        this.#headerAnyhow();
        this.#startPart('channel');
        break;
      case ids.constrain:
        if (this.#state === 'header') this.#startPart('constrain');
        break;
      case ids.message:
        if (this.#state === 'body') break;
        this.#headerAnyhow();
        this.#flushPart();
        this.#open(readHeader(this.#parts, this.#began, this.options.recipients ?? []));
        break;
      case ids.end:
        this.#close('end');
        break;
      case ids.call:
        this.#close('call');
        break;
      case ids.return:
      case ids.endoftext:
        this.#close('return');
        break;
      default:
        this.#ordinary(token);
    }
    return this.#events;
  }

  /** No more tokens: a message still open ends here, unfinished characters become U+FFFD. */
  finish(): ParseEvent[] {
    this.#events = [];
    this.#close('none');
    return this.#events;
  }

  #ordinary(token: number): void {
    const text = this.#textOf(token);
    if (text === null) return; // reserved and unknown ids say nothing
    if (this.#state === 'between') {
      if (text.trim() === '' && text !== '') return; // line breaks between messages
      this.#beginHeader('nothing');
    }
    if (this.#state === 'body') {
      this.#delta(text);
      return;
    }
    const part = (this.#parts[this.#part] ?? '') + text;
    this.#parts[this.#part] = part;
    if (text.includes('\n') || part.length > MAX_HEADER_CHARS || words(part).length > MAX_WORDS) this.#headerIsBody();
  }

  /** null: it has no bytes. */
  #textOf(token: number): string | null {
    const plain = this.#plain.get(token) ?? learnPlain(this.#plain, this.tokenizer, token);
    if (plain === '') return null;
    if (plain !== NOT_PLAIN && !this.#decoding) return plain;
    this.#decoding = plain === NOT_PLAIN;
    return this.#decoder.decode(this.tokenizer.bytes(token), { stream: true });
  }
  /** What is left of an unfinished character. */
  #endText(): string {
    if (!this.#decoding) return '';
    this.#decoding = false;
    return this.#decoder.decode();
  }

  #delta(text: string): void {
    if (text === '' || !this.#header) return;
    this.#text.push(text);
    this.#events.push({ type: 'delta', message: this.messages.length, header: this.#header, text });
  }

  #beginHeader(began: Began): void {
    this.#state = 'header';
    this.#parts = { role: '', channel: null, constrain: null };
    this.#part = 'role';
    this.#began = began;
  }

  /** Within a body, or after one, <|end|><|start|>assistant was forgotten. */
  #headerAnyhow(): void {
    if (this.#state === 'header') return;
    this.#close('none');
    this.#beginHeader('prompt');
  }

  #startPart(part: keyof HeaderParts): void {
    this.#flushPart();
    this.#parts[part] = ''; // said twice, the last one counts
    this.#part = part;
  }

  /** An unfinished character does not reach over a control token. */
  #flushPart(): void {
    const left = this.#endText();
    if (left !== '') this.#parts[this.#part] = (this.#parts[this.#part] ?? '') + left;
  }

  #open(header: Header): void {
    this.#state = 'body';
    this.#header = header;
    this.#text = [];
    this.#events.push({ type: 'header', message: this.messages.length, header });
  }

  #headerIsBody(): void {
    const { header, text } = readCutHeader(this.#parts, this.#began, this.options.recipients ?? []);
    this.#open(header);
    this.#delta(text);
  }

  /** Ends what is open. A header without <|message|> is a message if it was ended, or holds text. */
  #close(terminator: Terminator): void {
    if (this.#state === 'header') {
      this.#flushPart();
      const { role, channel, constrain } = this.#parts;
      const cut = readCutHeader(this.#parts, this.#began, []);
      if (terminator === 'none' ? cut.text !== '' : role !== '' || channel !== null || constrain !== null)
        this.#headerIsBody();
    }
    if (this.#header) {
      this.#delta(this.#endText());
      const value: ParsedMessage = { ...this.#header, content: this.#text.join(''), terminator };
      this.#events.push({ type: 'end', message: this.messages.length, value });
      this.messages.push(value);
      this.#header = null;
    }
    this.#endText();
    this.#state = 'between';
  }
}

/** Texts of tokens that are ASCII alone, which need no decoder, as far as they were asked for. */
type Plain = Map<number, string>;
/** Of a token with other bytes; ASCII does not have it. */
const NOT_PLAIN = '\u{fffd}';
const plains = new WeakMap<Tokenizer, Plain>();
function plainOf(tokenizer: Tokenizer): Plain {
  const known = plains.get(tokenizer) ?? new Map<number, string>();
  plains.set(tokenizer, known);
  return known;
}
function learnPlain(plain: Plain, tokenizer: Tokenizer, token: number): string {
  const bytes = tokenizer.bytes(token);
  const text = bytes.every((byte) => byte < 0x80) ? String.fromCharCode(...bytes) : NOT_PLAIN;
  if (bytes.length > 0) plain.set(token, text);
  return text;
}

/** All messages of a finished sequence. */
export function parseTokens(
  tokens: ArrayLike<number>,
  tokenizer: Tokenizer,
  options: ParseOptions = {},
): readonly ParsedMessage[] {
  const parser = new HarmonyParser(tokenizer, options);
  for (let i = 0; i < tokens.length; i++) parser.push(tokens[i]!);
  parser.finish();
  return parser.messages;
}
