// How far a JSON text has come, and what may follow. A state is a list of ways to read it, each a chain of frames that
// never change; what comes after a value is made once per frame, so ways that meet again are one.
import { textsOf } from './characters.js';
import { nextNumber } from './decimal.js';
import { Done, type Frame, NONE, NumberFrame, type Parent, Spaced, Word } from './frames.js';
import { itemNode, memberNode, namesOf, requiredOf } from './members.js';
import type { Alt, ArrayAlt, Node, ObjectAlt } from './nodes.js';
import { numberPlan, patternSet, stringPlan } from './plans.js';
import { altsAt, isEmpty } from './reachable.js';
import { type TextEnd, TextFrame } from './text.js';

const QUOTE = 0x22;
/** How deep values may be nested. */
const MOST_DEPTH = 60;

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
