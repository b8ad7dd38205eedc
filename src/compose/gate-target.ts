// What a gate is asked to judge: a run or an adapter folder, its base, and the rows that it was trained on.
import { existsSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { ConfigError } from '../base/errors.js';
import { CONFIG_FILE } from '../lora/peft-names.js';
import { readProvenance } from '../lora/provenance.js';
import { trainFiles } from '../recipe/data-files.js';
import { readRun } from '../runs/run-folder.js';
import { recipeOf, resolveTrained, runAround } from '../runs/trained.js';

export interface GateTarget {
  /** PEFT folder. */
  readonly adapter: string;
  /** Checkpoint folder of the base. */
  readonly model: string;
  /** Where the gate's own folder is, if nobody says. */
  readonly folder: string;
  /** Files of the training set; empty: nobody knows. */
  readonly training: readonly string[];
}

const trainingOf = (run: string): readonly string[] => {
  try {
    const files = trainFiles(recipeOf(run).loaded.recipe.data).map((f) => f.path);
    // A run stands without the rows that it was trained on.
    return files.every((path) => existsSync(path)) ? files : [];
  } catch {
    return [];
  }
};

/**
 * @param given the folder of a run, or of an adapter made here or elsewhere
 * @param model base that is wanted instead of the one that it names
 * @throws {ConfigError} path_not_found, not_a_run, no_weights, gate_what
 */
export function gateTarget(given: string, model?: string): GateTarget {
  const path = resolve(given);
  if (!existsSync(path) || !statSync(path).isDirectory())
    throw new ConfigError('path_not_found', `${given}: no such folder; give the folder of a run or of an adapter`, {
      path,
    });
  if (readRun(path)) {
    const trained = resolveTrained(path);
    if (trained.adapter === null)
      throw new ConfigError('gate_what', `${given}: trained a whole model; a gate compares an adapter with its base`);
    return {
      adapter: trained.adapter,
      model: model ?? trained.model,
      folder: join(path, 'gate'),
      training: trainingOf(path),
    };
  }
  if (!existsSync(join(path, CONFIG_FILE)))
    throw new ConfigError(
      'gate_what',
      `${given}: has neither run.json nor ${CONFIG_FILE}; give the folder of a run or of a PEFT adapter`,
      { path },
    );
  const provenance = readProvenance(path);
  const run = provenance?.run === undefined ? runAround(path) : resolve(path, provenance.run);
  const around = run !== null && existsSync(run) && readRun(run) ? run : null;
  const base =
    model ??
    (provenance?.model === undefined ? undefined : resolve(path, provenance.model)) ??
    (around === null ? undefined : resolveTrained(around).model);
  if (base === undefined)
    throw new ConfigError('gate_what', `${given}: does not say which base it is for; name it with --model DIR`);
  return {
    adapter: path,
    model: base,
    folder: join(path, 'gate'),
    training: around === null ? [] : trainingOf(around),
  };
}
