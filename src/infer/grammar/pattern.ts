// Regular expressions of JSON Schema as machines over characters: what JavaScript reads with flag u, without what is no
// regular language (references back) or looks around. Matching takes one step a character, whatever the pattern.
import { LAST, type Machine, type Ranges } from './characters.js';

/** What a pattern has and this does not read. */
export class PatternUnsupported extends Error {}

type Tree =
  | { readonly kind: 'set'; readonly ranges: Ranges }
  | { readonly kind: 'all' | 'any'; readonly of: readonly Tree[] }
  | { readonly kind: 'times'; readonly of: Tree; readonly least: number; readonly most: number }
  | { readonly kind: 'start' | 'end' };

const MOST_NODES = 5000;
const sorted = (ranges: Ranges): Ranges => {
  const out: [number, number][] = [];
  for (const [from, to] of [...ranges].sort((a, b) => a[0] - b[0])) {
    const last = out.at(-1);
    if (last && from <= last[1] + 1) last[1] = Math.max(last[1], to);
    else out.push([from, to]);
  }
  return out;
};
export const without = (ranges: Ranges): Ranges => {
  const out: [number, number][] = [];
  let at = 0;
  for (const [from, to] of sorted(ranges)) {
    if (from > at) out.push([at, from - 1]);
    at = to + 1;
  }
  if (at <= LAST) out.push([at, LAST]);
  return out;
};
const DIGIT: Ranges = [[0x30, 0x39]];
const WORD: Ranges = [
  [0x30, 0x39],
  [0x41, 0x5a],
  [0x5f, 0x5f],
  [0x61, 0x7a],
];
const SPACES: Ranges = [
  [9, 13],
  [0x20, 0x20],
  [0xa0, 0xa0],
  [0x1680, 0x1680],
  [0x2000, 0x200a],
  [0x2028, 0x2029],
  [0x202f, 0x202f],
  [0x205f, 0x205f],
  [0x3000, 0x3000],
  [0xfeff, 0xfeff],
];
const BREAKS: Ranges = [
  [0x0a, 0x0a],
  [0x0d, 0x0d],
  [0x2028, 0x2029],
];
const properties = new Map<string, Ranges>();
/** Code points that a set of JavaScript's own holds. */
function rangesOf(source: string): Ranges {
  const known = properties.get(source);
  if (known) return known;
  let re: RegExp;
  try {
    re = new RegExp(`^${source}$`, 'u');
  } catch {
    throw new PatternUnsupported(`${source} is no set of characters`);
  }
  const out: [number, number][] = [];
  for (let code = 0; code <= LAST; code++) {
    if (code >= 0xd800 && code <= 0xdfff) continue;
    if (!re.test(String.fromCodePoint(code))) continue;
    const last = out.at(-1);
    if (last && last[1] === code - 1) last[1] = code;
    else out.push([code, code]);
  }
  if (properties.size > 64) properties.clear();
  properties.set(source, out);
  return out;
}

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
const one = (code: number): Ranges => [[code, code]];
const isOne = (r: Ranges): boolean => r.length === 1 && r[0]![0] === r[0]![1];

type Edge = { readonly to: number; readonly on: Ranges | 'free' | 'start' | 'end' };
/** Thompson's construction. */
class Net {
  readonly edges: Edge[][] = [[]];
  node(): number {
    if (this.edges.length > MOST_NODES) throw new PatternUnsupported(`more than ${MOST_NODES} parts`);
    return this.edges.push([]) - 1;
  }
  /** @returns where it ends */
  add(tree: Tree, from: number): number {
    const edge = (to: number, on: Edge['on']): number => {
      this.edges[from]!.push({ to, on });
      return to;
    };
    switch (tree.kind) {
      case 'set':
        return edge(this.node(), tree.ranges);
      case 'start':
      case 'end':
        return edge(this.node(), tree.kind);
      case 'all':
        return tree.of.reduce((at, t) => this.add(t, at), from);
      case 'any': {
        const end = this.node();
        for (const t of tree.of) {
          const begin = this.node();
          this.edges[from]!.push({ to: begin, on: 'free' });
          this.edges[this.add(t, begin)]!.push({ to: end, on: 'free' });
        }
        return end;
      }
      case 'times': {
        let at = from;
        for (let i = 0; i < tree.least; i++) at = this.add(tree.of, at);
        if (tree.most === Infinity) {
          const loop = this.node();
          this.edges[at]!.push({ to: loop, on: 'free' });
          this.edges[this.add(tree.of, loop)]!.push({ to: loop, on: 'free' });
          return loop;
        }
        const end = this.node();
        for (let i = tree.least; i < tree.most; i++) {
          this.edges[at]!.push({ to: end, on: 'free' });
          at = this.add(tree.of, at);
        }
        this.edges[at]!.push({ to: end, on: 'free' });
        return end;
      }
    }
  }
}

/** The texts in which the pattern is found. @throws {PatternUnsupported} */
export function patternMachine(source: string): Machine<readonly number[]> {
  const net = new Net();
  const begin = net.node();
  const all: Ranges = [[0, LAST]];
  // Found anywhere: what stands before and after it may be anything.
  net.edges[0]!.push({ to: 0, on: all }, { to: begin, on: 'free' });
  const found = net.add(new Reader(source).whole(), begin);
  const tail = net.node();
  net.edges[found]!.push({ to: tail, on: 'free' });
  net.edges[tail]!.push({ to: tail, on: all });
  const cuts = new Set([0]);
  for (const edges of net.edges)
    for (const { on } of edges)
      if (typeof on !== 'string')
        for (const [from, to] of on) {
          cuts.add(from);
          if (to < LAST) cuts.add(to + 1);
        }
  const close = (states: Iterable<number>, at: 'start' | 'end' | null): readonly number[] => {
    const seen = new Set(states);
    for (const s of seen)
      for (const { to, on } of net.edges[s]!) if (on === 'free' || (at !== null && on === at)) seen.add(to);
    return [...seen].sort((a, b) => a - b);
  };
  const within = (ranges: Ranges, code: number): boolean => ranges.some(([from, to]) => code >= from && code <= to);
  const start = close([0], 'start');
  // An end before any character: the beginning and the end of an empty text are one place.
  const endOfEmpty = ((): boolean => {
    const seen = new Set([0]);
    for (const s of seen) for (const { to, on } of net.edges[s]!) if (typeof on === 'string') seen.add(to);
    return seen.has(tail);
  })();
  return {
    // The start is a state of its own: only there the text may be empty.
    start: [-1, ...start],
    key: (s) => s.join(),
    classes: [...cuts].sort((a, b) => a - b),
    accepts: (s) =>
      s[0] === -1 ? endOfEmpty || close(s.slice(1), 'end').includes(tail) : close(s, 'end').includes(tail),
    next(s, code) {
      const to = new Set<number>();
      for (const q of s)
        if (q >= 0) for (const e of net.edges[q]!) if (typeof e.on !== 'string' && within(e.on, code)) to.add(e.to);
      return to.size === 0 ? null : close(to, null);
    },
  };
}
