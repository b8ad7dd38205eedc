// Walks of a vocabulary's trie: which tokens may come after a state.
import { bitsAfter, mayGoOn, type TextFrame } from './text.js';
import { type State, stepState } from './values.js';
import { CLOSED, IN, IN_STATES, STRING_STEP, type Trie } from './vocabulary.js';

export type Found = (id: number) => void;
/** Longer than any token and what is walked below one. */
export const DEEP = 300;

/** The node of a text; −1: none. */
export function find({ byte, end }: Trie, bytes: Uint8Array): number {
  let from = 0,
    last = byte.length,
    node = -1;
  for (const b of bytes) {
    node = -1;
    for (let i = from; i < last; i = end[i]!)
      if (byte[i] === b) {
        node = i;
        break;
      }
    if (node < 0) return -1;
    from = node + 1;
    last = end[node]!;
  }
  return node;
}

/** Nodes [from, last), which begin below depth `top`, as far as the state allows. */
export function walk(trie: Trie, from: number, last: number, top: number, state: State, found: Found): void {
  const { byte, end, token, depth } = trie;
  const states: State[] = [state];
  for (let i = from; i < last; ) {
    const d = depth[i]! - top;
    const to = stepState(states[d - 1]!, byte[i]!);
    if (to.length === 0) {
      i = end[i]!;
      continue;
    }
    if (token[i]! >= 0) found(token[i]!);
    const text = to.length === 1 ? to[0]!.text : undefined;
    if (text && end[i]! > i + 1) {
      walkText(trie, i + 1, end[i]!, depth[i]!, text, found);
      i = end[i]!;
      continue;
    }
    states[d] = to;
    i++;
  }
}
const makeScratch = () => ({
  inside: new Uint8Array(DEEP),
  counts: new Int32Array(DEEP),
  path: new Uint8Array(DEEP),
  bits: new Int32Array(DEEP),
  inSet: new Int32Array(DEEP),
});
const SCRATCH: ReturnType<typeof makeScratch>[] = [];
let inUse = 0;

/** The same in a string: no states are made until it ends. */
export function walkText(trie: Trie, from: number, last: number, top: number, frame: TextFrame, found: Found): void {
  const { byte, end, token, depth } = trie;
  const { set, most, least } = frame;
  // One walk may be inside another: a string that ends, and one that begins in the same token.
  const scratch = SCRATCH[inUse] ?? makeScratch();
  SCRATCH[inUse++] = scratch;
  const { inside, counts, path, bits, inSet } = scratch;
  inside[0] = frame.state;
  counts[0] = frame.count;
  bits[0] = frame.bits;
  inSet[0] = frame.inSet;
  const goes = (d: number, at: number, to: number, b: number): boolean => {
    if (!set) return true;
    const code = bitsAfter(at, bits[d - 1]!, b, to);
    bits[d] = code;
    const before = inSet[d - 1]!;
    inSet[d] = to === IN.plain ? set.next(before, code) : before;
    return to === IN.plain ? inSet[d]! >= 0 : mayGoOn(set, before, to, code);
  };
  for (let i = from; i < last; ) {
    const d = depth[i]! - top;
    const b = byte[i]!;
    const at = inside[d - 1]!;
    const to = STRING_STEP[at * 256 + b]!;
    path[d] = b;
    if (to < IN_STATES) {
      const n = counts[d - 1]! + (at === IN.plain ? 1 : 0);
      if (n <= most && goes(d, at, to, b)) {
        inside[d] = to;
        counts[d] = n;
        if (token[i]! >= 0) found(token[i]!);
        i++;
        continue;
      }
    } else if (to === CLOSED && counts[d - 1]! >= least && (!set || set.accepts(inSet[d - 1]!))) {
      let after: State = frame.end.sameForAll ? frame.end.close('') : [frame];
      if (!frame.end.sameForAll) for (let k = 1; k <= d && after.length > 0; k++) after = stepState(after, path[k]!);
      if (after.length > 0) {
        if (token[i]! >= 0) found(token[i]!);
        walk(trie, i + 1, end[i]!, depth[i]!, after, found);
      }
    }
    i = end[i]!;
  }
  inUse--;
}
