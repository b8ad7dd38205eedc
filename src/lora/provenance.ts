// temper.json beside an export: what it is, where it comes from, which base it is for and what its files must hash to.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { IntegrityError } from '../base/errors.js';
import { writeFileAtomic } from '../base/files.js';
import { readJsonFile } from '../base/json-file.js';

const named = z.string().regex(/^sha256:[0-9a-f]{64}$/);
/** How it stood before the release gate when it was exported; what shows it is in gate/. */
const Gate = z.strictObject({
  /** none: a whole model, which has no base to be compared with; candidate: made for a gate to judge, not let out. */
  status: z.enum(['passed', 'overridden', 'off', 'none', 'candidate']),
  /** What was judged: the digests of runs/subject.ts. */
  subject: z
    .strictObject({
      adapter: named,
      base: named,
      tokenizer: named,
      chatFormat: named,
      mergeRecipe: named.nullable(),
    })
    .optional(),
  decision: named.optional(),
  outcomes: named.optional(),
  suite: named.optional(),
  lock: named.optional(),
  override: z.strictObject({ signer: z.string(), reason: z.string(), time: z.string() }).optional(),
});
export type GateProvenance = z.infer<typeof Gate>;

/** A key more may say what nobody here honours: it is refused. */
const Provenance = z.strictObject({
  version: z.literal(1),
  /** Name of the export's format; absent: peft, which was the only one. */
  format: z.string().default('peft'),
  /** Run folder, relative to the export; absent: it comes of no run. */
  run: z.string().optional(),
  /** Folder of an adapter made elsewhere, relative to the export, and how its experts were said to lie. */
  adapter: z.string().optional(),
  expertLayout: z.enum(['natural', 'swapped']).optional(),
  /** Folder of the base, relative to the export; absent: the one that the run names. */
  model: z.string().optional(),
  /** What the base is called abroad, and the commit of its repository where that is known. */
  base: z.strictObject({ name: z.string(), commit: z.string().optional() }).optional(),
  /** Steps that its weights had; absent: those of the run's last checkpoint. */
  step: z.int().optional(),
  /** sha256 of the base; of a run also of recipe, data and tokenizer, of a foreign adapter of its tensors. */
  digests: z.looseObject({ base: z.string() }),
  /** What the format says of this export, such as what rounding cost. */
  report: z.record(z.string(), z.unknown()).optional(),
  /** Absent: written before there was a gate, or by who did not ask it. */
  gate: Gate.optional(),
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
  const bad = (what: string): IntegrityError =>
    new IntegrityError(
      'bad_provenance',
      `${file}: ${what}: not what an export writes, so neither base nor files can be checked; export the adapter again`,
      { file },
    );
  const value = readJsonFile(file, 'record', {
    next: 'export the adapter again',
    missing: (message) => new IntegrityError('bad_provenance', message, { file }),
    bad,
  });
  const parsed = Provenance.safeParse(value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw bad(`${issue?.path.length ? `${issue.path.join('.')}: ` : ''}${issue?.message ?? 'of another kind'}`);
}
