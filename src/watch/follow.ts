// A run's folder, read again and again: what was written since, whether it is there, whether somebody still writes to
// it. Nothing of it is held up or changed.
import type { BigIntStats } from 'node:fs';
import { type FileHandle, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { z } from 'zod';
import { openInput } from '../base/inputs.js';
import { Curves } from '../runs/curves.js';
import { writtenSince } from '../runs/lock.js';
import type { StepMetrics } from '../runs/metrics.js';
import { checkpointSteps, type RunRecord, readRun } from '../runs/run-folder.js';
import { Tally } from '../runs/summary.js';
import { LineReader, stepOf } from './lines.js';

/** A step takes as long as those of the last minute. */
const RATE_MS = 60_000;
/** Less time than this says nothing. */
const SURE_MS = 3000;
const PIECE_BYTES = 1 << 18;

/** What a run is doing, as far as its folder tells. */
export type RunState =
  /** Nothing is there, and nobody writes. */
  | 'waiting'
  /** Somebody reads rows and loads weights, to begin or to go on. */
  | 'preparing'
  | 'running'
  | 'stopped'
  | 'failed'
  | 'done'
  /** It says that it runs, and whoever wrote to it is gone without a word. */
  | 'gone'
  /** Its record cannot be read. */
  | 'damaged';

const statOrNull = async (path: string): Promise<BigIntStats | null> => {
  try {
    return await stat(path, { bigint: true });
  } catch {
    return null;
  }
};
/** Of a file that is written by renaming: another one is another identity. */
const identity = (s: BigIntStats): string => `${s.dev}:${s.ino}`;

/** metrics.jsonl, as far as it was read. While it is open nobody else gets its inode. */
interface Metrics {
  readonly handle: FileHandle;
  readonly identity: string;
  readonly lines: LineReader;
  offset: number;
}

const count = z.number();
/** What is shown of a record; a file of another program is none. */
const Shown = z.looseObject({
  name: z.string(),
  about: z.string(),
  status: z.enum(['running', 'stopped', 'failed', 'done']),
  method: z.string(),
  seed: count,
  steps: count,
  digests: z.looseObject({ recipe: z.string(), data: z.string(), base: z.string(), tokenizer: z.string() }),
  data: z.array(
    z.looseObject({
      file: z.string(),
      format: z.string(),
      sha256: z.string(),
      rows: count,
      tokens: count,
      trainedTokens: count,
    }),
  ),
  versions: z.record(z.string(), z.string()),
  machine: z.looseObject({ isa: z.string(), threads: count }),
  trainedParameters: count,
  best: z.looseObject({ step: count, evalLoss: count }).optional(),
  failure: z.string().optional(),
  earlier: z.array(z.looseObject({ steps: count, done: count })).optional(),
});

export class RunFollower {
  record: RunRecord | null = null;
  state: RunState = 'waiting';
  /** Steps with a checkpoint, ascending. */
  checkpoints: readonly number[] = [];
  curves = new Curves();
  tally = new Tally();
  /** When the last step was written, ms since 1970. */
  lastAt: number | null = null;
  /** Changes with everything that can be seen of the run. */
  version = 0;
  /** Counts how often it was read from its start. */
  restarts = 0;
  #metrics: Metrics | null = null;
  #recordSeen: string | null = null;
  #recordAt = 0n;
  /** When how many steps were done. */
  #pace: { readonly at: number; readonly step: number }[] = [];
  #seen = '';

  constructor(readonly run: string) {}

  get name(): string {
    return this.record?.name ?? basename(this.run);
  }

  /** Looks at the folder. What cannot be read now is looked at again the next time. */
  async poll(): Promise<void> {
    await this.#readState();
    // It may have begun between the two looks.
    if (this.state === 'gone') await this.#readState();
    await this.#readMetrics();
    this.checkpoints = this.#checkpoints();
    const seen = JSON.stringify([
      this.#recordSeen,
      this.state,
      this.restarts,
      this.tally.steps,
      this.tally.last,
      this.checkpoints,
    ]);
    if (seen !== this.#seen) this.version++;
    this.#seen = seen;
  }

  async #readState(): Promise<void> {
    const since = writtenSince(this.run);
    const readable = await this.#readRecord();
    this.state = readable ? this.#stateOf(since) : 'damaged';
  }

  /** @returns false: it is there and no record */
  async #readRecord(): Promise<boolean> {
    const now = await statOrNull(join(this.run, 'run.json'));
    const seen = now && `${identity(now)}:${now.mtimeNs}:${now.size}`;
    if (seen === this.#recordSeen && (seen === null || this.record !== null)) return true;
    try {
      const record = readRun(this.run);
      this.record = Shown.safeParse(record).success ? record : null;
    } catch {
      this.record = null;
    }
    this.#recordSeen = seen;
    this.#recordAt = now?.mtimeNs ?? 0n;
    return seen === null || this.record !== null;
  }

  #checkpoints(): readonly number[] {
    try {
      return checkpointSteps(this.run);
    } catch {
      return this.checkpoints;
    }
  }

  /** @param since when somebody began to write to it; null: nobody does */
  #stateOf(since: bigint | null): RunState {
    if (!this.record) return since === null ? 'waiting' : 'preparing';
    // What was written before is the word of another one.
    if (since !== null && this.#recordAt < since) return 'preparing';
    return this.record.status === 'running' && since === null ? 'gone' : this.record.status;
  }

  async #forget(): Promise<void> {
    const old = this.#metrics;
    this.#metrics = null;
    this.curves = new Curves();
    this.tally = new Tally();
    this.lastAt = null;
    this.#pace = [];
    this.restarts++;
    await old?.handle.close();
  }

  /** Reads what was added; from its start where it is another file, or shorter: steps were taken back. */
  async #readMetrics(): Promise<void> {
    const path = join(this.run, 'metrics.jsonl');
    const now = await statOrNull(path);
    const old = this.#metrics;
    if (old && (!now || identity(now) !== old.identity || Number(now.size) < old.offset)) await this.#forget();
    if (!now?.isFile()) return;
    try {
      this.#metrics ??= await opened(path, identity(now));
      if (this.#metrics) await this.#readOn(this.#metrics);
    } catch {
      // It went away under our hands, or cannot be read yet.
      return;
    }
    const step = this.tally.last?.step ?? 0;
    const at = Number(now.mtimeNs / 1_000_000n);
    this.lastAt = step > 0 ? at : null;
    if (step > 0 && this.#pace.at(-1)?.step !== step) this.#pace.push({ at, step });
    while ((this.#pace[0]?.at ?? at) < at - RATE_MS && this.#pace.length > 2) this.#pace.shift();
  }

  async #readOn(metrics: Metrics): Promise<void> {
    const piece = Buffer.allocUnsafe(PIECE_BYTES);
    for (;;) {
      const { bytesRead } = await metrics.handle.read(piece, 0, piece.length, metrics.offset);
      if (bytesRead === 0) return;
      metrics.offset += bytesRead;
      for (const line of metrics.lines.take(piece.subarray(0, bytesRead))) this.#add(stepOf(line));
    }
  }
  #add(m: StepMetrics | null): void {
    // Steps go up; anything else is no metrics file.
    if (!m || m.step <= (this.tally.last?.step ?? 0)) return;
    this.curves.add(m);
    this.tally.add(m);
  }

  /** Seconds a step takes now, with what comes between them; null: nobody can tell yet. */
  get secondsPerStep(): number | null {
    const [first, last] = [this.#pace[0], this.#pace.at(-1)];
    if (first && last && last.at - first.at >= SURE_MS) return (last.at - first.at) / 1000 / (last.step - first.step);
    const { seconds, steps } = this.tally;
    return seconds * 1000 >= SURE_MS ? seconds / steps : null;
  }
  /** null: it does not run, or nobody can tell. */
  get secondsLeft(): number | null {
    if (this.state !== 'running' || !this.record || !this.tally.last) return null;
    const each = this.secondsPerStep;
    const left = this.record.steps - this.tally.last.step;
    return each === null || left <= 0 ? null : left * each;
  }

  async close(): Promise<void> {
    await this.#metrics?.handle.close();
    this.#metrics = null;
  }
}

/** @returns null: another file took its place meanwhile */
async function opened(path: string, expected: string): Promise<Metrics | null> {
  const handle = await openInput(path);
  const now = await statOrNull(path);
  // By name both times: some file systems call an open file by other numbers.
  if (now && identity(now) === expected) return { handle, identity: expected, lines: new LineReader(), offset: 0 };
  await handle.close();
  return null;
}
