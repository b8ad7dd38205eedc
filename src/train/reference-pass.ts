// What the reference says of all pairs, before the first step (train.precomputeReference): kept in the run's folder as
// it goes, so that a run that was ended in the middle goes on from there.
import { References } from '../objectives/references.js';
import type { Recipe } from '../recipe/schema.js';
import { readReferences, referenceDigest, writeReferences } from '../runs/reference-file.js';
import { asDiskError, type RunDigests } from '../runs/run-folder.js';
import type { TrainedLearner } from './learners.js';
import { type Steps, stepOptions, type TrainHooks } from './run-steps.js';

/** Between two writings of the file. */
const SAVE_MS = 20_000;

/**
 * @returns what the steps take of the reference; null: the method does not compare
 * @throws {IntegrityError} bad_reference · {TrainError} disk_full
 */
export async function referencePass(
  recipe: Recipe,
  run: string,
  digests: RunDigests,
  learner: TrainedLearner,
  { data, plan }: Steps,
  hooks: TrainHooks,
): Promise<References | null> {
  const options = stepOptions(recipe);
  if (!options.objective.compares) return null;
  const references = new References(learner, data.examples, plan, options.objective, options);
  if (!recipe.train.precomputeReference) return references;
  const of = referenceDigest(recipe, digests, learner.device.place);
  readReferences(run, of, references.values);
  const save = (): void => {
    try {
      writeReferences(run, of, references.values);
    } catch (e) {
      throw asDiskError(e, run, 'reference.bin');
    }
  };
  let [changed, saved] = [false, performance.now()];
  const began = saved;
  await references.computeAll((done, total) => {
    changed = true;
    const now = performance.now();
    if (now - saved > SAVE_MS) {
      save();
      [changed, saved] = [false, performance.now()];
    }
    hooks.onReference?.({ done, total, seconds: (now - began) / 1000 });
  }, hooks.signal);
  if (changed) save();
  return references;
}
