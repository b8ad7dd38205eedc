// Whether what an export was made of is at hand: without it there is nothing to compare its logits with.
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { type Provenance, readProvenance } from '../lora/provenance.js';
import { readRun } from '../runs/run-folder.js';
import { runAround } from '../runs/trained.js';

/** The run that it was exported from, by temper.json or the folders around it; null: neither leads to it. */
export function runOfExport(dir: string, provenance: Provenance | null): string | null {
  if (provenance?.run !== undefined) {
    const there = resolve(dir, provenance.run);
    if (readRun(there)) return there;
  }
  return runAround(dir);
}

/**
 * False: it is an export, and the run, adapter or whole model that it was made of lies elsewhere.
 * @param base where its base lies; absent: where it says
 * @throws {IntegrityError} bad_provenance, bad_run
 */
export function originAtHand(dir: string, base?: string): boolean {
  const provenance = readProvenance(dir);
  if (provenance === null) return true;
  const { run, adapter, model } = provenance;
  if (run === undefined && adapter !== undefined) return existsSync(resolve(dir, adapter));
  // A whole model is its own base.
  if (run === undefined && base !== undefined) return true;
  if (run === undefined && model !== undefined) return existsSync(resolve(dir, model));
  return runOfExport(dir, provenance) !== null;
}
