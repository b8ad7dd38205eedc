// A whole turn in harmony's form, held to what was asked for: thoughts are free, an answer keeps to its schema, calls
// go to declared tools with arguments of theirs. Works token by token; control tokens come where the form has them and
// nowhere else.
import { TemperError } from '../../base/errors.js';
import type { Tokenizer } from '../../harmony/types.js';
import type { Constraint } from '../steer.js';
import { type Grammar, openGrammar } from './grammar.js';
import { Masks } from './masks.js';
import type { Node } from './nodes.js';
import { beginText, mayEnd, type State, stepState } from './values.js';
import type { Vocabulary } from './vocabulary.js';
import { find } from './walk.js';

/** What a turn must be; passes between threads. */
export interface Structure {
  readonly vocabulary: Vocabulary;
  /** Of the final message: what it keeps to, anything, or there is none. */
  readonly final: Grammar | 'free' | 'none';
  /** Tools that may be called, as `functions.get_weather`, and what their arguments keep to. */
  readonly calls: readonly { readonly recipient: string; readonly grammar: Grammar }[];
  /** The turn ends with a call. */
  readonly mustCall: boolean;
}

/** Messages before the answer or the call: thoughts, and words between calls. */
const MOST_BEFORE = 8;
/** Before a call that must come: a model that would rather answer says no more than that. */
const MOST_BEFORE_CALL = 2;

type Piece = string | number;
type Body =
  | { readonly kind: 'thought' | 'words' | 'answer' }
  | { readonly kind: 'json'; readonly root: Node; readonly end: number };
interface Opening {
  readonly pieces: readonly (Uint8Array | number)[];
  readonly body: Body;
}
interface Way {
  readonly opening: Opening;
  /** Which piece, and how many of its bytes are written. */
  readonly piece: number;
  readonly bytes: number;
}

let masks: Masks | null = null;
const masksOf = (vocabulary: Vocabulary, tokenizer: Tokenizer): Masks => {
  if (masks?.vocabulary.id !== vocabulary.id) masks = new Masks(vocabulary, (t) => tokenizer.bytes(t));
  return masks;
};

export class TurnConstraint implements Constraint {
  readonly #masks: Masks;
  readonly #mask: Int32Array;
  readonly #ordinary: Int32Array;
  readonly #ids: Readonly<Record<'start' | 'end' | 'return' | 'call', number>>;
  readonly #openings: readonly Opening[];
  #ways: readonly Way[];
  #body: Body | null = null;
  #state: State = [];
  #before = 0;
  #stuck = false;

  constructor(
    readonly structure: Structure,
    tokenizer: Tokenizer,
  ) {
    const { vocabulary } = structure;
    this.#masks = masksOf(vocabulary, tokenizer);
    this.#mask = new Int32Array(vocabulary.words);
    this.#ordinary = vocabulary.ordinary;
    const id = (name: string): number => tokenizer.special[`<|${name}|>`]!;
    this.#ids = { start: id('start'), end: id('end'), return: id('return'), call: id('call') };
    this.#openings = openingsOf(structure, this.#masks, id);
    this.#ways = this.#begin([]);
  }
  /** No token may come: the turn cannot be what it must. */
  get stuck(): boolean {
    return this.#stuck;
  }

  #begin(first: readonly (Uint8Array | number)[]): readonly Way[] {
    const most = this.structure.mustCall ? MOST_BEFORE_CALL : MOST_BEFORE;
    const wanted = this.#before < most ? this.#openings : this.#openings.filter((o) => isLast(o.body));
    return wanted.map((o) => ({ opening: { ...o, pieces: [...first, ...o.pieces] }, piece: 0, bytes: 0 }));
  }

  mask(): Int32Array {
    const body = this.#body;
    const mask = this.#mask;
    if (body && body.kind !== 'json') {
      mask.set(this.#ordinary);
      set(mask, body.kind === 'answer' ? this.#ids.return : this.#ids.end);
      return mask;
    }
    mask.fill(0);
    if (body) {
      this.#json(mask, body.end);
    } else this.#headers(mask);
    if (isEmptyMask(mask)) {
      this.#stuck = true;
      set(mask, this.#ids.return);
    }
    return mask;
  }
  #json(mask: Int32Array, end: number): void {
    try {
      this.#masks.add(mask, this.#state);
    } catch (e) {
      // Deep inside a value its cases became too many: it is not gone on with, and its end is none.
      if (!(e instanceof TemperError)) throw e;
      mask.fill(0);
      return;
    }
    if (mayEnd(this.#state)) set(mask, end);
  }
  #headers(mask: Int32Array): void {
    const { trie } = this.structure.vocabulary;
    for (const { opening, piece, bytes } of this.#ways) {
      const at = opening.pieces[piece]!;
      if (typeof at === 'number') {
        set(mask, at);
        continue;
      }
      for (let n = bytes + 1; n <= at.length; n++) {
        const node = find(trie, at.subarray(bytes, n));
        if (node < 0) break;
        if (trie.token[node]! >= 0) set(mask, trie.token[node]!);
      }
    }
  }

  took(token: number): void {
    const body = this.#body;
    if (!body) {
      this.#header(token);
      return;
    }
    if (body.kind === 'json') {
      if (token === body.end) return;
      for (const b of this.#masks.bytesOf(token)) this.#state = stepState(this.#state, b);
      return;
    }
    if (token !== this.#ids.end) return;
    this.#before++;
    this.#body = null;
    this.#ways = this.#begin([this.#ids.start, Buffer.from('assistant')]);
  }
  #header(token: number): void {
    const bytes = this.#masks.bytesOf(token);
    const ways = this.#ways.flatMap((w): readonly Way[] => {
      const at = w.opening.pieces[w.piece]!;
      if (typeof at === 'number') return at === token ? [{ ...w, piece: w.piece + 1, bytes: 0 }] : [];
      if (bytes.length === 0 || Buffer.compare(at.subarray(w.bytes, w.bytes + bytes.length), bytes) !== 0) return [];
      const to = w.bytes + bytes.length;
      return [to === at.length ? { ...w, piece: w.piece + 1, bytes: 0 } : { ...w, bytes: to }];
    });
    this.#ways = ways;
    const open = ways.find((w) => w.piece === w.opening.pieces.length);
    if (!open) return;
    this.#body = open.opening.body;
    if (this.#body.kind === 'json') this.#state = beginText(this.#body.root);
  }
}
const set = (mask: Int32Array, token: number): void => {
  mask[token >> 5]! |= 1 << (token & 31);
};
/** A loop: it goes over thousands of words for each token. */
function isEmptyMask(mask: Int32Array): boolean {
  for (let i = 0; i < mask.length; i++) if (mask[i] !== 0) return false;
  return true;
}
const isLast = (body: Body): boolean => body.kind === 'json' || body.kind === 'answer';

/** The headers that messages of the turn may have, in the forms that models write. */
function openingsOf(structure: Structure, masks: Masks, id: (name: string) => number): readonly Opening[] {
  const { final, calls, mustCall } = structure;
  const [channel, message, constrain] = [id('channel'), id('message'), id('constrain')];
  const out: Opening[] = [];
  const add = (body: Body, ...pieces: readonly Piece[]): void => {
    out.push({ body, pieces: pieces.map((p) => (typeof p === 'number' ? p : Buffer.from(p))) });
  };
  add({ kind: 'thought' }, channel, 'analysis', message);
  if (!mustCall && final === 'free') add({ kind: 'answer' }, channel, 'final', message);
  else if (!mustCall && final !== 'none' && final !== 'free') {
    const body: Body = { kind: 'json', root: openGrammar(final, masks), end: id('return') };
    add(body, channel, 'final', message);
    add(body, channel, 'final ', constrain, 'json', message);
  }
  // Where the answer keeps to a schema nothing else may look like one.
  if (calls.length > 0 && (final === 'free' || mustCall)) add({ kind: 'words' }, channel, 'commentary', message);
  for (const { recipient, grammar } of calls) {
    const body: Body = { kind: 'json', root: openGrammar(grammar, masks), end: id('call') };
    add(body, channel, `commentary to=${recipient} `, constrain, 'json', message);
    add(body, channel, `commentary to=${recipient}`, message);
    add(body, channel, `commentary to=${recipient} json`, message);
    add(body, ` to=${recipient}`, channel, 'commentary ', constrain, 'json', message);
    add(body, ` to=${recipient}`, channel, 'commentary', message);
  }
  return out;
}
