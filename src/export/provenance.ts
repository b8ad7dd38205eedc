// temper.json beside an export: where it comes from and what its files must hash to.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { writeFileAtomic } from '../base/files.js';
import { readInputText } from '../base/inputs.js';

export interface Provenance {
  readonly version: 1;
  /** Run folder, relative to the export. */
  readonly run: string;
  /** Steps that its weights had; absent: those of the run's last checkpoint. */
  readonly step?: number;
  readonly digests: unknown;
  /** sha256 by name. */
  readonly files: Readonly<Record<string, string>>;
}
const PROVENANCE = 'temper.json';

export const writeProvenance = (dir: string, provenance: Provenance): void =>
  writeFileAtomic(join(dir, PROVENANCE), `${JSON.stringify(provenance, null, 2)}\n`);
/** null: the folder says nothing of where it comes from. */
export function readProvenance(dir: string): Provenance | null {
  const file = join(dir, PROVENANCE);
  return existsSync(file) ? (JSON.parse(readInputText(file, 'record')) as Provenance) : null;
}
