// What a release gate judges, as digests: the adapter, the base it is put on, the tokenizer and the chat format it is
// asked in, and what it is merged into. Whoever gates, exports, pushes, serves or audits takes them from here, so that
// a verdict holds for exactly what it was given on.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { sha256, sha256File } from '../base/digest.js';
import { chatFormatDigest } from '../harmony/format-digest.js';
import { digestPeft, digestPeftFolder } from '../lora/adapter-digest.js';
import { openPeft, type PeftFile } from '../lora/peft-file.js';
import type { Orientation } from '../lora/peft-layout.js';
import { digestCheckpoint } from '../model/checkpoint.js';
import { readConfig } from '../model/config.js';

/** Each as `sha256:` and 64 hex digits. */
export interface Subject {
  /** Of configuration and numbers (lora/adapter-digest.ts): the same for a run's adapter and its export. */
  readonly adapter: string;
  /** digestCheckpoint. */
  readonly base: string;
  /** Of the base's tokenizer.json; of nothing where it has none. */
  readonly tokenizer: string;
  readonly chatFormat: string;
  /** Of how it is merged and rounded; null: it is added to the base as it is. */
  readonly mergeRecipe: string | null;
}
export const SUBJECT_PARTS = ['adapter', 'base', 'tokenizer', 'chatFormat', 'mergeRecipe'] as const;

const named = (hex: string): string => `sha256:${hex}`;
/** @param merge name of what it is merged into, as `mxfp4` or `bf16`; null: nothing */
export const mergeRecipeDigest = (merge: string | null): string | null =>
  merge === null ? null : named(sha256(`temper merge 1\n${merge}\n`));

export interface SubjectOptions {
  /** Folder of the base. */
  readonly model: string;
  /** PEFT folder, or one that is open. */
  readonly adapter: string | PeftFile;
  readonly expertLayout?: Orientation | undefined;
  /** What it is merged into; default: what it was trained to be merged into, or nothing. */
  readonly merge?: string | null | undefined;
  /** Of the base, where it is known. */
  readonly baseDigest?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}
/**
 * @throws {CheckpointError} as openPeft · the signal's reason
 */
export async function subjectOf(options: SubjectOptions): Promise<Subject> {
  const { model, adapter, expertLayout, merge, baseDigest, signal } = options;
  if (typeof adapter === 'string') {
    using file = openPeft(adapter, readConfig(model), { expertLayout });
    return await subjectOf({ ...options, adapter: file });
  }
  const hooks = signal ? { signal } : {};
  const tokenizer = join(model, 'tokenizer.json');
  return {
    adapter: named(await digestPeft(adapter, signal)),
    base: named(baseDigest ?? (await digestCheckpoint(model, hooks))),
    tokenizer: named(existsSync(tokenizer) ? await sha256File(tokenizer, hooks) : sha256('')),
    chatFormat: named(chatFormatDigest()),
    mergeRecipe: mergeRecipeDigest(merge === undefined ? (adapter.spec.mergeAware ?? null) : merge),
  };
}
/** Of a folder that `temper export` or a run wrote, where the base is not at hand. */
export const exportedAdapterDigest = async (folder: string, signal?: AbortSignal): Promise<string> =>
  named(await digestPeftFolder(folder, signal));
