// Python's regular expressions, as far as files of PEFT use them, matched in time linear in pattern times text: all
// ways to match are followed at once (Thompson's construction), none is tried and taken back. So no pattern of a
// stranger's file can run for ever. What this cannot follow (back references, possessive and atomic parts) is refused.

/** What a pattern is refused for, for the message of whoever reads it. */
export class PatternError extends Error {}

type Codes = (code: number) => boolean;
type Node =
  | { readonly kind: 'codes'; readonly codes: Codes }
  | { readonly kind: 'all'; readonly parts: readonly Node[] }
  | { readonly kind: 'any'; readonly parts: readonly Node[] }
  | { readonly kind: 'repeat'; readonly part: Node; readonly min: number; readonly max: number }
  | { readonly kind: 'place'; readonly holds: Place }
  | { readonly kind: 'look'; readonly part: Node; readonly ahead: boolean; readonly wanted: boolean };
type Place = (text: string, at: number) => boolean;
type Step =
  | { readonly op: 'codes'; readonly codes: Codes }
  | { readonly op: 'split'; to: number[] }
  | { readonly op: 'place'; readonly holds: Place }
  | { readonly op: 'look'; readonly inner: readonly Step[]; readonly ahead: boolean; readonly wanted: boolean }
  | { readonly op: 'end' };

export interface PythonPattern {
  /** Steps it became: what matching costs per character. */
  readonly size: number;
  /** `re.fullmatch`. */
  matches(text: string): boolean;
}

const MAX_CHARACTERS = 10_000;
const MAX_STEPS = 20_000;
const MAX_DEPTH = 100;
const MAX_REPEAT = 1000;

const isDigit: Codes = (c) => c >= 48 && c <= 57;
const isSpace: Codes = (c) => c === 32 || (c >= 9 && c <= 13) || (c >= 28 && c <= 31);
const isWord: Codes = (c) => isDigit(c) || (c >= 65 && c <= 90) || (c >= 97 && c <= 122) || c === 95;
const not =
  (codes: Codes): Codes =>
  (c) =>
    !codes(c);
const CLASSES: Readonly<Record<string, Codes>> = {
  d: isDigit,
  D: not(isDigit),
  s: isSpace,
  S: not(isSpace),
  w: isWord,
  W: not(isWord),
};
const CONTROLS: Readonly<Record<string, number>> = { n: 10, r: 13, t: 9, f: 12, v: 11, a: 7 };
const wordAt = (text: string, at: number): boolean => at >= 0 && at < text.length && isWord(text.charCodeAt(at));
const atWordEdge: Place = (text, at) => wordAt(text, at - 1) !== wordAt(text, at);
const atStart: Place = (_, at) => at === 0;
const atEnd: Place = (text, at) => at === text.length;
const PLACES: Readonly<Record<string, Place>> = {
  b: atWordEdge,
  B: (text, at) => !atWordEdge(text, at),
  A: atStart,
  Z: atEnd,
  z: atEnd,
};

class Parser {
  #at = 0;
  #depth = 0;
  #ignoreCase = false;
  constructor(readonly text: string) {}

  parse(): Node {
    const flags = /^\(\?([a-zA-Z]+)\)/.exec(this.text);
    if (flags) {
      this.#flags(flags[1] ?? '');
      this.#at = flags[0].length;
    }
    const node = this.#alternatives();
    if (this.#at < this.text.length) throw new PatternError('an unmatched )');
    return node;
  }

  #flags(flags: string): void {
    const odd = [...flags].find((f) => !'imsau'.includes(f));
    if (odd) throw new PatternError(`the flag ${odd}`);
    if (flags.includes('i')) this.#ignoreCase = true;
  }
  #take(text: string): boolean {
    if (!this.text.startsWith(text, this.#at)) return false;
    this.#at += text.length;
    return true;
  }
  #next(): string {
    const c = this.text[this.#at++];
    if (c === undefined) throw new PatternError('an end too early');
    return c;
  }

  #alternatives(): Node {
    if (++this.#depth > MAX_DEPTH) throw new PatternError(`groups deeper than ${MAX_DEPTH}`);
    const parts: Node[] = [];
    do parts.push(this.#sequence());
    while (this.#take('|'));
    this.#depth--;
    return parts.length === 1 && parts[0] ? parts[0] : { kind: 'any', parts };
  }
  #sequence(): Node {
    const parts: Node[] = [];
    while (this.#at < this.text.length && !'|)'.includes(this.text[this.#at] ?? '')) {
      const atom = this.#atom();
      if (atom) parts.push(this.#repeated(atom));
    }
    return { kind: 'all', parts };
  }
  #repeated(part: Node): Node {
    const [min, max] = this.#counts() ?? [1, 1];
    if (min === 1 && max === 1) return part;
    if (this.#take('+')) throw new PatternError('a possessive repetition');
    this.#take('?'); // lazy or greedy: whether all of a text matches is the same
    if (this.#counts()) throw new PatternError('a repetition of a repetition');
    return { kind: 'repeat', part, min, max };
  }
  /** [least, most] of a repetition that stands here; null: there is none. */
  #counts(): readonly [number, number] | null {
    if (this.#take('*')) return [0, Infinity];
    if (this.#take('+')) return [1, Infinity];
    if (this.#take('?')) return [0, 1];
    // Anything else in braces is text.
    const braces = /^\{(\d*)(,?)(\d*)\}/.exec(this.text.slice(this.#at, this.#at + 40));
    if (!braces || braces[0] === '{}') return null;
    this.#at += braces[0].length;
    const min = Number(braces[1]),
      max = braces[2] === '' ? min : braces[3] === '' ? Infinity : Number(braces[3]);
    if (min > MAX_REPEAT || (max > MAX_REPEAT && max !== Infinity) || max < min)
      throw new PatternError(`the repetition ${braces[0]}`);
    return [min, max];
  }

  #atom(): Node | null {
    const c = this.#next();
    switch (c) {
      case '(':
        return this.#group();
      case '[':
        return this.#codes(this.#set());
      case '.':
        return { kind: 'codes', codes: (code) => code !== 10 };
      case '^':
        return { kind: 'place', holds: atStart };
      case '$':
        return { kind: 'place', holds: atEnd };
      case '\\':
        return this.#escape();
      case '*':
      case '+':
      case '?':
        throw new PatternError(`a ${c} that repeats nothing`);
      default:
        return this.#literal(c.charCodeAt(0));
    }
  }
  #group(): Node | null {
    if (!this.#take('?')) return this.#closed(this.#alternatives());
    for (const [mark, ahead, wanted] of [
      ['=', true, true],
      ['!', true, false],
      ['<=', false, true],
      ['<!', false, false],
    ] as const)
      if (this.#take(mark)) return this.#closed({ kind: 'look', part: this.#alternatives(), ahead, wanted });
    if (this.#take(':')) return this.#closed(this.#alternatives());
    if (this.#take('#')) {
      const end = this.text.indexOf(')', this.#at);
      if (end < 0) throw new PatternError('a comment without an end');
      this.#at = end + 1;
      return null;
    }
    const rest = this.text.slice(this.#at, this.#at + 100);
    const name = /^P<[A-Za-z_]\w*>/.exec(rest);
    if (name) {
      this.#at += name[0].length;
      return this.#closed(this.#alternatives());
    }
    const flags = /^([a-zA-Z]+):/.exec(rest);
    if (!flags) throw new PatternError(`the group (?${rest.slice(0, 2)}`);
    const before = this.#ignoreCase;
    this.#flags(flags[1] ?? '');
    this.#at += flags[0].length;
    const node = this.#closed(this.#alternatives());
    this.#ignoreCase = before;
    return node;
  }
  #closed(node: Node): Node {
    if (!this.#take(')')) throw new PatternError('a ( without )');
    return node;
  }
  #escape(): Node {
    const c = this.text[this.#at] ?? '';
    const holds = Object.hasOwn(PLACES, c) ? PLACES[c] : undefined;
    if (holds) {
      this.#at++;
      return { kind: 'place', holds };
    }
    const one = this.#escaped();
    return typeof one === 'number' ? this.#literal(one) : { kind: 'codes', codes: one };
  }
  /** What stands after a backslash: a character's code, or a class. */
  #escaped(): number | Codes {
    const c = this.#next();
    const known = Object.hasOwn(CLASSES, c) ? CLASSES[c] : undefined;
    if (known) return known;
    if (Object.hasOwn(CONTROLS, c)) return CONTROLS[c] ?? 0;
    const digits = { x: 2, u: 4 }[c];
    if (digits !== undefined) {
      const hex = this.text.slice(this.#at, this.#at + digits);
      if (hex.length !== digits || !/^[0-9a-fA-F]+$/.test(hex)) throw new PatternError(`the escape \\${c}${hex}`);
      this.#at += digits;
      return Number.parseInt(hex, 16);
    }
    if (/[0-9]/.test(c)) throw new PatternError(`the back reference \\${c}`);
    if (/[A-Za-z]/.test(c)) throw new PatternError(`the escape \\${c}`);
    return c.charCodeAt(0);
  }
  #set(): Codes {
    const wanted = !this.#take('^');
    const parts: Codes[] = [];
    for (let first = true; first || this.text[this.#at] !== ']'; first = false) {
      const c = this.#next();
      const from = c === '\\' ? this.#setEscape() : c.charCodeAt(0);
      if (typeof from !== 'number') {
        parts.push(from);
        continue;
      }
      let to = from;
      if (this.text[this.#at] === '-' && this.text[this.#at + 1] !== ']' && this.#at + 1 < this.text.length) {
        this.#at++;
        const d = this.#next();
        const end = d === '\\' ? this.#setEscape() : d.charCodeAt(0);
        if (typeof end !== 'number' || end < from) throw new PatternError('a range in [] that runs backwards');
        to = end;
      }
      parts.push((code) => code >= from && code <= to);
    }
    this.#at++;
    const any = this.#folded((code) => parts.some((p) => p(code)));
    return (code) => any(code) === wanted;
  }
  #setEscape(): number | Codes {
    if (this.text[this.#at] !== 'b') return this.#escaped();
    this.#at++;
    return 8;
  }
  #literal(code: number): Node {
    return this.#codes(this.#folded((c) => c === code));
  }
  #codes(codes: Codes): Node {
    return { kind: 'codes', codes };
  }
  #folded(codes: Codes): Codes {
    if (!this.#ignoreCase) return codes;
    const other = (c: number): number => (c >= 65 && c <= 90 ? c + 32 : c >= 97 && c <= 122 ? c - 32 : c);
    return (c) => codes(c) || codes(other(c));
  }
}

/** Lays a node out as steps, each going on to the next; `counted` bounds all of them together. */
function emit(node: Node, steps: Step[], counted: { steps: number }): void {
  if (++counted.steps > MAX_STEPS) throw new PatternError(`more than ${MAX_STEPS} steps`);
  switch (node.kind) {
    case 'codes':
      steps.push({ op: 'codes', codes: node.codes });
      return;
    case 'place':
      steps.push({ op: 'place', holds: node.holds });
      return;
    case 'all':
      for (const p of node.parts) emit(p, steps, counted);
      return;
    case 'any': {
      const leave: { to: number[] }[] = [];
      const choice = { op: 'split' as const, to: [] as number[] };
      steps.push(choice);
      for (const p of node.parts) {
        choice.to.push(steps.length);
        emit(p, steps, counted);
        const jump = { op: 'split' as const, to: [] as number[] };
        steps.push(jump);
        leave.push(jump);
      }
      for (const jump of leave) jump.to = [steps.length];
      return;
    }
    case 'repeat': {
      for (let i = 0; i < node.min; i++) emit(node.part, steps, counted);
      if (node.max === Infinity) {
        const loop = { op: 'split' as const, to: [] as number[] },
          at = steps.push(loop) - 1;
        emit(node.part, steps, counted);
        steps.push({ op: 'split', to: [at] });
        loop.to = [at + 1, steps.length];
        return;
      }
      const skips: { to: number[] }[] = [];
      for (let i = node.min; i < node.max; i++) {
        const skip = { op: 'split' as const, to: [] as number[] },
          at = steps.push(skip) - 1;
        skips.push(skip);
        skip.to = [at + 1];
        emit(node.part, steps, counted);
      }
      for (const skip of skips) skip.to.push(steps.length);
      return;
    }
    case 'look': {
      const inner: Step[] = [];
      emit(node.part, inner, counted);
      inner.push({ op: 'end' });
      steps.push({ op: 'look', inner, ahead: node.ahead, wanted: node.wanted });
      return;
    }
    default:
      node satisfies never;
  }
}

/** Answers of lookarounds at places of one text: each is found out once. */
type Looks = Map<readonly Step[], Map<number, boolean>>;

/** Whether `steps` match from `from` on: up to `to`, or, where that is null, up to anywhere. */
function run(steps: readonly Step[], text: string, from: number, to: number | null, looks: Looks): boolean {
  const seen = new Int32Array(steps.length).fill(-1);
  let found = false;
  const follow = (start: number, at: number, into: number[]): void => {
    const open = [start];
    for (let i = open.pop(); i !== undefined; i = open.pop()) {
      if (seen[i] === at) continue;
      seen[i] = at;
      const step = steps[i] as Step;
      if (step.op === 'end') found ||= to === null || at === to;
      else if (step.op === 'codes') into.push(i);
      else if (step.op === 'split') open.push(...step.to);
      else if (step.op === 'place' ? step.holds(text, at) : look(step, text, at, looks) === step.wanted)
        open.push(i + 1);
    }
  };
  let now: number[] = [];
  follow(0, from, now);
  for (let at = from; at < (to ?? text.length) && now.length > 0 && !(found && to === null); at++) {
    const code = text.charCodeAt(at),
      next: number[] = [];
    for (const i of now) {
      const step = steps[i] as Step;
      if (step.op === 'codes' && step.codes(code)) follow(i + 1, at + 1, next);
    }
    now = next;
  }
  return found;
}
function look(step: Step & { op: 'look' }, text: string, at: number, looks: Looks): boolean {
  const known = looks.get(step.inner) ?? new Map<number, boolean>();
  looks.set(step.inner, known);
  const before = known.get(at);
  if (before !== undefined) return before;
  let holds = false;
  if (step.ahead) holds = run(step.inner, text, at, null, looks);
  else for (let from = at; from >= 0 && !holds; from--) holds = run(step.inner, text, from, at, looks);
  known.set(at, holds);
  return holds;
}

/** @throws {PatternError} it is no pattern, or holds what cannot be followed here */
export function pythonPattern(pattern: string): PythonPattern {
  if (pattern.length > MAX_CHARACTERS) throw new PatternError(`more than ${MAX_CHARACTERS} characters`);
  const steps: Step[] = [],
    counted = { steps: 0 };
  emit(new Parser(pattern).parse(), steps, counted);
  steps.push({ op: 'end' });
  return { size: counted.steps, matches: (text) => run(steps, text, 0, text.length, new Map()) };
}
