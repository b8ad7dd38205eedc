// A regular expression of JSON Schema as a tree: what JavaScript reads with flag u, without what is no regular language
// (references back) or looks around.
import type { Ranges } from './characters.js';
import {
  BREAKS,
  DIGIT,
  isOne,
  one,
  PatternUnsupported,
  rangesOf,
  SPACES,
  sorted,
  WORD,
  without,
} from './pattern-sets.js';

export type Tree =
  | { readonly kind: 'set'; readonly ranges: Ranges }
  | { readonly kind: 'all' | 'any'; readonly of: readonly Tree[] }
  | { readonly kind: 'times'; readonly of: Tree; readonly least: number; readonly most: number }
  | { readonly kind: 'start' | 'end' };

export const MOST_NODES = 5000;
class Reader {
  #at = 0;
  #nodes = 0;
  readonly #codes: readonly string[];
  constructor(readonly source: string) {
    this.#codes = [...source];
  }
  #peek(ahead = 0): string {
    return this.#codes[this.#at + ahead] ?? '';
  }
  #take(text: string): boolean {
    for (const [i, c] of [...text].entries()) if (this.#peek(i) !== c) return false;
    this.#at += [...text].length;
    return true;
  }
  whole(): Tree {
    const tree = this.#any();
    if (this.#at < this.#codes.length) throw new PatternUnsupported('a ) without its (');
    return tree;
  }
  #any(): Tree {
    const of = [this.#all()];
    while (this.#take('|')) of.push(this.#all());
    return of.length === 1 ? of[0]! : { kind: 'any', of };
  }
  #all(): Tree {
    const of: Tree[] = [];
    while (this.#at < this.#codes.length && this.#peek() !== '|' && this.#peek() !== ')') of.push(this.#times());
    return { kind: 'all', of };
  }
  #times(): Tree {
    const one = this.#one();
    let least = 1,
      most = 1;
    if (this.#take('*')) [least, most] = [0, Infinity];
    else if (this.#take('+')) [least, most] = [1, Infinity];
    else if (this.#take('?')) [least, most] = [0, 1];
    else if (this.#peek() === '{') {
      const given = /^\{(\d+)(,?)(\d*)\}/.exec(this.#codes.slice(this.#at, this.#at + 24).join(''));
      if (!given) throw new PatternUnsupported('a { that is no count');
      this.#at += given[0].length;
      least = Number(given[1]);
      most = given[2] === '' ? least : given[3] === '' ? Infinity : Number(given[3]);
    } else return one;
    if (one.kind === 'start' || one.kind === 'end') throw new PatternUnsupported('a repeated ^ or $');
    this.#take('?'); // lazy: another way to the same texts
    if (/^[*+?{]$/.test(this.#peek())) throw new PatternUnsupported('two counts in a row');
    if (most < least) throw new PatternUnsupported('a count whose end is below its beginning');
    return { kind: 'times', of: one, least, most };
  }
  #one(): Tree {
    if (++this.#nodes > MOST_NODES) throw new PatternUnsupported(`more than ${MOST_NODES} parts`);
    if (this.#take('^')) return { kind: 'start' };
    if (this.#take('$')) return { kind: 'end' };
    if (this.#take('.')) return { kind: 'set', ranges: without(BREAKS) };
    if (this.#peek() === '(') return this.#group();
    if (this.#peek() === '[') return { kind: 'set', ranges: this.#set() };
    if (this.#peek() === '\\') return { kind: 'set', ranges: this.#escape(false) };
    const c = this.#peek();
    if (/^[*+?{}\]]$/.test(c)) throw new PatternUnsupported(`a ${c} with nothing before it`);
    this.#at++;
    return { kind: 'set', ranges: one(c.codePointAt(0)!) };
  }
  #group(): Tree {
    this.#at++;
    if (this.#take('?:')) {
      // nothing is kept of it
    } else if (this.#take('?<') && this.#peek() !== '=' && this.#peek() !== '!') {
      while (this.#at < this.#codes.length && !this.#take('>')) this.#at++;
    } else if (this.#peek() === '?' || this.#codes[this.#at - 1] === '<')
      throw new PatternUnsupported('a group that looks around, or has flags');
    const tree = this.#any();
    if (!this.#take(')')) throw new PatternUnsupported('a ( without its )');
    return tree;
  }
  #escape(inSet: boolean): Ranges {
    this.#at++;
    const c = this.#peek();
    this.#at++;
    const hex = (digits: number): Ranges => {
      const text = this.#codes.slice(this.#at, this.#at + digits).join('');
      if (!new RegExp(`^[0-9a-fA-F]{${digits}}$`).test(text)) throw new PatternUnsupported(`\\${c} without its digits`);
      this.#at += digits;
      return one(Number.parseInt(text, 16));
    };
    switch (c) {
      case 'd':
        return DIGIT;
      case 'D':
        return without(DIGIT);
      case 'w':
        return WORD;
      case 'W':
        return without(WORD);
      case 's':
        return SPACES;
      case 'S':
        return without(SPACES);
      case 'n':
        return one(10);
      case 'r':
        return one(13);
      case 't':
        return one(9);
      case 'v':
        return one(11);
      case 'f':
        return one(12);
      case 'x':
        return hex(2);
      case 'u': {
        if (!this.#take('{')) {
          const [[first]] = hex(4) as [[number, number]];
          if (first < 0xd800 || first > 0xdfff) return one(first);
          if (first < 0xdc00 && this.#take('\\u')) {
            const [[second]] = hex(4) as [[number, number]];
            if (second >= 0xdc00 && second <= 0xdfff)
              return one(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00));
          }
          throw new PatternUnsupported('half of a surrogate pair');
        }
        const text = this.#codes.slice(this.#at, this.#at + 8).join('');
        const digits = /^([0-9a-fA-F]{1,6})\}/.exec(text);
        if (!digits) throw new PatternUnsupported('\\u{ without its }');
        this.#at += digits[0].length;
        return one(Number.parseInt(digits[1]!, 16));
      }
      case 'c': {
        const letter = this.#peek();
        if (!/^[A-Za-z]$/.test(letter)) throw new PatternUnsupported('\\c without a letter');
        this.#at++;
        return one(letter.charCodeAt(0) % 32);
      }
      case 'p':
      case 'P': {
        const text = this.#codes.slice(this.#at, this.#at + 64).join('');
        const name = /^\{[\w=]+\}/.exec(text);
        if (!name) throw new PatternUnsupported(`\\${c} without a name`);
        this.#at += name[0].length;
        return rangesOf(`\\${c}${name[0]}`);
      }
      case 'b':
        if (inSet) return one(8);
        throw new PatternUnsupported('\\b');
      case '0':
        if (!/^\d$/.test(this.#peek())) return one(0);
        break;
    }
    if (c === '' || /^[\dA-Za-z]$/.test(c)) throw new PatternUnsupported(`\\${c}`);
    return one(c.codePointAt(0)!);
  }
  #set(): Ranges {
    this.#at++;
    const negated = this.#take('^');
    const out: (readonly [number, number])[] = [];
    const atom = (): Ranges => {
      if (this.#peek() === '\\') return this.#escape(true);
      const c = this.#peek();
      this.#at++;
      return one(c.codePointAt(0)!);
    };
    while (!this.#take(']')) {
      if (this.#at >= this.#codes.length) throw new PatternUnsupported('a [ without its ]');
      const from = atom();
      if (this.#peek() === '-' && this.#peek(1) !== ']' && this.#peek(1) !== '') {
        this.#at++;
        const to = atom();
        if (!isOne(from) || !isOne(to) || from[0]![0] > to[0]![0]) throw new PatternUnsupported('a range of sets');
        out.push([from[0]![0], to[0]![0]]);
      } else out.push(...from);
    }
    return negated ? without(out) : sorted(out);
  }
}

/** @throws {PatternUnsupported} */
export const treeOf = (source: string): Tree => new Reader(source).whole();

/** A look ahead from the beginning of the text: what follows is such a text, or is none. */
export interface Look {
  readonly inside: string;
  readonly not: boolean;
}
/**
 * Looks ahead that stand right after a first ^ ask something of the whole text, beside what the rest asks; no others
 * are read. @throws {PatternUnsupported}
 */
export function looksOf(source: string): { readonly looks: readonly Look[]; readonly rest: string } {
  const looks: Look[] = [];
  let at = 1;
  while (source.startsWith('(?=', at) || source.startsWith('(?!', at)) {
    const end = closeOf(source, at);
    looks.push({ inside: source.slice(at + 3, end), not: source[at + 2] === '!' });
    at = end + 1;
  }
  if (!source.startsWith('^') || looks.length === 0) return { looks: [], rest: source };
  const rest = `^${source.slice(at)}`;
  if (/^[*+?{]/.test(source.slice(at))) throw new PatternUnsupported('a repeated look ahead');
  if (treeOf(rest).kind === 'any') throw new PatternUnsupported('a look ahead in one case of several');
  return { looks, rest };
}
/** Where the group that opens there is closed. */
function closeOf(source: string, from: number): number {
  let [depth, inSet] = [0, false];
  for (let i = from; i < source.length; i++) {
    const c = source[i];
    if (c === '\\') i++;
    else if (inSet) inSet = c !== ']';
    else if (c === '[') inSet = true;
    else if (c === '(') depth++;
    else if (c === ')' && --depth === 0) return i;
  }
  throw new PatternUnsupported('a ( without its )');
}
