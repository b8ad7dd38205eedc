// What a page shows of a run at a moment: words and numbers, no markup. The page puts them in as text.
import { formatRate, formatSeconds } from '../base/units.js';
import { type Chart, firstSmoothing } from '../report/plots.js';
import { COLUMN_NAMES, chartsOf, rowOf } from '../runs/curves.js';
import { type Fact, type Figure, factsOf, figuresOf, percent, short } from '../runs/summary.js';
import type { RunFollower, RunState } from './follow.js';

export interface View {
  readonly name: string;
  readonly about: string;
  readonly state: RunState;
  /** The state in a word, and what it means for the reader; '': nothing more. */
  readonly word: string;
  readonly detail: string;
  readonly step: number;
  /** null: nobody has said yet. */
  readonly steps: number | null;
  readonly left: string | null;
  readonly rate: string | null;
  /** When the last step was written, ms since 1970. */
  readonly lastAt: number | null;
  readonly figures: readonly Figure[];
  readonly facts: readonly Fact[];
  readonly charts: readonly Chart[];
  readonly smoothing: number;
  readonly columns: readonly string[];
  /** The points from this one on are these; those before stay as they were. */
  readonly from: number;
  readonly rows: readonly (readonly (number | null)[])[];
}

const WORDS: Readonly<Record<RunState, string>> = {
  waiting: 'waiting',
  preparing: 'preparing',
  running: 'running',
  stopped: 'stopped',
  failed: 'failed',
  done: 'done',
  gone: 'died',
  damaged: 'unreadable',
};

function detailOf({ state, run, record, checkpoints }: RunFollower): string {
  const last = checkpoints.at(-1);
  const kept = last === undefined ? 'There is no checkpoint' : `The checkpoint of step ${last} is whole`;
  switch (state) {
    case 'waiting':
      return `Nothing is in ${run} yet. The curves appear here when a training begins there.`;
    case 'preparing':
      return 'Rows are read and weights are loaded.';
    case 'gone':
      return `Whoever wrote to it is gone without a word. ${kept}; temper train RECIPE --resume goes on.`;
    case 'stopped':
      return `Stopped on request. ${kept}; temper train RECIPE --resume goes on.`;
    case 'failed':
      return `${record?.failure ?? 'The run ended with an error'}. ${kept}.`;
    case 'done':
      return record?.endedEarly === undefined ? '' : `Ended after step ${record.endedEarly}, by train.patience.`;
    case 'damaged':
      return `${run}/run.json is no record of a run.`;
    case 'running':
      return '';
    default:
      return state satisfies never;
  }
}

/** What the report does not show: where the run is now. */
function figuresNow(follower: RunFollower): readonly Figure[] {
  const { tally, checkpoints, record } = follower;
  const { last, evaluated, best } = tally;
  const checkpoint = checkpoints.at(-1);
  const bestStep = record?.best?.step ?? best?.step;
  return [
    ...(last ? ([[short(last.loss), `loss, step ${last.step}`]] as const) : []),
    ...(evaluated?.evalLoss === undefined || evaluated.step === bestStep
      ? []
      : ([[short(evaluated.evalLoss), `held-out loss, step ${evaluated.step}`]] as const)),
    ...(evaluated?.evalMatch === undefined || evaluated.step === bestStep
      ? []
      : ([[percent(evaluated.evalMatch), 'held-out answers token for token, then']] as const)),
    ...figuresOf(record, tally).filter(([, label]) => label !== 'steps'),
    ...(bestStep === undefined
      ? []
      : ([
          [`step ${bestStep}`, checkpoints.includes(bestStep) ? 'best checkpoint' : 'best so far, not yet saved'],
        ] as const)),
    ...(checkpoint === undefined ? [] : ([[`step ${checkpoint}`, 'last checkpoint']] as const)),
  ];
}

/** Seven digits are more than a curve shows. */
const rounded = (x: number | null): number | null => (x === null ? null : Number(x.toPrecision(7)));

/** @param from how many points whoever gets it has already, of the same generation */
export function viewOf(follower: RunFollower, from: number): View {
  const { record, tally, state, curves, secondsLeft: left, secondsPerStep: each } = follower;
  const { last } = tally;
  const running = state === 'running' && last !== null;
  return {
    name: follower.name,
    about: record?.about ?? '',
    state,
    word: WORDS[state],
    detail: detailOf(follower),
    step: last?.step ?? 0,
    steps: record?.steps ?? null,
    left: left === null || !Number.isFinite(left) ? null : formatSeconds(left),
    rate: running && each !== null ? `${formatRate(last.tokensPerSecond)} tokens/s` : null,
    lastAt: follower.lastAt,
    figures: tally.steps > 0 || record ? figuresNow(follower) : [],
    facts: record ? factsOf(record) : [],
    charts: chartsOf(curves.points),
    smoothing: firstSmoothing(curves.points.length),
    columns: COLUMN_NAMES,
    from,
    rows: curves.points.slice(from).map((m) => rowOf(m).map(rounded)),
  };
}
