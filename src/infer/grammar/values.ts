// How far a JSON text has come, and what may follow. A state is a list of ways to read it, each a chain of frames that
// never change; what comes after a value is made once per frame, so ways that meet again are one.
import { type Characters, textsOf } from './characters.js';
import { isNumber, type NumberPlan, type NumberState, nextNumber } from './decimal.js';
import {
  type Alt,
  type ArrayAlt,
  altsAt,
  isEmpty,
  itemNode,
  memberNode,
  type Node,
  namesOf,
  numberPlan,
  type ObjectAlt,
  patternSet,
  requiredOf,
  stringPlan,
} from './nodes.js';
import { CLOSED, DEAD, IN, STRING_STEP } from './vocabulary.js';

export interface Frame {
  /** @returns the ways in which it goes on; none: the byte may not come */
  step(byte: number): readonly Frame[];
  /** The whole text may end here. */
  readonly ends: boolean;
  /** Inside a string: what masks are made by. */
  readonly text?: TextFrame;
}
/** What waits for a value. */
interface Parent {
  /** The value is there. */
  after(): Frame;
  readonly depth: number;
}

const NONE: readonly Frame[] = [];
const QUOTE = 0x22;
/** White space in a row: enough to be indented deeply, and no text is nothing else for long. */
const MOST_SPACE = 48;
/** How deep values may be nested. */
const MOST_DEPTH = 60;
const isSpace = (b: number): boolean => b === 0x20 || b === 0x0a || b === 0x0d || b === 0x09;

/** White space may come, so often. */
abstract class Spaced implements Frame {
  readonly ends: boolean = false;
  #next: Frame | null = null;
  constructor(readonly spaces: number) {}
  abstract spaced(spaces: number): Frame;
  abstract other(byte: number): readonly Frame[];
  step(byte: number): readonly Frame[] {
    if (!isSpace(byte)) return this.other(byte);
    if (this.spaces >= MOST_SPACE) return NONE;
    this.#next ??= this.spaced(this.spaces + 1);
    return [this.#next];
  }
}

/** The text is whole: nothing follows. */
class Done implements Frame, Parent {
  readonly ends = true;
  readonly depth = 0;
  after(): Frame {
    return this;
  }
  step(): readonly Frame[] {
    return NONE;
  }
}

class Value extends Spaced {
  constructor(
    readonly node: Node,
    readonly parent: Parent,
    spaces = 0,
  ) {
    super(spaces);
  }
  spaced(spaces: number): Frame {
    return new Value(this.node, this.parent, spaces);
  }
  other(byte: number): readonly Frame[] {
    const alts = altsAt(this.node, byte);
    if (alts.length === 0) return NONE;
    if (alts.length === 1) return begin(alts[0]!, this.parent, byte);
    return alts.flatMap((alt) => begin(alt, this.parent, byte));
  }
}

/** @param byte one that the alternative begins with */
function begin(alt: Alt, parent: Parent, byte: number): readonly Frame[] {
  switch (alt.kind) {
    case 'word':
      return [new Word(alt.word, 1, parent)];
    case 'number': {
      const plan = numberPlan(alt);
      const to = nextNumber(plan, plan.start, byte);
      return to ? [new NumberFrame(plan, to, parent)] : NONE;
    }
    case 'string': {
      const plan = stringPlan(alt);
      if (typeof plan === 'string') return NONE;
      const end: TextEnd = { close: () => [parent.after()], sameForAll: true };
      return [
        plan.kind === 'free'
          ? new TextFrame(plan.least, plan.most, null, end)
          : new TextFrame(0, Number.POSITIVE_INFINITY, plan.set, end),
      ];
    }
    case 'array':
      return parent.depth < MOST_DEPTH ? [new ArrayFrame(alt, 'first', 0, parent)] : NONE;
    case 'object':
      return parent.depth < MOST_DEPTH ? [new ObjectFrame(alt, 'first', [], parent)] : NONE;
  }
}

class Word implements Frame {
  readonly ends = false;
  constructor(
    readonly word: string,
    readonly at: number,
    readonly parent: Parent,
  ) {}
  step(byte: number): readonly Frame[] {
    if (byte !== this.word.charCodeAt(this.at)) return NONE;
    return this.at + 1 === this.word.length ? [this.parent.after()] : [new Word(this.word, this.at + 1, this.parent)];
  }
}

class NumberFrame implements Frame {
  readonly ends: boolean;
  readonly #whole: boolean;
  constructor(
    readonly plan: NumberPlan,
    readonly state: NumberState,
    readonly parent: Parent,
  ) {
    this.#whole = isNumber(plan, state);
    this.ends = this.#whole && parent.after().ends;
  }
  step(byte: number): readonly Frame[] {
    const to = nextNumber(this.plan, this.state, byte);
    if (to) return [new NumberFrame(this.plan, to, this.parent)];
    return this.#whole ? this.parent.after().step(byte) : NONE;
  }
}

/** What comes after a string: for a name of an object it depends on what the name is. */
export interface TextEnd {
  close(text: string): readonly Frame[];
  /** `close` gives the same for any text. */
  readonly sameForAll: boolean;
  /** Otherwise: texts for which it gives something of its own; null: it may for any. */
  readonly known?: ReadonlySet<string> | null;
}

/** In a string. The text is kept only where what comes after depends on it. */
export class TextFrame implements Frame {
  readonly ends = false;
  readonly text = this;
  constructor(
    readonly least: number,
    readonly most: number,
    /** null: any characters. */
    readonly set: Characters | null,
    readonly end: TextEnd,
    /** In IN. */
    readonly state: number = IN.plain,
    /** Characters begun. */
    readonly count = 0,
    /** Of the set. */
    readonly inSet = 0,
    /** Of the character that is being written: its bits so far, as UTF-8 or hexadecimal digits. */
    readonly bits = 0,
    readonly written = '',
  ) {}

  step(byte: number): readonly Frame[] {
    const { state } = this;
    const to = STRING_STEP[state * 256 + byte]!;
    if (to === DEAD) return NONE;
    if (to === CLOSED) {
      if (this.count < this.least || this.count > this.most) return NONE;
      if (this.set && !this.set.accepts(this.inSet)) return NONE;
      return this.end.close(this.written);
    }
    const count = state === IN.plain ? this.count + 1 : this.count;
    if (count > this.most) return NONE;
    const keeps = this.set !== null || !this.end.sameForAll;
    if (!keeps) return [this.#to(to, count, 0, 0, '')];
    const bits = bitsAfter(state, this.bits, byte, to);
    if (to !== IN.plain)
      return !this.set || mayGoOn(this.set, this.inSet, to, bits)
        ? [this.#to(to, count, this.inSet, bits, this.written)]
        : NONE;
    const inSet = this.set ? this.set.next(this.inSet, bits) : 0;
    if (inSet < 0) return NONE;
    const written = this.end.sameForAll ? '' : this.written + String.fromCodePoint(bits);
    return [this.#to(to, count, inSet, 0, written)];
  }
  #to(state: number, count: number, inSet: number, bits: number, written: string): TextFrame {
    return new TextFrame(this.least, this.most, this.set, this.end, state, count, inSet, bits, written);
  }
}
/** Some character that begins like that is one that the set goes on with. */
export function mayGoOn(set: Characters, inSet: number, to: number, bits: number): boolean {
  const range = (more: number, from = 0, end = 2 ** more - 1): boolean =>
    set.goesOn(inSet, bits * 2 ** more + from, bits * 2 ** more + end);
  switch (to) {
    case IN.escape:
      return set.goesOn(inSet, 0, 0xffff);
    case IN.hex1:
      return set.goesOn(inSet, 0, 0xffff);
    case IN.hexD:
      return range(12, 0, 0x7ff);
    case IN.hex2:
      return range(12);
    case IN.hex3:
      return range(8);
    case IN.hex4:
      return range(4);
    case IN.one:
      return range(6);
    case IN.two:
      return range(12);
    case IN.three:
      return range(18);
    case IN.afterE0:
      return range(12, 0x800, 0xfff);
    case IN.afterED:
      return range(12, 0, 0x7ff);
    case IN.afterF0:
      return range(18, 0x10000, 0x3ffff);
    default:
      return range(18, 0, 0xffff); // after F4
  }
}
const ESCAPES: Readonly<Record<number, number>> = { 98: 8, 102: 12, 110: 10, 114: 13, 116: 9 };
const hexOf = (b: number): number => (b <= 0x39 ? b - 0x30 : (b | 0x20) - 0x57);
export function bitsAfter(state: number, bits: number, byte: number, to: number): number {
  if (state === IN.plain) {
    if (byte < 0x80) return byte;
    return to === IN.one
      ? byte & 0x1f
      : to === IN.two || to === IN.afterE0 || to === IN.afterED
        ? byte & 0x0f
        : byte & 7;
  }
  if (state === IN.escape) return byte === 0x75 ? 0 : (ESCAPES[byte] ?? byte);
  if (state >= IN.hex1 && state <= IN.hex4) return bits * 16 + hexOf(byte);
  return bits * 64 + (byte & 0x3f);
}

class ArrayFrame extends Spaced implements Parent {
  readonly depth: number;
  #after: Frame | null = null;
  constructor(
    readonly alt: ArrayAlt,
    /** `first`: after the bracket; `value`: after a comma; `after`: after an item. */
    readonly phase: 'first' | 'after',
    /** Items so far. */
    readonly count: number,
    readonly parent: Parent,
    spaces = 0,
  ) {
    super(spaces);
    this.depth = parent.depth + 1;
  }
  spaced(spaces: number): Frame {
    return new ArrayFrame(this.alt, this.phase, this.count, this.parent, spaces);
  }
  after(): Frame {
    this.#after ??= new ArrayFrame(this.alt, 'after', this.count + 1, this.parent);
    return this.#after;
  }
  get #more(): Node | null {
    if (this.count >= this.alt.most) return null;
    const node = itemNode(this.alt, this.count);
    return isEmpty(node) ? null : node;
  }
  other(byte: number): readonly Frame[] {
    if (byte === 0x5d) return this.count >= this.alt.least ? [this.parent.after()] : NONE;
    if (this.phase === 'after' && byte !== 0x2c) return NONE;
    const node = this.#more;
    if (!node) return NONE;
    const value = new Value(node, this);
    return this.phase === 'after' ? [value] : value.step(byte);
  }
}

class ObjectFrame extends Spaced {
  constructor(
    readonly alt: ObjectAlt,
    /** `first`: after the brace; `name`: after a comma; `after`: after a member. */
    readonly phase: 'first' | 'name' | 'after',
    readonly seen: readonly string[],
    readonly parent: Parent,
    spaces = 0,
  ) {
    super(spaces);
  }
  spaced(spaces: number): Frame {
    return new ObjectFrame(this.alt, this.phase, this.seen, this.parent, spaces);
  }
  /** Names that must still come. */
  get #owed(): number {
    let n = 0;
    for (const name of requiredOf(this.alt, [...this.alt.required, ...this.seen])) if (!this.seen.includes(name)) n++;
    return n;
  }
  other(byte: number): readonly Frame[] {
    const { alt, phase, seen } = this;
    if (byte === 0x7d)
      return phase !== 'name' && seen.length >= alt.least && this.#owed === 0 ? [this.parent.after()] : NONE;
    if (phase === 'after') return byte === 0x2c && this.#names() !== null ? [this.#named()] : NONE;
    if (byte !== QUOTE) return NONE;
    const frame = this.#names();
    return frame ? [frame] : NONE;
  }
  #next: Frame | null = null;
  #named(): Frame {
    this.#next ??= new ObjectFrame(this.alt, 'name', this.seen, this.parent);
    return this.#next;
  }
  #frame: TextFrame | null | undefined;
  /** In the name of a member to come; null: none may come. */
  #names(): TextFrame | null {
    if (this.#frame === undefined) this.#frame = this.#makeNames();
    return this.#frame;
  }
  /** A member of that name may come, and what must come after it still may. */
  #may(name: string): boolean {
    const { alt, seen } = this;
    if (seen.includes(name) || isEmpty(memberNode(alt, name))) return false;
    const all = requiredOf(alt, [...alt.required, ...seen, name]);
    if (new Set([...seen, name, ...all]).size > alt.most) return false;
    if (alt.needs.size > 0) for (const n of all) if (isEmpty(memberNode(alt, n))) return false;
    return true;
  }
  #makeNames(): TextFrame | null {
    const { alt, seen, parent } = this;
    if (seen.length >= alt.most) return null;
    const { only, pattern, known } = namesOf(alt);
    const close = (name: string): readonly Frame[] => (this.#may(name) ? [new Member(alt, name, seen, parent)] : NONE);
    const all = Number.POSITIVE_INFINITY;
    // Where only names that are owed may come, the name is one of them.
    const owed = [...requiredOf(alt, [...alt.required, ...seen])].filter((n) => !seen.includes(n));
    const given = owed.length > 0 && seen.length + owed.length >= alt.most ? owed : only;
    if (given) {
      const names = given.filter((n) => this.#may(n));
      return names.length === 0
        ? null
        : new TextFrame(0, all, textsOf(names), { close, sameForAll: false, known: null });
    }
    if (pattern !== null) {
      const set = patternSet([pattern], 0, all);
      if (set === null || set === 'too_large') return null;
      return new TextFrame(0, all, set, { close, sameForAll: false, known: null });
    }
    const byPattern = alt.parts.some((p) => p.patterns.length > 0);
    const own = byPattern ? null : new Set([...known, ...seen, ...alt.needs.keys()]);
    return new TextFrame(0, all, null, { close, sameForAll: false, known: own });
  }
}

/** A member: its colon, then its value. */
class Member extends Spaced implements Parent {
  readonly depth: number;
  #after: Frame | null = null;
  constructor(
    readonly alt: ObjectAlt,
    readonly name: string,
    readonly seen: readonly string[],
    readonly parent: Parent,
    spaces = 0,
  ) {
    super(spaces);
    this.depth = parent.depth + 1;
  }
  spaced(spaces: number): Frame {
    return new Member(this.alt, this.name, this.seen, this.parent, spaces);
  }
  other(byte: number): readonly Frame[] {
    return byte === 0x3a ? [new Value(memberNode(this.alt, this.name), this)] : NONE;
  }
  after(): Frame {
    this.#after ??= new ObjectFrame(this.alt, 'after', [...this.seen, this.name], this.parent);
    return this.#after;
  }
}

export type State = readonly Frame[];
export const beginText = (root: Node): State => [new Value(root, new Done())];
const byWay = (frames: readonly Frame[]): readonly Frame[] =>
  frames.length < 2 ? frames : frames.filter((f, i) => frames.indexOf(f) === i);
/** @returns no ways: the byte may not come */
export function stepState(state: State, byte: number): State {
  if (state.length === 1) return state[0]!.step(byte);
  return byWay(state.flatMap((f) => f.step(byte)));
}
export const mayEnd = (state: State): boolean => state.some((f) => f.ends);
