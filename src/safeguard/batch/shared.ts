// Verdicts that runs share, on whatever machine they run. What comes from there is believed only where it is a verdict
// on the very thing that is asked: all digests are its own. What was judged here is put there, some at a time.
import { isDetectorVerdict } from '../detectors/index.js';
import type { KnownVerdict, Screen } from '../screen.js';
import type { Verdict } from '../types.js';
import { isSame, verdictIn } from './kept.js';
import type { ScreenRow } from './row.js';
import type { Asked } from './verdict-index.js';
import { verdictLine } from './verdict-line.js';

/** A verdict as it is kept: what it is on, and a line as the output has it. */
export interface SharedVerdict {
  readonly asked: Asked;
  readonly outcome: 'allow' | 'block';
  readonly line: string;
}
export interface SharedVerdicts {
  /** The lines on what is asked, in that order; null: there is none. */
  get(asked: readonly Asked[]): Promise<readonly (Pick<SharedVerdict, 'outcome' | 'line'> | null)[]>;
  put(verdicts: readonly SharedVerdict[]): Promise<void>;
}

/** Put at once. */
const AT_ONCE = 256;
export const placeIn = ({ policy, channel }: Pick<Verdict, 'policy' | 'channel'>): string => `${policy}\n${channel}`;
const nameOf = ({ policy, channel, digests }: Asked): string => JSON.stringify([policy, channel, digests]);

/** What goes on between one run and the verdicts that it shares. */
export class Sharing {
  /** Verdicts of others that this run used. */
  taken = 0;
  #found = new Map<string, Verdict>();
  #fresh: SharedVerdict[] = [];
  #isOff = false;
  constructor(
    readonly shared: SharedVerdicts,
    readonly onFailed: (error: unknown) => void,
  ) {}

  /** Asks for all that the rows need and this run has not. */
  async prepare(screen: Screen, rows: readonly ScreenRow[], kept: KnownVerdict): Promise<void> {
    const asked = new Map<string, Asked>();
    for (const row of rows)
      for (const one of row.bad ? [] : (screen.asks?.(row.channels) ?? []))
        if (!kept(one.policy, one.channel, one.digests)) asked.set(nameOf(one), one);
    const lines = await this.shared.get([...asked.values()]);
    this.#found = new Map();
    for (const [i, [name, one]] of [...asked].entries()) {
      const line = lines[i];
      const verdict = line ? verdictIn(line.line) : undefined;
      // Whoever keeps them may be wrong, or lie.
      if (line && verdict && verdict.outcome === line.outcome && isSame(one, verdict)) this.#found.set(name, verdict);
    }
  }
  find(asked: Asked): Verdict | undefined {
    if (this.#found.size === 0) return undefined;
    const verdict = this.#found.get(nameOf(asked));
    if (verdict) this.taken++;
    return verdict;
  }

  /** Takes a verdict of this run, if others may use it. */
  add(verdict: Verdict): void {
    const { outcome, policy, channel } = verdict;
    if (this.#isOff || outcome === 'unjudged' || isDetectorVerdict(verdict)) return;
    // Detectors look again: what they said is not kept.
    const { detectors: _, ...digests } = verdict.digests;
    const { detectors: __, ...own } = verdict;
    const asked = { policy, channel, digests };
    this.#fresh.push({ asked, outcome, line: verdictLine({ id: '', line: 0 }, { ...own, digests }) });
  }
  get isFull(): boolean {
    return this.#fresh.length >= AT_ONCE;
  }
  /** Never rejects: the verdicts stand in the output all the same. */
  async put(): Promise<void> {
    try {
      await this.shared.put(this.#fresh.splice(0));
    } catch (error) {
      this.#isOff = true;
      this.onFailed(error);
    }
  }
  async finish(): Promise<void> {
    if (this.#fresh.length > 0 && !this.#isOff) await this.put();
  }
}
