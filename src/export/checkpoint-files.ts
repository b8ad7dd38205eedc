// The small files of a checkpoint that a merged one takes along, and its config.json.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { CheckpointError } from '../base/errors.js';
import { readInput } from '../base/inputs.js';
import { readJsonFile } from '../base/json-file.js';
import type { ExportSource } from './format.js';

/** What tokenizes, renders and samples; licences. Weights and their index are written anew. */
const SMALL_FILES = {
  'generation_config.json': 'config',
  'tokenizer.json': 'tokenizer',
  'tokenizer_config.json': 'config',
  'special_tokens_map.json': 'config',
  'chat_template.jinja': 'config',
  LICENSE: 'config',
  USAGE_POLICY: 'config',
} as const;

/** The base's files by name; a tokenizer that only the run's recipe names too. */
export function smallFiles({ base, origin }: ExportSource): Record<string, Uint8Array> {
  const files: Record<string, Uint8Array> = {};
  for (const [name, kind] of Object.entries(SMALL_FILES)) {
    const path = join(base.dir, name);
    if (existsSync(path)) files[name] = readInput(path, kind);
  }
  const given = origin.kind === 'run' ? origin.recipe.model.tokenizer : undefined;
  if (!files['tokenizer.json'] && given) {
    const path = given.endsWith('.json') ? given : join(given, 'tokenizer.json');
    if (existsSync(path)) files['tokenizer.json'] = readInput(path, 'tokenizer');
  }
  return files;
}

/** The base's config.json with what the merged weights are: every other key stays as it was written. */
export function mergedConfig({ base }: ExportSource, experts: 'mxfp4' | 'dense'): Record<string, unknown> {
  const file = join(base.dir, 'config.json');
  const json = readJsonFile(file, 'config', {
    next: 'bring the base back',
    missing: (message) => new CheckpointError('file_missing', message, { file }),
    bad: (what) => new CheckpointError('bad_config', `${file}: ${what}`, { file }),
  }) as Record<string, unknown>;
  const { quantization_config: quantization, ...rest } = json;
  if (experts === 'mxfp4') return json;
  // transformers 4 reads torch_dtype, 5 reads it too where dtype is not there.
  return { ...rest, torch_dtype: 'bfloat16' };
}
