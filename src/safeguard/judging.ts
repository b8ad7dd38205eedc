// The judgement of one text under one policy: the text in windows, each window in its views, each view by so many
// votes. The strictest counts: a block anywhere is a block, and what has no verdict anywhere is not allowed.
import { sha256 } from '../base/digest.js';
import type { Asked, Asker, Manner } from './asking.js';
import { contractOf, judgeDigest } from './contracts/index.js';
import type { Series } from './series.js';
import type { Coverage, Judge, Policy } from './types.js';
import { VIEWS_VERSION, type View, type ViewName, viewsOf } from './views/index.js';
import { countVotes, decide, type Vote, type VoteCount, voteSettings } from './votes.js';
import { covered, DEFAULT_WINDOW, MIN_WINDOW, type Window, windowSize, windowsOf } from './windows.js';

export interface JudgingOptions {
  /** Votes on each text; absent: 1. */
  readonly votes?: number;
  /** `raw`: the text as it is alone. Absent: all views that differ. */
  readonly views?: 'raw' | 'all';
  /** Most characters of a window. */
  readonly window?: number;
  /** Tries after an answer that strayed from the contract; absent: 1. */
  readonly retries?: number;
}
/** What was found, and what of the text it stands on. */
export interface Judged extends Vote {
  readonly coverage: Coverage;
  readonly view?: ViewName;
  readonly votes?: VoteCount;
  readonly backend?: string;
  /** The judge answered at least once; all of its failures are such that nobody's call fares better. */
  readonly answered: boolean;
  readonly hopeless: boolean;
}

/** Raised when the same settings may give another verdict. */
const VERSION = 1;
export const MAX_VOTES = 15;

interface Part {
  readonly window: Window;
  readonly view: ViewName;
  readonly text: string;
}
type Mutable<T> = { -readonly [K in keyof T]: T[K] };
type PartVerdict = Vote & Pick<Judged, 'answered' | 'hopeless' | 'backend' | 'votes'>;

export class Judging {
  readonly #votes: number;
  readonly #views: 'raw' | 'all';
  readonly #window: number;
  #digest: string | undefined;
  readonly #judges = new Map<string, string>();
  constructor(
    readonly judge: Judge,
    readonly asker: Asker,
    readonly options: JudgingOptions,
  ) {
    this.#votes = Math.min(MAX_VOTES, Math.max(1, options.votes ?? 1));
    this.#views = options.views ?? 'all';
    this.#window = Math.max(MIN_WINDOW, options.window ?? DEFAULT_WINDOW);
  }

  /** sha256 over all that decides how a text is judged, but for policy, judge, contract and threshold, hex. */
  digest(): string {
    this.#digest ??= sha256(
      JSON.stringify([
        VERSION,
        this.#votes,
        this.#views === 'raw' ? 'raw' : VIEWS_VERSION,
        windowSize(this.#window),
        this.options.retries ?? 1,
        this.judge.contextTokens ?? null,
      ]),
    );
    return this.#digest;
  }

  /** Who judges, by how many votes: what thresholds are calibrated for. */
  judgeDigest(policy: Policy): string {
    const name = policy.contract ?? '';
    const known = this.#judges.get(name);
    if (known !== undefined) return known;
    const one = judgeDigest(this.judge.digest, policy.contract);
    const digest = this.#votes === 1 ? one : sha256(JSON.stringify([one, 'votes', this.#votes]));
    this.#judges.set(name, digest);
    return digest;
  }

  run(
    policy: Policy,
    channel: string,
    text: string,
    threshold: number | undefined,
    signal: AbortSignal | undefined,
    series?: Series,
  ): Promise<Judged> {
    const parts = this.judge.fits ? null : this.#parts(text);
    const only = parts?.length === 1 ? parts[0] : undefined;
    // As most are: nothing is waited for but the answer.
    if (parts && only && this.#votes === 1)
      return this.asker
        .ask(policy, channel, only.text, series ? { series } : STRAIGHT, signal)
        .then((asked) => combined(text, parts, [this.#counted([asked], threshold)]));
    return this.#runParts(policy, channel, text, threshold, signal, parts, series);
  }
  /** @param known null: the judge is to be asked what fits */
  async #runParts(
    policy: Policy,
    channel: string,
    text: string,
    threshold: number | undefined,
    signal: AbortSignal | undefined,
    known: readonly Part[] | null,
    series: Series | undefined,
  ): Promise<Judged> {
    const parts = known ?? (await this.#fitting(policy, channel, text, signal));
    const [only] = parts;
    if (only && parts.length === 1)
      return combined(text, parts, [await this.#vote(policy, channel, only.text, threshold, signal, series)]);
    // A block ends what comes after it in the order of the parts, so that the same block is told each time.
    const stops = parts.map(() => new AbortController());
    let first = parts.length;
    const verdicts = await Promise.all(
      parts.map(async (part, i) => {
        const stop = stops[i] as AbortController;
        const both = signal ? AbortSignal.any([signal, stop.signal]) : stop.signal;
        const verdict = await this.#vote(policy, channel, part.text, threshold, both, series);
        if (verdict.outcome === 'block' && i < first) {
          first = i;
          for (const later of stops.slice(i + 1)) later.abort();
        }
        return verdict;
      }),
    );
    return combined(text, parts, verdicts);
  }

  #viewsOf(text: string): readonly View[] {
    return this.#views === 'raw' ? [{ view: 'raw', text }] : viewsOf(text);
  }
  /** Windows and views to judge. */
  #parts(text: string): readonly Part[] {
    if (text.length <= this.#window) {
      const views = this.#viewsOf(text);
      if (views.length === 1) return [{ window: { from: 0, to: text.length }, view: 'raw', text }];
    }
    const size = windowSize(this.#window);
    return windowsOf(text, size).flatMap((window) => {
      const own = window.to - window.from === text.length ? text : text.slice(window.from, window.to);
      return this.#viewsOf(own).flatMap(({ view, text: seen }): readonly Part[] =>
        // What was decoded may be longer than what encoded it.
        view === 'raw'
          ? [{ window, view, text: seen }]
          : windowsOf(seen, size).map(({ from, to }) => ({ window, view, text: seen.slice(from, to) })),
      );
    });
  }
  /** The same, as much at once as the judge has room for. */
  async #fitting(
    policy: Policy,
    channel: string,
    text: string,
    signal: AbortSignal | undefined,
  ): Promise<readonly Part[]> {
    const parts: Part[] = [];
    for (const window of await this.#windows(policy, channel, text, signal)) {
      for (const { view, text: seen } of this.#viewsOf(text.slice(window.from, window.to))) {
        const inside =
          view === 'raw' ? [{ from: 0, to: seen.length }] : await this.#windows(policy, channel, seen, signal);
        for (const { from, to } of inside) parts.push({ window, view, text: seen.slice(from, to) });
      }
    }
    return parts;
  }

  async #windows(
    policy: Policy,
    channel: string,
    text: string,
    signal: AbortSignal | undefined,
  ): Promise<readonly Window[]> {
    const { fits } = this.judge;
    for (let size = Math.min(this.#window, Math.max(text.length, MIN_WINDOW)); ; ) {
      const windows = windowsOf(text, windowSize(size));
      if (!fits) return windows;
      const { contract } = policy;
      const each = await Promise.all(
        windows.map(({ from, to }) =>
          fits.call(
            this.judge,
            { policy: policy.text, content: text.slice(from, to), channel, ...(contract ? { contract } : {}) },
            signal ?? new AbortController().signal,
          ),
        ),
      ).catch(() => null);
      // Who cannot tell is asked, and says what is wrong.
      if (each === null || each.every(Boolean)) return windows;
      // Not even little ones: the judge says by how much.
      if (size <= MIN_WINDOW) return windowsOf(text, windowSize(text.length));
      size = Math.max(MIN_WINDOW, Math.floor(size * 0.7));
    }
  }

  async #vote(
    policy: Policy,
    channel: string,
    text: string,
    threshold: number | undefined,
    signal: AbortSignal | undefined,
    series: Series | undefined,
  ): Promise<PartVerdict> {
    const straight = series ? { series } : STRAIGHT;
    if (this.#votes === 1)
      return this.#counted([await this.asker.ask(policy, channel, text, straight, signal)], threshold);
    const swaps = contractOf(policy.contract).swaps(policy.text);
    const votes = Array.from({ length: this.#votes }, (_, i) =>
      this.asker.ask(policy, channel, text, { ...straight, ...mannerOf(i, swaps) }, signal),
    );
    return this.#counted(await Promise.all(votes), threshold);
  }
  #counted(asked: readonly Asked[], threshold: number | undefined): PartVerdict {
    const { outcome, rule, rationale, cause, detail, score } = decide(asked, threshold);
    const verdict: Mutable<PartVerdict> = {
      outcome,
      rule,
      rationale,
      cause,
      detail,
      answered: asked.some((a) => a.answered),
      hopeless: asked.every((a) => a.hopeless),
    };
    if (score !== undefined) verdict.score = score;
    const backends = asked.length === 1 ? asked[0]?.backend : namesOf(asked);
    if (backends !== undefined) verdict.backend = backends;
    if (this.#votes > 1) verdict.votes = countVotes(asked);
    return verdict;
  }
}

/** The backends that answered; undefined: none told its name. */
function namesOf(asked: readonly Asked[]): string | undefined {
  const backends = new Set(asked.flatMap((a) => a.backend ?? []));
  return backends.size > 0 ? [...backends].join(', ') : undefined;
}
const STRAIGHT: Manner = {};
function mannerOf(index: number, swaps: boolean): Manner {
  const { swapped, temperature, seed } = voteSettings(index, swaps);
  return { ...(swapped ? { swapped } : {}), ...(temperature > 0 ? { sampling: { temperature, seed } } : {}) };
}

const severity = { block: 0, unjudged: 1, allow: 2 } as const;
function combined(text: string, parts: readonly Part[], verdicts: readonly PartVerdict[]): Judged {
  const at = verdicts.reduce(
    (best, v, i) => (severity[v.outcome] < severity[(verdicts[best] as PartVerdict).outcome] ? i : best),
    0,
  );
  const { outcome, rule, rationale, cause, detail, votes, backend } = verdicts[at] as PartVerdict;
  const part = parts[at] as Part;
  const windows = parts.length === 1 ? 1 : new Set(parts.map((p) => p.window)).size;
  const where = outcome === 'unjudged' && parts.length > 1 ? ` (${placeOf(part, windows)})` : '';
  const judged: Mutable<Judged> = {
    outcome,
    rule,
    rationale,
    cause,
    detail: detail + where,
    coverage: coverageOf(text, parts, verdicts, windows),
    answered: verdicts.some((v) => v.answered),
    hopeless: verdicts.every((v) => v.hopeless),
  };
  for (const { score } of verdicts)
    if (score !== undefined && !(judged.score !== undefined && judged.score >= score)) judged.score = score;
  if (part.view !== 'raw') judged.view = part.view;
  if (votes) judged.votes = votes;
  if (backend !== undefined) judged.backend = backend;
  return judged;
}
const RAW: readonly ViewName[] = ['raw'];
function coverageOf(text: string, parts: readonly Part[], verdicts: readonly PartVerdict[], windows: number): Coverage {
  const characters = text.length;
  if (parts.length === 1)
    return { characters, judged: verdicts[0]?.outcome === 'unjudged' ? 0 : characters, windows, views: RAW };
  const judged = parts.filter((p, i) => p.view === 'raw' && verdicts[i]?.outcome !== 'unjudged').map((p) => p.window);
  return { characters, judged: covered(judged), windows, views: [...new Set(parts.map((p) => p.view))] };
}
const placeOf = ({ window, view }: Part, windows: number): string =>
  [windows > 1 ? `characters ${window.from} to ${window.to}` : '', view === 'raw' ? '' : `view ${view}`]
    .filter((t) => t !== '')
    .join(', ');
