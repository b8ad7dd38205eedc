// What is said of a run in figures and facts, once for the report and for whoever watches it.
import { formatBytes } from '../base/units.js';
import type { StepMetrics } from './metrics.js';
import type { RunRecord } from './run-folder.js';

export type Figure = readonly [value: string, label: string];
/** A row of "what determines this run"; code is set in another face. */
export interface Fact {
  readonly name: string;
  readonly parts: readonly { readonly text: string; readonly code?: boolean }[];
}

export const short = (n: number): string =>
  Number.isFinite(n)
    ? Math.abs(n) >= 1e6
      ? `${(n / 1e6).toFixed(2)} M`
      : Math.abs(n) >= 1e4
        ? `${(n / 1e3).toFixed(1)} k`
        : n.toPrecision(4)
    : '–';
const mean = (xs: readonly number[]): number => (xs.length ? xs.reduce((a, b) => a + b, 0) / xs.length : Number.NaN);

/** Sums over the steps of a run, as they come: 8 bytes a step are kept. */
export class Tally {
  readonly losses: number[] = [];
  tokens = 0;
  seconds = 0;
  peakBytes = 0;
  last: StepMetrics | null = null;
  /** The evaluation with the lowest loss, and the last one. */
  best: StepMetrics | null = null;
  evaluated: StepMetrics | null = null;

  add(m: StepMetrics): void {
    this.losses.push(m.loss);
    this.tokens += m.tokens;
    this.seconds += m.tokens / m.tokensPerSecond;
    this.peakBytes = Math.max(this.peakBytes, m.peakBytes);
    this.last = m;
    if (m.evalLoss === undefined) return;
    this.evaluated = m;
    if (this.best === null || m.evalLoss < (this.best.evalLoss ?? Infinity)) this.best = m;
  }
  get steps(): number {
    return this.losses.length;
  }
  /** Mean loss of the last tenth of the steps. */
  get lastLoss(): number {
    return mean(this.losses.slice(-Math.max(1, Math.round(this.steps / 10))));
  }
}

export const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;

/** @param run null: it has no record yet */
export function figuresOf(run: RunRecord | null, tally: Tally): readonly Figure[] {
  const best = run?.best ?? tally.best;
  return [
    [short(tally.losses[0] ?? Number.NaN), 'first loss'],
    [short(tally.lastLoss), 'loss, mean of the last tenth'],
    [run ? `${tally.steps} / ${run.steps}` : `${tally.steps}`, 'steps'],
    [short(tally.tokens), 'tokens'],
    [short(tally.tokens / tally.seconds), 'tokens per second'],
    ...(best?.evalLoss === undefined
      ? []
      : ([[short(best.evalLoss), `best held-out loss, step ${best.step}`]] as const)),
    ...(best?.evalMatch === undefined
      ? []
      : ([[percent(best.evalMatch), 'held-out answers token for token, there']] as const)),
    ...(best?.evalAccuracy === undefined
      ? []
      : ([[percent(best.evalAccuracy), 'held-out pairs preferred, there']] as const)),
    [formatBytes(tally.peakBytes), 'peak memory'],
    ...(run ? ([[short(run.trainedParameters), 'trained parameters']] as const) : []),
  ];
}

/** What the run can be made again from. */
export function factsOf(run: RunRecord): readonly Fact[] {
  const plain = (name: string, text: string | number): Fact => ({ name, parts: [{ text: String(text) }] });
  const code = (name: string, text: string): Fact => ({ name, parts: [{ text, code: true }] });
  const data = run.data.map((d): Fact => {
    const untrained = d.untrainedRows ? `, ${d.untrainedRows} rows with nothing to train` : '';
    const dropped = d.dropped ? `, ${d.dropped} too long and dropped` : '';
    const long = `${dropped}${d.truncated ? `, ${d.truncated} cut` : ''}`;
    const counts = `${d.rows} rows, ${d.tokens} tokens, ${d.trainedTokens} trained${untrained}${long}`;
    return { name: d.file, parts: [{ text: `${counts}; ${d.format}; ` }, { text: d.sha256, code: true }] };
  });
  const extended = (run.earlier ?? [])
    .filter((e) => e.steps !== run.steps)
    .map(
      (e) =>
        `from ${e.steps} steps after ` +
        `${e.done}${e.exact ? '' : '; not the bits of a run that had all steps from the start'}`,
    );
  const versions = Object.entries(run.versions).map(([k, v]) => `${k} ${v}`);
  return [
    ...(extended.length > 0 ? [plain('extended', extended.join('; '))] : []),
    ...(run.endedEarly === undefined
      ? []
      : [plain('ended early', `after step ${run.endedEarly} of ${run.steps}, by train.patience`)]),
    plain('method', run.method),
    plain('seed', run.seed),
    code('recipe', run.digests.recipe),
    code('base', run.digests.base),
    ...(run.digests.tokenizer === '' ? [] : [code('tokenizer', run.digests.tokenizer)]),
    code('data', run.digests.data),
    ...data,
    plain('versions', versions.join(', ')),
    plain('machine', `${run.machine.isa}, ${run.machine.threads} threads`),
  ];
}
