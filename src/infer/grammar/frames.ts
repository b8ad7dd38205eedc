// What a state of a JSON text is made of.
import { isNumber, type NumberPlan, type NumberState, nextNumber } from './decimal.js';
import type { TextFrame } from './text.js';

export interface Frame {
  /** @returns the ways in which it goes on; none: the byte may not come */
  step(byte: number): readonly Frame[];
  /** The whole text may end here. */
  readonly ends: boolean;
  /** Inside a string: what masks are made by. */
  readonly text?: TextFrame;
}
/** What waits for a value. */
export interface Parent {
  /** The value is there. */
  after(): Frame;
  readonly depth: number;
}

export const NONE: readonly Frame[] = [];
/** White space in a row: enough to be indented deeply, and no text is nothing else for long. */
const MOST_SPACE = 48;
const isSpace = (b: number): boolean => b === 0x20 || b === 0x0a || b === 0x0d || b === 0x09;

/** White space may come, so often. */
export abstract class Spaced implements Frame {
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
export class Done implements Frame, Parent {
  readonly ends = true;
  readonly depth = 0;
  after(): Frame {
    return this;
  }
  step(): readonly Frame[] {
    return NONE;
  }
}

export class Word implements Frame {
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

export class NumberFrame implements Frame {
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
