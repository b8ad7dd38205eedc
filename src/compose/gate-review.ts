// Judged pairs that differ, before people: each arm's answer is an item of the review console, without its arm's name,
// and what people say of all arms of a pair is a label of the gate.
import { ConfigError } from '../base/errors.js';
import type { Cell, PairCells, Said } from '../gate/cells.js';
import { digestsOf } from '../gate/cells.js';
import { type AskedPair, type PairsRequest, pairsOnFiles } from '../gate/deciding.js';
import { ARMS, type Arm, type Label } from '../gate/outcomes.js';
import type { Metric } from '../gate/suite.js';
import type { ContextMessage, HeldItem, HeldVerdict } from '../store/review-types.js';
import { type Words, wordsOn } from '../store/review-words.js';
import { Reviews } from '../store/reviews.js';
import { openStore, type Store } from '../store/store.js';

export interface AskRequest extends PairsRequest {
  /** A file of SQLite, or postgres://USER@HOST/DATABASE. */
  readonly store: string;
  /** Two people must say the same of each answer. */
  readonly twoPersons?: boolean | undefined;
}
export interface Asked {
  /** Pairs that differ. */
  readonly pairs: number;
  /** Answers that were put into the queue, and those that were there. */
  readonly asked: number;
  readonly there: number;
  /** Pairs that nobody can be shown: no texts, or no row of an arm. */
  readonly mute: number;
}
/** Whose golden rows these are not. */
const POLICY = 'gate:';

const requestOf = ({ digest }: Cell): string => `gate_${digest.replace('sha256:', '')}`;
/** Cells by arm, in the order of the arms; null: one of them cannot be shown. */
function shownOf({ pair, cells }: AskedPair): readonly (readonly [Arm, Cell])[] | null {
  const wanted = ARMS.filter((arm) => arm !== 'merged' || pair.merged !== undefined);
  const shown = wanted.flatMap((arm): (readonly [Arm, Cell])[] => {
    const cell = cells[arm];
    return cell?.said ? [[arm, cell]] : [];
  });
  return shown.length === wanted.length ? shown : null;
}
const textOf = (said: Said): string =>
  said.flatMap((turn) => Object.entries(turn).map(([channel, text]) => `[${channel}]\n${text}`)).join('\n\n');
const messagesOf = (role: string, said: Said): readonly ContextMessage[] =>
  said.flatMap((turn) => Object.entries(turn).map(([channel, content]) => ({ role, channel, content })));

/** 1 where that is bad: what a rejected answer counts as. */
const badValue = ({ direction }: Metric): 0 | 1 => (direction === 'lower' ? 1 : 0);
function verdictOf({ pair, metric }: AskedPair, cell: Cell): HeldVerdict {
  const { metric: name, slice, prompt, sample } = pair;
  const outcome = cell.value === null ? 'unjudged' : cell.value === badValue(metric) ? 'block' : 'allow';
  return {
    policy: `${POLICY}${name}`,
    digest: cell.policy ?? '',
    outcome,
    rule: outcome === 'block' ? cell.rule : null,
    cause: outcome === 'unjudged' ? (cell.cause ?? 'unknown') : null,
    rationale:
      `Release gate, metric ${name}${slice === null ? '' : `, slice ${slice}`}, prompt ${prompt}, sample ${sample}; ` +
      `outcome ${cell.digest}.`,
  };
}
function itemOf(asked: AskedPair, cell: Cell, others: readonly Cell[]): HeldItem {
  return {
    request: requestOf(cell),
    owner: null,
    model: 'release gate',
    channel: 'answer',
    content: textOf(cell.said ?? []),
    context: [
      { role: 'asked', content: cell.asked ?? '' },
      ...others.flatMap((other) => messagesOf('another answer', other.said ?? [])),
    ],
    verdicts: [verdictOf(asked, cell)],
    judge: cell.judge ?? '',
  };
}

async function opened<T>(where: string, existing: boolean, work: (store: Store) => Promise<T>): Promise<T> {
  const store = await openStore(where, { existing });
  try {
    return await work(store);
  } finally {
    await store.close();
  }
}
/** Rates alone: people say whether an answer is fine. */
const pairsFor = async (request: PairsRequest, signal?: AbortSignal): Promise<readonly AskedPair[]> =>
  (await pairsOnFiles(request, signal)).filter(({ metric }) => metric.values === 'rate');

/**
 * Puts the answers of pairs that differ into the queue of `/review`; those that are there are not put again.
 * @throws {ConfigError} gate_what: the outcomes have no texts · what reading and the store throw
 */
export async function askPeople(request: AskRequest, signal?: AbortSignal): Promise<Asked> {
  const pairs = await pairsFor(request, signal);
  const shown = pairs.flatMap((asked) => {
    const cells = shownOf(asked);
    return cells ? [{ asked, cells: cells.map(([, cell]) => cell) }] : [];
  });
  if (pairs.length > 0 && shown.length === 0)
    throw new ConfigError(
      'gate_what',
      `${request.outcomes}: has no texts that people could be shown; hold the gate with --content full`,
      { file: request.outcomes },
    );
  const all = shown.flatMap(({ cells }) => cells.map(requestOf));
  return opened(request.store, false, async (store) => {
    const words = await wordsOn(store, all);
    const known = new Set(words.keys());
    const reviews = new Reviews(store, { twoPersons: request.twoPersons });
    let asked = 0;
    try {
      for (const { asked: pair, cells } of shown)
        for (const cell of cells) {
          signal?.throwIfAborted();
          if (known.has(requestOf(cell))) continue;
          known.add(requestOf(cell));
          await reviews.hold(
            itemOf(
              pair,
              cell,
              cells.filter((other) => other !== cell),
            ),
          );
          asked++;
        }
    } finally {
      await reviews.close();
    }
    return { pairs: pairs.length, asked, there: words.size, mute: pairs.length - shown.length };
  });
}

export interface PeoplesLabels {
  /** Rows of labels.jsonl: of pairs of which people have said what all arms are. */
  readonly labels: readonly Label[];
  /** Pairs that differ and wait for people, or were never put before them. */
  readonly waiting: number;
}
function labelOf({ pair, cells, metric }: AskedPair, words: Words): Label | null {
  const shown = shownOf({ pair, cells, metric });
  if (!shown) return null;
  const said = shown.map(([arm, cell]) => ({ arm, word: words.get(requestOf(cell)) ?? null }));
  const by = new Set<string>();
  const values: Partial<Record<Arm, number>> = {};
  for (const { arm, word } of said) {
    if (word === null) return null;
    for (const name of word.by) by.add(name);
    values[arm] = word.label === 'block' ? badValue(metric) : 1 - badValue(metric);
  }
  const { base, adapter, merged } = values;
  if (base === undefined || adapter === undefined) return null;
  return {
    metric: pair.metric,
    ...(pair.slice === null ? {} : { slice: pair.slice }),
    prompt: pair.prompt,
    sample: pair.sample,
    base,
    adapter,
    ...(merged === undefined ? {} : { merged }),
    of: digestsOf(cells as PairCells),
    by: [...by].sort().join(' and ').slice(0, 256) || 'unknown',
  };
}
/** What people said at `/review` of these outcomes. @throws what reading and the store throw */
export async function labelsOfPeople(request: AskRequest, signal?: AbortSignal): Promise<PeoplesLabels> {
  const pairs = await pairsFor(request, signal);
  const all = pairs.flatMap((pair) => (shownOf(pair) ?? []).map(([, cell]) => requestOf(cell)));
  const words = await opened(request.store, true, (store) => wordsOn(store, all));
  const labels = pairs.flatMap((pair) => labelOf(pair, words) ?? []);
  return { labels, waiting: pairs.length - labels.length };
}
