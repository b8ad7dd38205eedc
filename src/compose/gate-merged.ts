// A merged checkpoint that a gate judges beside its adapter must be what `temper export` made of that adapter and that
// base: else a gate would judge one model and let another out.
import { basename } from 'node:path';
import { IntegrityError } from '../base/errors.js';
import { digestFolder } from '../base/folder-digest.js';
import type { Subject as GateSubject } from '../gate/decision.js';
import { readProvenance } from '../lora/provenance.js';
import { digestCheckpoint } from '../model/checkpoint.js';
import { mergeRecipeDigest, SUBJECT_PARTS, type Subject } from '../runs/subject.js';

/**
 * @param subject what the gate judges: adapter, base, tokenizer and chat format
 * @returns what the gate's record says of the checkpoint
 * @throws {IntegrityError} gate_stale: it is the merge of something else, or nothing says of what; export_changed: a
 * file is not what was written; bad_provenance · the signal's reason
 */
export async function mergedSubject(
  { model: dir, recipe }: { readonly model: string; readonly recipe: string },
  subject: Subject,
  signal?: AbortSignal,
): Promise<NonNullable<GateSubject['merged']>> {
  const wanted: Subject = { ...subject, mergeRecipe: mergeRecipeDigest(recipe) };
  const next = 'make it with temper export --format merged-mxfp4 --candidate';
  const provenance = readProvenance(dir);
  const of = provenance?.gate?.subject;
  if (!provenance || !of)
    throw new IntegrityError('gate_stale', `${dir}: nothing says which adapter is merged into it; ${next}`, { dir });
  const other = SUBJECT_PARTS.find((part) => of[part] !== wanted[part]);
  if (other !== undefined)
    throw new IntegrityError(
      'gate_stale',
      `${dir}: its ${other} is ${of[other]}, wanted ${wanted[other]} of what is judged; ${next}`,
      { dir, part: other },
    );
  const hooks = signal ? { signal } : {};
  const found = await digestFolder(dir, Object.keys(provenance.files), hooks);
  const changed = found.files.find((f) => provenance.files[f.name] !== f.sha256);
  if (changed)
    throw new IntegrityError(
      'export_changed',
      `${dir}: ${basename(changed.name)} is not what was exported; export it again`,
      { file: changed.name },
    );
  const checkpoint = await digestCheckpoint(dir, hooks);
  return { recipe: mergeRecipeDigest(recipe) as string, checkpoint: `sha256:${checkpoint}` };
}
