// A run that goes on: whether there is one, and whether it is still the same run. What changes no bit may change; the
// number of steps may, and then it is said whether the bits are those of a run that had it from the start.
import { existsSync, readdirSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { ConfigError, IntegrityError, TemperError } from '../base/errors.js';
import { type Device, describeDevice } from '../native/backends.js';
import { loadRecipe, recipeDigest } from '../recipe/load.js';
import type { Recipe } from '../recipe/schema.js';
import { deviceOf, isBegun, type RunRecord, readRun } from './run-folder.js';

/** The run that --resume means; null: one that was ended before its record was written. @throws run_not_found */
export function runToResume(run: string): RunRecord | null {
  const record = readRun(run);
  if (record || (isBegun(run) && readdirSync(run).length > 0)) return record;
  const beside = dirname(run);
  const others = existsSync(beside) ? readdirSync(beside).filter((n) => existsSync(join(beside, n, 'run.json'))) : [];
  throw new ConfigError(
    'run_not_found',
    `${run}: there is no run to go on with; ` +
      (others.length > 0 && others.length <= 12 ? `runs in ${beside}: ${others.join(', ')}; ` : '') +
      'name its folder with --out, or leave out --resume to start a run there',
    { run },
  );
}

/** Of no effect on a bit of what is trained, or held against the run by itself (device, number of steps, contents). */
const FREE = new Set([
  'about',
  'device',
  'export',
  'memoryLimit',
  'data.eval',
  'train.checkpointEvery',
  'train.keepCheckpoints',
  'train.evalEvery',
  'train.patience',
  'train.tensorBoard',
  'train.offloadActivations',
  'train.offloadOptimizer',
  'train.recompute',
  'train.precomputeReference',
  'train.epochs',
  'train.steps',
  'model.base',
  'model.tokenizer',
]);
const isFree = (path: string): boolean =>
  FREE.has(path) ||
  path.startsWith('expect.') ||
  path.startsWith('data.eval.') ||
  /^data\.train\.\d+\.path$/.test(path);

/** Every value of the recipe by its dotted path. */
function fieldsOf(value: unknown, at = ''): Map<string, unknown> {
  const out = new Map<string, unknown>();
  const plain = typeof value === 'object' && value !== null;
  if (!plain || (Array.isArray(value) && value.every((v) => typeof v !== 'object'))) return out.set(at, value);
  for (const [key, v] of Object.entries(value))
    for (const [path, leaf] of fieldsOf(v, at === '' ? key : `${at}.${key}`))
      if (leaf !== undefined) out.set(path, leaf);
  return out;
}
const shown = (value: unknown): string => (value === undefined ? 'absent' : JSON.stringify(value));

/**
 * @returns the recipe that the run went by
 * @throws {IntegrityError} run_changed: names every field that makes it another run
 */
export function checkSameRecipe(run: string, before: RunRecord, recipe: Recipe): Recipe {
  const now = recipeDigest(recipe);
  if (before.digests.recipe === now) return recipe;
  const file = join(run, 'recipe.yaml');
  let began: Recipe | null = null;
  try {
    began = loadRecipe(file, { checkPaths: false, ofRun: true }).recipe;
  } catch (e) {
    if (!(e instanceof TemperError)) throw e;
  }
  if (!began || recipeDigest(began) !== before.digests.recipe)
    throw new IntegrityError(
      'run_changed',
      `${run}: recipe digest is ${now.slice(0, 12)}…, the run began with ${before.digests.recipe.slice(0, 12)}…, and ` +
        'recipe.yaml there is not the one that it began with; undo the change, or start a new run with --out',
      { run, what: 'recipe', got: now, wanted: before.digests.recipe },
    );
  const [a, b] = [fieldsOf(began), fieldsOf(recipe)];
  const fieldAt = (m: Map<string, unknown>, path: string): unknown =>
    path === 'adapter.from' && m.has(path) ? basename(String(m.get(path))) : m.get(path);
  const changed = [...new Set([...a.keys(), ...b.keys()])].filter(
    (path) => !isFree(path) && shown(fieldAt(a, path)) !== shown(fieldAt(b, path)),
  );
  if (changed.length === 0) return began;
  const list = changed.map((p) => `${p} is ${shown(fieldAt(b, p))}, the run began with ${shown(fieldAt(a, p))}`);
  throw new IntegrityError(
    'run_changed',
    `${run}: ${list.join('; ')}; undo the change, or start a new run with --out`,
    { run, what: changed[0], fields: changed },
  );
}

/** What the run computes on and with is what it was. @throws {IntegrityError} run_changed: names what differs */
export function checkSameInputs(run: string, before: RunRecord, now: RunRecord, device: Device): void {
  const { place } = deviceOf(before);
  if (device.place !== place)
    throw new IntegrityError(
      'run_changed',
      `${run}: the run began on ${describeDevice(deviceOf(before))}, now it would go on on ` +
        `${describeDevice(device)}; their bits differ: resume it with --device ${place}, or start a new run with --out`,
      { run, what: 'device', got: device.place, wanted: place },
    );
  const differs = (what: string, got: string, wanted: string): IntegrityError =>
    new IntegrityError(
      'run_changed',
      `${run}: ${what} is not what the run began with: digest ${got.slice(0, 12)}…, then ` +
        `${wanted.slice(0, 12)}…; bring ` +
        'it back, or start a new run with --out',
      { run, what: what.split(' ')[0], got, wanted },
    );
  for (const [i, file] of now.data.entries()) {
    const then = before.data[i];
    if (then && then.sha256 !== file.sha256) throw differs(`data.train.${i} (${file.file})`, file.sha256, then.sha256);
  }
  for (const [key, what] of [
    ['data', 'data.train'],
    ['base', 'model.base'],
    ['tokenizer', 'model.tokenizer'],
  ] as const)
    if (before.digests[key] !== now.digests[key]) throw differs(what, now.digests[key], before.digests[key]);
}

/** A recipe that the run went by before, up to the step that it had done by then. */
export type Earlier = NonNullable<RunRecord['earlier']>[number];

/**
 * What a changed recipe makes of the run.
 * @param done steps of the last checkpoint
 * @param rateOf learning rate of a step (from 1) in a run of that many
 * @throws {IntegrityError} run_changed: fewer steps than are done
 */
export function extensionOf(
  run: string,
  before: RunRecord,
  now: RunRecord,
  done: number,
  rateOf: (step: number, steps: number) => number,
): { readonly earlier: readonly Earlier[]; readonly notice: string | null } {
  const past = before.earlier ?? [];
  if (before.digests.recipe === now.digests.recipe) return { earlier: past, notice: null };
  if (now.steps < done)
    throw new IntegrityError(
      'run_changed',
      `${run}: train asks for ${now.steps} steps, ${done} are done; ask for as many or more, or start a new run`,
      { run, what: 'train.steps', got: now.steps, wanted: done },
    );
  let differs = 0;
  for (let k = 1; k <= done && !differs; k++) if (rateOf(k, before.steps) !== rateOf(k, now.steps)) differs = k;
  const earlier = [...past, { recipe: before.digests.recipe, steps: before.steps, done, exact: differs === 0 }];
  const rate = (steps: number): string => rateOf(differs, steps).toExponential(3);
  const notice =
    differs === 0
      ? null
      : `extended from ${before.steps} to ${now.steps} steps after step ${done}: its bits are not those of a run of ` +
        `${now.steps} steps from the start, because train.schedule and warmup take their length from the steps (the ` +
        `lr of step ${differs} was ${rate(before.steps)}, there ${rate(now.steps)}); with schedule: constant and ` +
        'warmup: 0 they would be';
  return { earlier, notice };
}
