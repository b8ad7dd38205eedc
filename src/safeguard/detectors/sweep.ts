// One sweep over a text, in pieces as they come. What is found at a place depends on LOOK_BACK characters before it and
// LOOK_AHEAD after it, and on state that goes on from character to character, never on where pieces end: a stream has
// the findings of the whole text, however it was cut.
import { decodings } from './decode.js';
import {
  type Detector,
  type DetectorSettings,
  type Feed,
  type Finding,
  type Gate,
  isDigitCode,
  LOOK_AHEAD,
  LOOK_BACK,
  MIN_TOKEN,
  PAIRS,
  pairOf,
  type Report,
  type View,
} from './detector.js';
import { disguises, foldText, isAtHome, isOdd, oddities } from './fold.js';

/** Classes of characters; letters and what else is of no interest by itself have none. */
const DIGIT = 1,
  BREAK = 2,
  TRIGGER = 4,
  STRANGE = 8;
const UNITS = 1 << 16;
/** A run of base64 is decoded in pieces of this many characters, each with the end of the one before. */
const SEGMENT = 4096,
  OVERLAP = 1024;
/** What is around a character in disguise is folded with it. */
const FOLD_BEFORE = LOOK_BACK,
  FOLD_AFTER = LOOK_AHEAD,
  FOLD_MOST = 16384;
/** Text behind base64 behind base64 is looked at, and no deeper. */
const MAX_DEPTH = 2;
/** Lines of encoded text go on in the next one. */
const MIN_LINE = 60;
/** Kept of each detector; the rest is counted. */
export const MAX_FINDINGS = 32;
/** After a strange character so many are looked at one by one. */
const FAR = 64;
/** Little pieces wait for company. */
const PIECE = 4096;

interface Call {
  readonly call: (text: string, i: number, report: Report) => void;
  readonly detector: number;
}
interface TriggerCall extends Call {
  /** Null: at each. */
  readonly gate: Required<Gate> | null;
}
interface TokenCall {
  readonly call: (text: string, from: number, to: number, report: Report) => void;
  readonly detector: number;
}
interface FeedPlan {
  readonly detector: number;
  readonly least: number;
  start(): Feed | null;
  /** For texts that are there as a whole, one after another: made once. */
  readonly whole: Feed | null;
}
const [NO_PAIR, NO_CHAR] = [new Uint8Array(PAIRS), new Uint8Array(128)];
const gateFor = (gate: Gate | undefined): Required<Gate> | null =>
  gate ? { after: gate.after ?? NO_PAIR, next: gate.next ?? NO_CHAR, run: gate.run ?? Number.MAX_SAFE_INTEGER } : null;

/** Detectors, ready to be called at what they asked for. */
export interface Plan {
  readonly detectors: readonly Detector[];
  readonly enabled: readonly ReadonlySet<string>[];
  readonly settings: DetectorSettings;
  /** By UTF-16 unit. */
  readonly classes: Uint8Array;
  /** By ASCII character. */
  readonly at: readonly (readonly TriggerCall[])[];
  readonly digits: readonly Call[];
  readonly tokens: readonly TokenCall[];
  readonly odd: readonly Call[];
  /** Detectors that go over every character, and how long a text must be for them to find anything. */
  readonly feeds: readonly FeedPlan[];
  /** Passes over what is of no interest eight characters at a time; without, a test sees that nothing is lost by it. */
  readonly skips: boolean;
  /** One for each depth, as none calls another one of its own. */
  readonly sweeps: Sweep[];
}

export function planOf(
  detectors: readonly Detector[],
  enabled: readonly ReadonlySet<string>[],
  settings: DetectorSettings,
): Plan {
  const kinds = oddities();
  const classes = new Uint8Array(UNITS);
  for (let c = 128; c < UNITS; c++) classes[c] = kinds[c] === 0 ? BREAK : BREAK | STRANGE;
  const at: TriggerCall[][] = Array.from({ length: 128 }, () => []);
  for (let c = 0; c < 128; c++) {
    const char = String.fromCharCode(c);
    if (isDigitCode(c)) classes[c] = DIGIT;
    else if (!/[A-Za-z+/_-]/.test(char)) classes[c] = BREAK;
    if (isOdd(kinds[c] as number)) classes[c] = BREAK | STRANGE;
    for (const [detector, d] of detectors.entries())
      if (d.at && d.triggers?.includes(char)) {
        classes[c] = (classes[c] as number) | TRIGGER;
        at[c]?.push({ call: d.at, detector, gate: gateFor(d.gates?.[char]) });
      }
  }
  return {
    detectors,
    enabled,
    settings,
    classes,
    at,
    odd: detectors.flatMap((d, detector): Call[] => (d.odd ? [{ call: d.odd, detector }] : [])),
    digits: detectors.flatMap((d, detector): Call[] => (d.digits ? [{ call: d.digits, detector }] : [])),
    tokens: detectors.flatMap((d, detector): TokenCall[] => (d.token ? [{ call: d.token, detector }] : [])),
    feeds: detectors.flatMap(({ start, least = 0 }, detector) =>
      start ? [{ detector, least, start: () => start(settings), whole: start(settings) }] : [],
    ),
    skips: true,
    sweeps: [],
  };
}

/** Found in the text itself: in the order of the text, whatever came with which piece. */
const isPlain = (view: View): boolean => view === 'raw' || view === 'rot13';

/** What was found: of each detector the first few of the text itself, and of each other view one a rule. */
export class Findings {
  readonly lists: Finding[][];
  readonly counts: number[];
  readonly inside: (Map<string, Finding> | undefined)[];
  constructor(readonly plan: Plan) {
    this.lists = plan.detectors.map(() => []);
    this.counts = plan.detectors.map(() => 0);
    this.inside = plan.detectors.map(() => undefined);
  }
  add(n: number, rule: string, view: View, from: number, to: number): void {
    if (!this.plan.enabled[n]?.has(rule)) return;
    const finding = { detector: this.plan.detectors[n]?.name ?? '', rule, view, from, to };
    if (isPlain(view)) {
      this.counts[n] = (this.counts[n] as number) + 1;
      const list = this.lists[n] as Finding[];
      if (list.length < MAX_FINDINGS) list.push(finding);
      return;
    }
    // Pieces that are made plain come in any order, and overlap.
    const inside = this.inside[n] ?? new Map<string, Finding>();
    this.inside[n] = inside;
    const key = `${rule} ${view}`;
    const known = inside.get(key);
    if (!known || from < known.from || (from === known.from && to < known.to)) inside.set(key, finding);
  }
  isEmpty(n: number): boolean {
    return this.counts[n] === 0 && this.inside[n] === undefined;
  }
  copy(): Findings {
    const copy = new Findings(this.plan);
    for (const n of this.lists.keys()) {
      copy.lists[n] = [...(this.lists[n] as Finding[])];
      copy.counts[n] = this.counts[n] as number;
      copy.inside[n] = this.inside[n] && new Map(this.inside[n]);
    }
    return copy;
  }
  /** In the order of the text. What was folded around a find of the text itself is not told twice. */
  of(n: number): readonly Finding[] {
    const plain = this.lists[n] as Finding[];
    const others = [...(this.inside[n]?.values() ?? [])].filter(
      (f) => f.view !== 'folded' || !plain.some((p) => p.rule === f.rule && p.from >= f.from && p.to <= f.to),
    );
    return [...plain, ...others].sort(
      (a, b) => a.from - b.from || a.to - b.to || Number(a.rule > b.rule) - Number(a.rule < b.rule),
    );
  }
}

/** A sweep reads units from memory, a block at a time: a string says where its characters are each time it is asked. */
const BLOCK = 8192;
interface Block {
  readonly bytes: Buffer;
  readonly units: Uint16Array;
}
/** One for each depth, as a sweep calls those inside. */
const BLOCKS: readonly Block[] = Array.from({ length: MAX_DEPTH + 1 }, () => {
  const units = new Uint16Array(BLOCK + 2);
  return { units, bytes: Buffer.from(units.buffer) };
});

/** Where a sweep is; offsets in its text. */
interface Place {
  /** The next character to look at. */
  next: number;
  /** Where the run of token characters began that goes on. */
  run: number;
  /** Where the encoded text began that goes on, over ends of lines, and what of it is to be decoded next. */
  coded: number;
  segment: number;
  /** Where the text begins that is to be folded, and where it ends so far; -1: there is none. */
  foldFrom: number;
  foldTo: number;
}
const begin = (): Place => ({ next: 0, run: 0, coded: 0, segment: 0, foldFrom: -1, foldTo: -1 });

/** Gets what was found, by the number of its detector. */
type Sink = (detector: number, rule: string, from: number, to: number, view: View) => void;
/** Goes over a text that is there as a whole. */
function sweepOver(plan: Plan, depth: number, text: string, sink: Sink): void {
  const sweep = plan.sweeps[depth] ?? new Sweep(plan, depth, sink);
  plan.sweeps[depth] = sweep;
  sweep.sink = sink;
  sweep.place = begin();
  sweep.go(text, text.length, true);
}

/** A text that is there as a whole, or as much of one as has come. */
class Sweep {
  place: Place = begin();
  readonly #reports: readonly Report[];
  constructor(
    readonly plan: Plan,
    readonly depth: number,
    public sink: Sink,
  ) {
    this.#reports = plan.detectors.map(
      (_, n): Report =>
        (rule, from, to, view = 'raw') =>
          this.sink(n, rule, from, to, view),
    );
  }

  /** Looks at all before `to`. @param last the text ends where `text` does */
  go(text: string, to: number, last: boolean): void {
    const { plan, place } = this;
    const { classes, at, digits, skips } = plan;
    const kinds = oddities();
    const reports = this.#reports;
    const { bytes, units } = BLOCKS[this.depth] as Block;
    let { run } = place;
    // Encoded text goes on from a line before.
    let goesOn = place.coded !== run;
    for (let start = place.next; start < to; start += BLOCK) {
      const count = Math.min(BLOCK, to - start);
      // With the two characters before it.
      const early = Math.min(2, start);
      bytes.write(text.slice(start - early, start + count), 4 - 2 * early, 'utf16le');
      if (early < 2) units.fill(0, 0, 2 - early);
      for (let j = 2, near = 2; j < count + 2; j++) {
        // Eight at a time are passed over that are letters, or end runs that are of no length to be a token.
        while (skips && j >= near && j <= count - 6) {
          const a = classes[units[j] as number] as number,
            b = classes[units[j + 1] as number] as number,
            c = classes[units[j + 2] as number] as number,
            d = classes[units[j + 3] as number] as number,
            e = classes[units[j + 4] as number] as number,
            f = classes[units[j + 5] as number] as number,
            g = classes[units[j + 6] as number] as number,
            h = classes[units[j + 7] as number] as number;
          const any = a | b | c | d | e | f | g | h;
          const first = start + j - 2;
          if (any === BREAK && !goesOn && first - run < MIN_TOKEN - 7) {
            const ends = a | (b << 1) | (c << 2) | (d << 3) | (e << 4) | (f << 5) | (g << 6) | (h << 7);
            // BREAK is the second bit: the highest one set is the number of the last end, counted from one.
            run = first + 31 - Math.clz32(ends);
          } else if (any !== 0) {
            // Where a script is strange it stays so for a while.
            near = j + ((any & STRANGE) === 0 ? 8 : FAR);
            break;
          }
          j += 8;
        }
        if (j >= count + 2) break;
        const c = units[j] as number;
        const k = classes[c] as number;
        if (k === 0) continue;
        const i = start + j - 2;
        if (k === DIGIT) {
          if ((classes[units[j - 1] as number] as number) !== DIGIT)
            for (let n = 0; n < digits.length; n++) {
              const one = digits[n] as Call;
              one.call(text, i, reports[one.detector] as Report);
            }
          continue;
        }
        const began = run;
        if ((k & BREAK) !== 0) {
          if (i - run >= MIN_TOKEN || goesOn) {
            place.run = run;
            // A run that began in this piece; of one that went on some may be decoded.
            if (!goesOn && run > place.coded) place.coded = place.segment = run;
            this.#ends(text, i, c);
            goesOn = place.coded !== place.run;
          }
          run = i + 1;
          if ((k & STRANGE) !== 0) {
            const kind = kinds[c] as number;
            if (kind !== 0 && !isAtHome(kind, text, i)) this.#strange(text, i, kind);
            continue;
          }
        }
        if ((k & TRIGGER) !== 0) {
          const calls = at[c] as readonly TriggerCall[];
          for (let n = 0; n < calls.length; n++) {
            const { gate, call, detector } = calls[n] as TriggerCall;
            if (
              gate === null ||
              gate.after[pairOf(units[j - 2] as number, units[j - 1] as number)] === 1 ||
              gate.next[text.charCodeAt(i + 1) & 127] === 1 ||
              i - began >= gate.run
            )
              call(text, i, reports[detector] as Report);
          }
        }
      }
    }
    place.next = Math.max(to, place.next);
    if (!goesOn && run > place.coded) place.coded = place.segment = run;
    place.run = run;
    this.#decodeTo(text, place.next, false);
    if (place.foldFrom >= 0) this.#foldTo(text, place.next, last);
    if (!last) return;
    this.#token(text, place.next);
    this.#decodeTo(text, place.next, true);
  }

  #token(text: string, end: number): void {
    const { run } = this.place;
    if (end - run < MIN_TOKEN || end - run > LOOK_AHEAD) return;
    for (const { call, detector } of this.plan.tokens) call(text, run, end, this.#reports[detector] as Report);
  }

  /** A run of token characters ends before `i`, and the encoded text with it unless that goes on in the next line. */
  #ends(text: string, i: number, c: number): void {
    const { place } = this;
    this.#token(text, i);
    const goesOn =
      c === 10 && text.charCodeAt(i - 1) === 13
        ? place.coded < place.run // the carriage return decided
        : (c === 10 || c === 13) && i - place.run >= MIN_LINE && this.#codedAt(text, i + (c === 13 ? 2 : 1));
    if (!goesOn) this.#decodeTo(text, i, true);
    place.run = i + 1;
    if (!goesOn) place.coded = place.segment = i + 1;
  }
  #codedAt(text: string, i: number): boolean {
    const c = text.charCodeAt(i);
    return c < 128 && ((this.plan.classes[c] as number) & BREAK) === 0;
  }

  /** Decodes what is complete of the encoded text that goes on, or the rest of it where it ends. */
  #decodeTo(text: string, end: number, closed: boolean): void {
    const { place } = this;
    if (this.depth >= MAX_DEPTH) return;
    while (end - place.segment >= SEGMENT) {
      this.#decode(text, place.segment, place.segment + SEGMENT);
      place.segment += SEGMENT - OVERLAP;
    }
    if (closed && end - place.segment >= MIN_TOKEN) this.#decode(text, place.segment, end);
  }
  #decode(text: string, from: number, to: number): void {
    for (const { text: inner, view } of decodings(text, from, to)) this.#inside(inner, view, from, to);
  }

  #strange(text: string, i: number, kind: number): void {
    if (isOdd(kind) && this.depth === 0)
      for (const { call, detector } of this.plan.odd) call(text, i, this.#reports[detector] as Report);
    if (this.depth > 0 || !disguises(kind, text, i)) return;
    const { place } = this;
    if (place.foldFrom >= 0 && i - FOLD_BEFORE > place.foldTo) this.#foldTo(text, i, true);
    if (place.foldFrom < 0) place.foldFrom = Math.max(0, i - FOLD_BEFORE);
    place.foldTo = i + FOLD_AFTER;
  }
  /** Folds what is complete of the text that is to be folded, up to `seen`. */
  #foldTo(text: string, seen: number, last: boolean): void {
    const { place } = this;
    while (Math.min(seen, place.foldTo) - place.foldFrom >= FOLD_MOST) {
      this.#fold(text, place.foldFrom, place.foldFrom + FOLD_MOST);
      place.foldFrom += FOLD_MOST - FOLD_BEFORE - FOLD_AFTER;
    }
    if (!last && seen - FOLD_BEFORE <= place.foldTo) return;
    this.#fold(text, place.foldFrom, Math.min(text.length, place.foldTo));
    place.foldFrom = -1;
  }
  #fold(text: string, from: number, to: number): void {
    const piece = text.slice(from, to);
    const folded = foldText(piece);
    if (folded !== piece) this.#inside(folded, 'folded', from, to);
  }

  #inside(text: string, view: View, from: number, to: number): void {
    const { plan, sink } = this;
    sweepOver(plan, this.depth + 1, text, (d, rule, _from, _to, innerView) => {
      if (plan.detectors[d]?.rawOnly) return;
      sink(d, rule, from, to, view === 'folded' && !isPlain(innerView) ? innerView : view);
    });
    for (const { detector, least, whole } of plan.feeds) {
      if (!whole || text.length < least || plan.detectors[detector]?.rawOnly) continue;
      whole.begin();
      whole.feed(text, 0, text.length, (rule) => sink(detector, rule, from, to, view));
    }
  }
}

/** What there is to find in a text that is there as a whole; null: nothing. */
export function findingsIn(plan: Plan, text: string): Findings | null {
  // Most texts hold nothing, and many are short.
  let findings: Findings | null = null;
  const sink: Sink = (n, rule, from, to, view) => {
    findings ??= new Findings(plan);
    findings.add(n, rule, view, from, to);
  };
  for (const { detector, least, whole } of plan.feeds) {
    if (!whole || text.length < least) continue;
    whole.begin();
    whole.feed(text, 0, text.length, (rule, from, to, view = 'raw') => sink(detector, rule, from, to, view));
  }
  sweepOver(plan, 0, text, sink);
  return findings;
}

/** The detectors' look at one text: `push` as it comes, `found` at any time, `end` once. */
export class TextScan {
  #text = '';
  /** Characters before `#text`. */
  #base = 0;
  #sweep: Sweep;
  #fed = 0;
  #findings: Findings;
  readonly #feeds: readonly (readonly [Feed, number])[];
  constructor(readonly plan: Plan) {
    this.#findings = new Findings(plan);
    this.#sweep = this.#sweeper(this.#findings);
    this.#feeds = plan.feeds.flatMap(({ detector, start }) => {
      const feed = start();
      return feed ? [[feed, detector] as const] : [];
    });
  }
  #sweeper(findings: Findings): Sweep {
    return new Sweep(this.plan, 0, (n, rule, from, to, view) =>
      findings.add(n, rule, view, from + this.#base, to + this.#base),
    );
  }

  push(piece: string): void {
    this.#text += piece;
    if (this.#text.length - this.#sweep.place.next < LOOK_AHEAD + PIECE) return;
    this.#feed();
    this.#sweep.go(this.#text, this.#text.length - LOOK_AHEAD, false);
    this.#forget();
  }
  #feed(): void {
    const text = this.#text;
    for (const [feed, n] of this.#feeds)
      feed.feed(text, this.#fed, text.length, (rule, from, to, view = 'raw') =>
        this.#findings.add(n, rule, view, from + this.#base, to + this.#base),
      );
    this.#fed = text.length;
  }
  /** Lets go of text that nothing will look at again. */
  #forget(): void {
    const { place } = this.#sweep;
    const open = [place.next - LOOK_BACK, place.segment, place.foldFrom < 0 ? place.next : place.foldFrom];
    // A token longer than LOOK_AHEAD is none: only that it is longer need be known.
    const keep = Math.min(...open, Math.max(place.run, place.next - LOOK_AHEAD - 1));
    if (keep < PIECE) return;
    this.#text = this.#text.slice(keep);
    this.#base += keep;
    this.#fed -= keep;
    const shift = (at: number): number => at - keep;
    this.#sweep.place = {
      next: shift(place.next),
      run: shift(place.run),
      coded: shift(place.coded),
      segment: shift(place.segment),
      foldFrom: place.foldFrom < 0 ? -1 : shift(place.foldFrom),
      foldTo: shift(place.foldTo),
    };
  }

  /** What there is to find if the text ends here. */
  found(): Findings {
    this.#feed();
    const findings = this.#findings.copy();
    const sweep = this.#sweeper(findings);
    sweep.place = { ...this.#sweep.place };
    sweep.go(this.#text, this.#text.length, true);
    return findings;
  }
}
