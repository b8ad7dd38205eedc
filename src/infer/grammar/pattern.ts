// Patterns as machines over characters: matching takes one step a character, whatever the pattern.
import { bothMachines, complementOf, LAST, type Machine, type Ranges } from './characters.js';
import { looksOf, MOST_NODES, type Tree, treeOf } from './pattern-reader.js';
import { PatternUnsupported } from './pattern-sets.js';

/** Ranges are sorted and apart from each other. */
function within(ranges: Ranges, code: number): boolean {
  let [low, high] = [0, ranges.length - 1];
  while (low <= high) {
    const middle = (low + high) >> 1;
    const [from, to] = ranges[middle]!;
    if (code < from) high = middle - 1;
    else if (code > to) low = middle + 1;
    else return true;
  }
  return false;
}

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
export function patternMachine(source: string): Machine<unknown> {
  const { looks, rest } = looksOf(source);
  return looks.reduce<Machine<unknown>>(
    (machine, { inside, not }) => {
      const own = plainMachine(`^(?:${inside})`);
      return bothMachines(machine, (not ? complementOf(own) : own) as Machine<unknown>) as Machine<unknown>;
    },
    plainMachine(rest) as Machine<unknown>,
  );
}
function plainMachine(source: string): Machine<readonly number[]> {
  const net = new Net();
  const begin = net.node();
  const all: Ranges = [[0, LAST]];
  // Found anywhere: what stands before and after it may be anything.
  net.edges[0]!.push({ to: 0, on: all }, { to: begin, on: 'free' });
  const found = net.add(treeOf(source), begin);
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
