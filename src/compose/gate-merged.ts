// A checkpoint that stands for an adapter in a gate must be what `temper export` made of that adapter and that base:
// else a gate would judge one model and let another out.
import { basename } from 'node:path';
import { IntegrityError } from '../base/errors.js';
import { digestFolder } from '../base/folder-digest.js';
import type { Subject } from '../gate/decision.js';
import { readProvenance } from '../lora/provenance.js';
import { SUBJECT_PARTS } from '../runs/subject.js';

/**
 * @param dir     checkpoint, with temper.json
 * @param subject what the gate is to judge, merge recipe included
 * @throws {IntegrityError} gate_stale: it is the merge of something else, or nothing says of what; export_changed: a
 * file is not what was written; bad_provenance · the signal's reason
 */
export async function requireMerge(dir: string, subject: Subject, signal?: AbortSignal): Promise<void> {
  const next = 'make it with temper export --format merged-mxfp4 --candidate';
  const provenance = readProvenance(dir);
  const of = provenance?.gate?.subject;
  if (!provenance || !of)
    throw new IntegrityError('gate_stale', `${dir}: nothing says which adapter is merged into it; ${next}`, { dir });
  const other = SUBJECT_PARTS.find((part) => of[part] !== subject[part]);
  if (other !== undefined)
    throw new IntegrityError(
      'gate_stale',
      `${dir}: its ${other} is ${of[other]}, wanted ${subject[other]} of what is judged; ${next}`,
      { dir, part: other },
    );
  const found = await digestFolder(dir, Object.keys(provenance.files), signal ? { signal } : {});
  const changed = found.files.find((f) => provenance.files[f.name] !== f.sha256);
  if (changed)
    throw new IntegrityError(
      'export_changed',
      `${dir}: ${basename(changed.name)} is not what was exported; export it again`,
      { file: changed.name },
    );
}
