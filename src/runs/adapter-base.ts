// Whether a base is the one that a run or an adapter was trained on. An adapter says so itself where it was made here:
// in temper.json beside an export, in the run around it otherwise. One from elsewhere says nothing that can be checked.
import { existsSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { sha256File } from '../base/digest.js';
import { IntegrityError } from '../base/errors.js';
import { CONFIG_FILE, TENSOR_FILE } from '../lora/peft.js';
import { PROVENANCE_FILE, readProvenance } from '../lora/provenance.js';
import { digestCheckpoint } from '../model/checkpoint.js';
import { readRun } from './run-folder.js';

/** The run whose `adapter/` or `checkpoints/step-N/adapter/` this folder is. */
export function runOf(adapter: string): string | null {
  const at = resolve(adapter);
  if (basename(at) !== 'adapter') return null;
  const above = dirname(at);
  const run = /^step-\d+$/.test(basename(above)) ? dirname(dirname(above)) : above;
  return existsSync(join(run, 'run.json')) ? run : null;
}

async function refuseOther(what: string, wanted: string, base: string, signal?: AbortSignal): Promise<void> {
  const got = await digestCheckpoint(base, signal ? { signal } : {});
  if (got === wanted) return;
  throw new IntegrityError(
    'base_changed',
    `${what} was trained on a base of digest ${wanted.slice(0, 12)}, ${base} has ` +
      `${got.slice(0, 12)}: another model, or ` +
      'one whose files changed since; bring back that base',
    { got, wanted, base },
  );
}

/**
 * @param base folder of the checkpoint that the adapter is put on; its digest is taken, or remembered, only where the
 * adapter says what it was
 * @throws {IntegrityError} base_changed; export_changed: its temper.json is of other tensors or another config
 */
export async function checkAdapterBase(adapter: string, base: string, signal?: AbortSignal): Promise<void> {
  const provenance = readProvenance(adapter);
  if (provenance) {
    // Ranks and scales stand in the config: an edit of it is another adapter as much as one of the tensors.
    for (const name of [CONFIG_FILE, TENSOR_FILE]) {
      const wanted = provenance.files[name],
        file = join(adapter, name),
        got = await sha256File(file, signal ? { signal } : {});
      if (got !== wanted)
        throw new IntegrityError(
          'export_changed',
          `${file}: digest is ${got.slice(0, 12)}, ${PROVENANCE_FILE} beside it says ` +
            `${(wanted ?? 'nothing').slice(0, 12)}: this is not what was exported; export it again, or remove ` +
            `${PROVENANCE_FILE} if the change is meant`,
          { file, got, wanted },
        );
    }
    return refuseOther(`${adapter}: the adapter (${PROVENANCE_FILE})`, provenance.digests.base, base, signal);
  }
  const run = runOf(adapter);
  const record = run ? readRun(run) : null;
  if (record && record.method !== 'pretrain')
    await refuseOther(`${adapter}: the adapter (run.json)`, record.digests.base, base, signal);
}
