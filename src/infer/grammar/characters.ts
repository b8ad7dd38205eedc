// Sets of texts that are decided character by character: a few given ones, or what a pattern and a length allow. Every
// state that can be reached leads to a text of the set, so a mask made of them never ends in nothing.
import { inTime } from './deadline.js';

/** Code points [from, to]; sorted, apart from each other. */
export type Ranges = readonly (readonly [from: number, to: number])[];
export const LAST = 0x10ffff;

/** States are numbers from 0, the start. */
export interface Characters {
  /** −1: no text of the set goes on like that. */
  next(state: number, code: number): number;
  accepts(state: number): boolean;
  /** Whether any code point of [from, to] goes on. */
  goesOn(state: number, from: number, to: number): boolean;
  /** The texts, where they are given ones. */
  readonly texts: readonly string[] | null;
  /** What it is made of, where that is a table. */
  readonly table?: CharacterTable;
}
/** States by classes of characters, in shared memory: what one thread worked out another reads. */
export interface CharacterTable {
  /** First code points of the classes; the first is 0. */
  readonly classes: Int32Array;
  /** State by class: the next one; −1: none. */
  readonly next: Int32Array;
  /** By state: 1, the text may end there. */
  readonly accepts: Uint8Array;
}

export const allows = (set: Characters, text: string): boolean => {
  let state = 0;
  for (const c of text) {
    state = set.next(state, c.codePointAt(0)!);
    if (state < 0) return false;
  }
  return set.accepts(state);
};

/** Its texts, where they are at most so many; null: there are more. */
export function textsIn({ texts, table }: Characters, most: number): readonly string[] | null {
  if (!table) return texts && texts.length <= most ? texts : null;
  const { classes, next, accepts } = table;
  const found: string[] = [];
  // Every state leads to a text, and one that comes back to itself to any number of them.
  const add = (state: number, text: string, length: number): boolean => {
    if (length >= accepts.length) return false;
    if (accepts[state] === 1 && found.push(text) > most) return false;
    for (const [c, from] of classes.entries()) {
      const to = next[state * classes.length + c]!,
        end = classes[c + 1] ?? LAST + 1;
      if (to < 0) continue;
      if (end - from > most) return false;
      for (let code = from; code < end; code++)
        if (!add(to, text + String.fromCodePoint(code), length + 1)) return false;
    }
    return true;
  };
  return add(0, '', 0) ? found : null;
}

/** The set of some texts. */
export function textsOf(texts: readonly string[]): Characters {
  const nodes: { readonly next: Map<number, number>; ends: boolean }[] = [{ next: new Map(), ends: false }];
  for (const text of texts) {
    let at = 0;
    for (const c of text) {
      const code = c.codePointAt(0)!;
      let to = nodes[at]!.next.get(code);
      if (to === undefined) {
        to = nodes.push({ next: new Map(), ends: false }) - 1;
        nodes[at]!.next.set(code, to);
      }
      at = to;
    }
    nodes[at]!.ends = true;
  }
  return {
    texts,
    next: (state, code) => nodes[state]!.next.get(code) ?? -1,
    accepts: (state) => nodes[state]!.ends,
    goesOn(state, from, to) {
      for (const code of nodes[state]!.next.keys()) if (code >= from && code <= to) return true;
      return false;
    },
  };
}

/** A machine whose states are found as they are asked for. */
export interface Machine<S> {
  readonly start: S;
  /** Same text for the same state. */
  key(state: S): string;
  /** null: it ends here. */
  next(state: S, code: number): S | null;
  accepts(state: S): boolean;
  /** First code points of the classes that `next` tells apart; the first is 0. */
  readonly classes: readonly number[];
}
/** Texts of so many characters. */
export function lengthMachine(least: number, most: number): Machine<number> {
  const top = most === Infinity ? least : most + 1;
  return {
    start: 0,
    key: String,
    classes: [0],
    accepts: (n) => n >= least && n <= most,
    next: (n) => (n + 1 > most ? null : Math.min(n + 1, top)),
  };
}
/** Both at once. */
export function bothMachines<A, B>(a: Machine<A>, b: Machine<B>): Machine<readonly [A, B]> {
  return {
    start: [a.start, b.start],
    key: ([x, y]) => `${a.key(x)}/${b.key(y)}`,
    classes: [...new Set([...a.classes, ...b.classes])].sort((x, y) => x - y),
    accepts: ([x, y]) => a.accepts(x) && b.accepts(y),
    next([x, y], code) {
      const nx = a.next(x, code);
      if (nx === null) return null;
      const ny = b.next(y, code);
      return ny === null ? null : [nx, ny];
    },
  };
}

/** The texts that are none of the machine's. */
export const complementOf = <S>(machine: Machine<S>): Machine<{ readonly in: S | null }> => ({
  start: { in: machine.start },
  key: (s) => (s.in === null ? '' : `=${machine.key(s.in)}`),
  classes: machine.classes,
  accepts: (s) => s.in === null || !machine.accepts(s.in),
  next: (s, code) => ({ in: s.in === null ? null : machine.next(s.in, code) }),
});

/** States of a set, times classes of characters: what a schema may ask for. */
export const MOST_CELLS = 1 << 17;

/**
 * All states of a machine, but for those that lead nowhere.
 * @returns null: it has no text · 'too_large'
 */
export function charactersOf<S>(machine: Machine<S>): Characters | null | 'too_large' {
  const { classes } = machine;
  const states: S[] = [machine.start];
  const ids = new Map([[machine.key(machine.start), 0]]);
  const rows: Int32Array[] = [];
  for (let at = 0; at < states.length; at++) {
    inTime();
    const row = new Int32Array(classes.length).fill(-1);
    for (const [c, code] of classes.entries()) {
      const to = machine.next(states[at]!, code);
      if (to === null) continue;
      const key = machine.key(to);
      let id = ids.get(key);
      if (id === undefined) {
        id = states.push(to) - 1;
        ids.set(key, id);
        if (states.length * classes.length > MOST_CELLS) return 'too_large';
      }
      row[c] = id;
    }
    rows.push(row);
  }
  const accepting = states.map((s) => machine.accepts(s));
  // Backwards from the ends: what is not reached there leads nowhere.
  const from: number[][] = states.map(() => []);
  for (const [s, row] of rows.entries()) for (const to of row) if (to >= 0) from[to]!.push(s);
  const live = accepting.slice();
  const open = [...live.keys()].filter((s) => live[s]);
  for (let s = open.pop(); s !== undefined; s = open.pop())
    for (const f of from[s]!)
      if (!live[f]) {
        live[f] = true;
        open.push(f);
      }
  if (!live[0]) return null;
  const width = classes.length;
  const table: CharacterTable = {
    classes: new Int32Array(new SharedArrayBuffer(4 * width)),
    next: new Int32Array(new SharedArrayBuffer(4 * width * states.length)),
    accepts: new Uint8Array(new SharedArrayBuffer(states.length)),
  };
  table.classes.set(classes);
  for (const [s, row] of rows.entries()) {
    table.accepts[s] = accepting[s] ? 1 : 0;
    for (let k = 0; k < width; k++) table.next[s * width + k] = row[k]! >= 0 && live[row[k]!] ? row[k]! : -1;
  }
  return fromTable(table);
}

export function fromTable(table: CharacterTable): Characters {
  const { classes, next, accepts } = table;
  const width = classes.length;
  const classOf = (code: number): number => {
    let low = 0,
      high = width - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (classes[middle]! <= code) low = middle;
      else high = middle - 1;
    }
    return low;
  };
  return {
    table,
    texts: null,
    next: (state, code) => next[state * width + classOf(code)]!,
    accepts: (state) => accepts[state] === 1,
    goesOn(state, low, high) {
      const first = classOf(low);
      for (let c = first; c < width && (c === first || classes[c]! <= high); c++)
        if (next[state * width + c]! >= 0) return true;
      return false;
    },
  };
}
