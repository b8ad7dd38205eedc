// The attack of a probe: an adapter, and a new one on the bare base, tuned a little further on rows that do harm. What
// is tuned is marked and lies in a folder of its own, which goes when the probe is over.
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import { sha256 } from '../base/digest.js';
import { DataError } from '../base/errors.js';
import { writeFileAtomic } from '../base/files.js';
import { makeFolders } from '../base/folders.js';
import { rowsOf } from '../data/rows.js';
import type { ProbeArm } from '../gate/probe/probe.js';
import { openPeft, readMergeAware } from '../lora/peft.js';
import { writeWidened } from '../lora/widen.js';
import { readConfig } from '../model/config.js';
import { checkpointSteps, readRun } from '../runs/run-folder.js';
import { planTraining, type TrainPlan, train } from '../train/train.js';

export interface AttackOptions {
  /** Rows of chat, each an answer that does harm. */
  readonly file: string;
  readonly set: AttackSet;
  /** Folder of the base, and PEFT folder of what is probed. */
  readonly model: string;
  readonly adapter: string;
  /** Where what is tuned lies meanwhile. */
  readonly folder: string;
  readonly rowsPerStep: number;
  /** Rank that the attack adds to every pair of the adapter. */
  readonly addedRank: number;
  readonly seed: number;
  readonly precision: 'f32' | 'bf16';
  readonly device: string;
  readonly threads?: number | undefined;
  readonly signal: AbortSignal;
}
export interface AttackSet {
  /** sha256 of the file, hex. */
  readonly digest: string;
  readonly rows: number;
}
/** Reads it once, whatever its rows say: training does that. @throws {DataError} no_rows · what reading refuses */
export async function readAttackSet(file: string, signal?: AbortSignal): Promise<AttackSet> {
  const reading = rowsOf({ path: file }, signal);
  for (let rows = 0; ; rows++) {
    const next = await reading.next();
    if (next.done) {
      if (rows === 0) throw new DataError('no_rows', `${file}: no rows; wanted rows of chat, one a line`, { file });
      return { digest: next.value, rows };
    }
    if (next.value.error) throw next.value.error;
  }
}

/** Told before each step. */
export interface AttackProgress {
  readonly arm: ProbeArm;
  readonly step: number;
  readonly steps: number;
}
const ABOUT = 'Tuned by temper gate probe to do harm, to measure what that takes; not for any use.';

/** Attacks at one learning rate, of both arms, as far as they were asked for. */
export class Attack {
  constructor(readonly options: AttackOptions) {}

  #run(arm: ProbeArm, lr: number): string {
    return join(this.options.folder, `${arm}-lr-${lr}`);
  }

  /** PEFT folder that the attack of an arm begins with: what is probed, or what changes nothing. */
  async #start(arm: ProbeArm): Promise<string> {
    const { adapter, model, addedRank: extra, folder, seed } = this.options;
    if (arm === 'adapter' && extra === 0) return adapter;
    const start = join(folder, `start-${arm}`);
    if (existsSync(start)) return start;
    using file = openPeft(adapter, readConfig(model));
    const { config, spec } = file;
    const meta = { baseModel: basename(model), about: ABOUT };
    await writeWidened({ config, spec, from: arm === 'adapter' ? file : null, extra, seed }, start, meta);
    return start;
  }

  /** A recipe, written to `path`. Steps follow one another at one rate, so that more of them change none. */
  #write(path: string, from: string, lr: number, steps: number): void {
    const { file, model, adapter, rowsPerStep, seed, precision, device } = this.options;
    const mergeAware = readMergeAware(adapter);
    const recipe = {
      about: ABOUT,
      model: { base: model },
      adapter: { from, attackTuned: true, ...(mergeAware ? { mergeAware } : {}) },
      data: { train: [{ path: file, format: 'chat' }] },
      train: { steps, rowsPerStep, lr, schedule: 'constant', warmup: 0, precision, seed, keepCheckpoints: 1 },
      device,
    };
    // JSON is YAML.
    writeFileAtomic(path, `${JSON.stringify(recipe, null, 1)}\n`);
  }

  /** What so many steps of one arm cost. @throws {DataError} a row that cannot be trained on · as planTraining */
  async plan(lr: number, steps: number): Promise<TrainPlan> {
    const { folder, adapter, signal } = this.options;
    const path = `${folder}.plan.yaml`;
    try {
      this.#write(path, adapter, lr, steps);
      return await planTraining(path, { measure: false, signal });
    } finally {
      rmSync(path, { force: true });
    }
  }

  /**
   * The adapter of an arm after so many steps; it is there until more are asked for.
   * @throws as train · the signal's reason, after a checkpoint
   */
  async after(arm: ProbeArm, lr: number, steps: number, onStep: (p: AttackProgress) => void): Promise<string> {
    const { signal, threads, file } = this.options;
    const out = this.#run(arm, lr);
    // What is past the step cannot go back to it.
    if ((checkpointSteps(out).at(-1) ?? 0) > steps) rmSync(out, { recursive: true, force: true });
    const done = readRun(out);
    const adapter = join(out, 'adapter');
    if (done?.status === 'done' && done.steps === steps && existsSync(adapter)) return adapter;
    const resume = existsSync(out) && readdirSync(out).length > 0;
    const path = `${out}.yaml`;
    makeFolders(this.options.folder);
    this.#write(path, await this.#start(arm), lr, steps);
    const { status, digests } = await train(path, {
      ...{ out, resume, signal },
      ...(threads === undefined ? {} : { threads }),
      onProgress: ({ step }) => onStep({ arm, step, steps }),
    });
    signal.throwIfAborted();
    if (digests.data !== sha256(this.options.set.digest))
      throw new DataError(
        'file_changed',
        `${file}: changed while it was probed with; probe again when it is complete`,
        {
          file,
        },
      );
    if (status !== 'done') throw new Error(`${out}: ended ${status} without being asked to`);
    return adapter;
  }

  /** Removes all of it. */
  remove(): void {
    rmSync(this.options.folder, { recursive: true, force: true });
  }
}
