// temper.json beside an export: where it comes from, which base it is for and what its files must hash to.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { IntegrityError } from '../base/errors.js';
import { writeFileAtomic } from '../base/files.js';
import { readInputText } from '../base/inputs.js';

const Provenance = z.object({
  version: z.literal(1),
  /** Run folder, relative to the export. */
  run: z.string(),
  /** Steps that its weights had; absent: those of the run's last checkpoint. */
  step: z.int().optional(),
  digests: z.object({ base: z.string() }),
  /** sha256 by name. */
  files: z.record(z.string(), z.string()),
});
export type Provenance = z.infer<typeof Provenance>;
export const PROVENANCE_FILE = 'temper.json';

export const writeProvenance = (dir: string, provenance: Provenance): void =>
  writeFileAtomic(join(dir, PROVENANCE_FILE), `${JSON.stringify(provenance, null, 2)}\n`);
/**
 * null: the folder says nothing of where it comes from.
 * @throws {IntegrityError} bad_provenance: what it says cannot be read
 */
export function readProvenance(dir: string): Provenance | null {
  const file = join(dir, PROVENANCE_FILE);
  if (!existsSync(file)) return null;
  try {
    return Provenance.parse(JSON.parse(readInputText(file, 'record')));
  } catch (e) {
    throw new IntegrityError(
      'bad_provenance',
      `${file}: not what an export writes, so neither base nor files can be checked; export the adapter again`,
      { file },
      { cause: e },
    );
  }
}
