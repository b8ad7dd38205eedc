// Screening files: rows in, one verdict row per channel and policy out, whole or not at all. Rows may carry what a
// reviewer expects. Every row is read before the first is judged, and what a run that stops has judged is kept for the
// next.
import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DataError, ScreeningError } from '../../base/errors.js';
import { putInPlace } from '../../base/files.js';
import { checkOutputs, placeOf } from '../../base/outputs.js';
import type { VerdictRow } from '../agreement.js';
import type { KnownVerdict, Screen, ScreenResult } from '../screen.js';
import type { VerdictSink } from '../verdict-sink.js';
import type { Columns } from './columns.js';
import { keepParts } from './keep.js';
import { type KeptVerdicts, keptPath, letGo, ownPart, readKept } from './kept.js';
import { DigestsSeen, footerLine } from './part.js';
import { inputFiles, type RowsOptions, type RowsRead, rowBatches } from './read.js';
import type { ScreenRow } from './row.js';
import type { Shard } from './shard.js';
import { placeIn, type SharedVerdicts, Sharing } from './shared.js';
import { type BatchSummary, badResult, headOf, Tally } from './tally.js';
import { VerdictFile } from './verdict-file.js';
import { verdictLine } from './verdict-line.js';

export interface BatchOptions {
  /** Files, folders and patterns of JSON lines and arrays, Parquet and Arrow, also in gzip and Zstandard. */
  readonly input: string | readonly string[];
  readonly output: string;
  readonly screen: Screen;
  /** Which columns to read where rows are not ours; files may then be CSV, too. */
  readonly columns?: Columns;
  /** What a row that cannot be read is: the end of the run before the judge is asked, or `unjudged`. */
  readonly onBadRow?: 'error' | 'unjudged';
  /** Judges only this part of the rows; `mergeParts` joins what the parts leave. */
  readonly shard?: Shard;
  /** Asks again for what a run before could not judge, or for everything. */
  readonly rejudge?: 'unjudged' | 'all';
  /** Most verdicts to ask the judge for; when they are spent, the run ends and keeps them. */
  readonly budget?: number;
  /** Rows in flight. */
  readonly window?: number;
  /** Verdicts that other runs reached and may be used again, and where those of this one go. */
  readonly shared?: SharedVerdicts | undefined;
  /** Told once, when verdicts could not be put there; the run goes on. */
  readonly onShareFailed?: (error: unknown) => void;
  /** Has every verdict on record before the output is there. */
  readonly sink?: VerdictSink;
  readonly signal?: AbortSignal;
  /** Told once how many rows are to be judged: all were read and are good. */
  readonly onChecked?: (rows: number) => void;
  /** @param asked verdicts that the judge was asked for so far */
  readonly onRow?: (rowsDone: number, result: ScreenResult, asked: number) => void;
  /** Every verdict as it is written. */
  readonly onVerdict?: (row: VerdictRow) => void;
  /** The complete file of verdicts, before it is put in its place; reports are made of it. */
  readonly onComplete?: (file: string) => Promise<void>;
  /** Told when a run that stops leaves verdicts for the next one. */
  readonly onKept?: (file: string, verdicts: number) => void;
}

/** Where verdicts lie until they are complete: beside what the output links to; those of a stream by themselves. */
async function workPath(output: string): Promise<{ readonly path: string; readonly remove: () => Promise<void> }> {
  const { target, stream } = placeOf(output);
  if (!stream) return { path: target, remove: async () => {} };
  const folder = await mkdtemp(join(tmpdir(), 'temper-screen-'));
  return { path: join(folder, 'verdicts'), remove: () => rm(folder, { recursive: true, force: true }) };
}

/**
 * Reads every row, so that a bad one costs no call of the judge.
 * @throws {DataError} a bad row, none, no file
 */
async function checkRows(rows: RowsOptions): Promise<RowsRead> {
  const batches = rowBatches(rows);
  for (;;) {
    const next = await batches.next();
    rows.signal?.throwIfAborted();
    if (!next.done) continue;
    const [file = ''] = rows.files;
    if (next.value.rows === 0)
      throw new DataError(
        'no_rows',
        rows.columns
          ? `${rows.files.join(', ')}: no row has text in column ${JSON.stringify(rows.columns.text)}`
          : `${rows.files.join(', ')}: no rows; wanted one JSON object per line`,
        { file },
      );
    return next.value;
  }
}

/**
 * Screens every row of `input` and writes the verdicts to `output`, in the order of the rows, by way of a file beside
 * it. A run that stops leaves what was judged in `output.part`; the next one takes it from there, and from a complete
 * output what policy, text and judge have the same digests for.
 * @throws {DataError} a bad row (before the judge is asked), no row at all
 * @throws {ConfigError} the output cannot be written (before the judge is asked, unless the disk fills up)
 * @throws {ScreeningError} the judge cannot be reached or run at all; budget_spent
 */
export async function screenFile(options: BatchOptions): Promise<BatchSummary> {
  const inputs = typeof options.input === 'string' ? [options.input] : options.input;
  const files = inputFiles(inputs, options.columns !== undefined);
  checkOutputs({ '--out': options.output }, { files });
  const rows: RowsOptions = {
    files,
    columns: options.columns,
    policies: options.screen.policies,
    tolerant: options.onBadRow === 'unjudged',
    shard: options.shard,
    signal: options.signal,
  };
  const read = await checkRows(rows);
  options.onChecked?.(read.own);
  const work = await workPath(options.output);
  try {
    return await new Run(options, rows, read, work.path).run();
  } finally {
    await work.remove();
  }
}

interface Pending {
  readonly row: ScreenRow;
  /** Policies and channels whose verdict was there before; absent: nobody asks. */
  readonly known?: ReadonlySet<string>;
  readonly result: Promise<ScreenResult>;
}
/** Records under way at the sink. */
const MOST_RECORDS = 4096;

const ignore = (): void => {};

class Run {
  readonly #tally = new Tally();
  readonly #digests = new DigestsSeen();
  readonly #pending: Pending[] = [];
  #records: Promise<unknown>[] = [];
  #taken = 0;
  #asked = 0;
  readonly #sharing: Sharing | null;

  /** @param path where the verdicts lie until they are complete */
  constructor(
    readonly options: BatchOptions,
    readonly rows: RowsOptions,
    readonly read: RowsRead,
    readonly path: string,
  ) {
    const { shared, onShareFailed = () => {} } = options;
    this.#sharing = shared ? new Sharing(shared, onShareFailed) : null;
  }

  async run(): Promise<BatchSummary> {
    const { output, signal, shard, onKept } = this.options;
    const kept = await readKept(this.path, this.options.rejudge !== 'all', signal);
    const stop = new AbortController();
    let out: VerdictFile | undefined;
    try {
      out = await VerdictFile.create(ownPart(this.path), output, shard ? createHash('sha256') : null);
      await this.#judgeAll(out, kept, signal ? AbortSignal.any([signal, stop.signal]) : stop.signal);
      if (shard) await this.#sign(out, shard);
      await out.finish();
      await Promise.all(this.#records);
      await this.#sharing?.finish();
      await this.options.onComplete?.(out.path);
      await putInPlace(out.path, output, signal);
      await kept.remove();
    } catch (error) {
      stop.abort();
      const judged = out ? await this.#keep(out, kept) : 0;
      // What a stream was to get is not kept.
      if (judged > 0 && this.path === placeOf(output).target) onKept?.(keptPath(this.path), judged);
      // Rows that were under way are judged by now.
      throw isSpent(error) ? this.#spent(this.options.budget ?? 0) : error;
    } finally {
      kept.close();
      if (out) letGo(out.path);
    }
    const summary = this.#tally.summary(this.#taken, this.read.blank);
    return this.#sharing ? { ...summary, shared: this.#sharing.taken } : summary;
  }

  async #judgeAll(out: VerdictFile, kept: KeptVerdicts, signal: AbortSignal): Promise<void> {
    const { screen, window = 16, budget = Infinity } = this.options;
    const sharing = this.#sharing;
    const find: KnownVerdict = (policy, channel, digests) => {
      const found = kept.find(policy, channel, digests) ?? sharing?.find({ policy, channel, digests });
      if (found) this.#taken++;
      else if (this.#asked >= budget) throw this.#spent(budget);
      else this.#asked++;
      return found;
    };
    const batches = rowBatches(this.rows);
    for (;;) {
      const next = await batches.next();
      if (next.done) {
        this.#sameFiles(next.value);
        break;
      }
      if (sharing && this.options.rejudge !== 'all') await sharing.prepare(screen, next.value, kept.find);
      for (const row of next.value) {
        this.options.signal?.throwIfAborted();
        const known = sharing ? new Set<string>() : undefined;
        const own: KnownVerdict = known
          ? (policy, channel, digests) => {
              const found = find(policy, channel, digests);
              if (found) known.add(placeIn({ policy, channel }));
              return found;
            }
          : find;
        const result = row.bad ? Promise.resolve(badResult(row)) : screen.screen(row.channels, signal, own);
        // One that rejects is met in its turn.
        result.then(undefined, ignore);
        this.#pending.push(known ? { row, result, known } : { row, result });
        if (this.#pending.length < window) continue;
        const wait = this.#settle(out, await (this.#pending[0] as Pending).result);
        if (wait) await wait;
      }
    }
    for (let [head] = this.#pending; head; [head] = this.#pending) await this.#settle(out, await head.result);
  }

  /** Takes the result of the row that comes next. @returns what to wait for before more is taken; null: nothing */
  #settle(out: VerdictFile, result: ScreenResult): Promise<void> | null {
    // A stop is no finding: leave no rows marked `aborted`.
    this.options.signal?.throwIfAborted();
    this.#add(out, this.#pending.shift() as Pending, result);
    this.options.onRow?.(this.#tally.rows, result, this.#asked);
    const why = this.options.screen.hopeless?.() ?? null;
    if (why !== null && this.#tally.rows < this.read.own)
      throw new ScreeningError(
        'judge_unusable',
        `screen: ${why}; stopped at row ${this.#tally.rows} of ${this.rows.files.join(', ')}`,
        { file: this.rows.files[0], rows: this.#tally.rows },
      );
    return out.room || this.#sharing?.isFull || this.#records.length >= MOST_RECORDS ? this.#drain(out) : null;
  }
  async #drain(out: VerdictFile): Promise<void> {
    if (out.room) await out.room;
    if (this.#sharing?.isFull) await this.#sharing.put();
    if (this.#records.length >= MOST_RECORDS) await Promise.all(this.#records.splice(0));
  }

  #add(out: VerdictFile, { row, known }: Pending, result: ScreenResult): void {
    const { shard, sink, onVerdict } = this.options;
    for (const verdict of result.verdicts) {
      if (shard && !this.#digests.add(verdict)) throw new DataError('part_mixed', mixedText(verdict.policy));
      const head = headOf(row, verdict, shard !== undefined);
      out.add(verdictLine(head, verdict));
      this.#tally.add(verdict, head.expect);
      onVerdict?.({ ...head, ...verdict });
      if (known && !known.has(placeIn(verdict))) this.#sharing?.add(verdict);
    }
    this.#tally.rows++;
    if (!sink) return;
    const recorded = sink.append({
      verdicts: result.verdicts,
      action: 'report',
      subject: { row: row.row ?? row.line },
    });
    recorded.catch(() => {}); // told where they are awaited
    this.#records.push(recorded);
  }

  /** A file that was changed between the two readings would have rows that nobody checked. */
  #sameFiles(now: RowsRead): void {
    const changed = now.digests.findIndex((digest, i) => digest !== this.read.digests[i]);
    if (changed < 0) return;
    const file = this.rows.files[changed] ?? '';
    throw new DataError('file_changed', `${file}: it changed while it was screened; run it again`, { file });
  }
  #spent(budget: number): ScreeningError {
    const { rows } = this.#tally;
    return new ScreeningError(
      'budget_spent',
      `screen: the budget of ${budget} verdicts is spent, ${rows} of ${this.read.own} rows are judged; the same ` +
        'command goes on from there',
      { budget, rows },
    );
  }

  async #sign(out: VerdictFile, { index, of }: Shard): Promise<void> {
    await out.flush();
    const { rows, own, blank, digests } = this.read;
    const { verdicts } = this.#tally;
    out.add(
      footerLine(
        {
          version: 2,
          shard: index,
          of,
          rows,
          own,
          verdicts,
          blank,
          inputs: [...digests],
          names: [...this.rows.files],
          policies: this.#digests.all(),
        },
        out.hash as NonNullable<typeof out.hash>,
      ),
    );
  }

  /** Keeps what was judged, rows under way included. @returns how many verdicts; with none nothing is left */
  async #keep(out: VerdictFile, kept: KeptVerdicts): Promise<number> {
    try {
      // Calls that were stopped end at once; what others found meanwhile is paid for too.
      for (const pending of this.#pending) {
        const ended = await pending.result.catch(() => null);
        if (ended) this.#add(out, pending, ended);
      }
      await out.flush();
      await this.#sharing?.finish();
    } catch {
      // The error that ended the run is the one to tell; what is written is kept.
    }
    await out.close();
    if (this.#tally.answered === 0) {
      await rm(out.path, { force: true });
      return 0;
    }
    const isKept = await keepParts(out.path, keptPath(this.path), kept).then(
      () => true,
      () => false,
    );
    return isKept ? this.#tally.answered : 0;
  }
}

const isSpent = (error: unknown): boolean => error instanceof ScreeningError && error.code === 'budget_spent';
const mixedText = (policy: string): string =>
  `policy ${policy}: its verdicts fell under two digests in one run; run it again`;
