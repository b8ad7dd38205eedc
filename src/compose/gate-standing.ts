// How what is to be exported, pushed or served stands before the release gate. Runs in a thread of its own
// (gate-worker.ts): it hashes adapters and decides anew.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { IntegrityError } from '../base/errors.js';
import { FORMATS } from '../export/formats/index.js';
import { GATE_FOLDER } from '../export/gate-note.js';
import { openSource, type SourceRequest } from '../export/source.js';
import { readOverride } from '../gate/override.js';
import { gateStandingOf } from '../gate/record.js';
import { readProvenance } from '../lora/provenance.js';
import { digestCheckpoint } from '../model/checkpoint.js';
import type { Recipe } from '../recipe/schema.js';
import { runOf } from '../runs/adapter-base.js';
import type { Standing } from '../runs/standing.js';
import { exportedAdapterDigest, mergeRecipeDigest, type Subject, subjectOf } from '../runs/subject.js';
import { recipeOf } from '../runs/trained.js';
import { redecide, wantedBy } from './gate-tools.js';

export interface StandingRequest extends SourceRequest {
  /** Folders of evidence; default: gate/ in the run, or in the adapter's folder. */
  readonly gate?: readonly string[] | undefined;
  /** Forms that it is to be written in. */
  readonly formats: readonly string[];
}
export interface Stands {
  /** null: a whole model, which no gate judges. */
  readonly subject: Subject | null;
  readonly standing: Standing;
}

const NONE: Standing = {
  status: 'absent',
  reasons: [],
  decision: null,
  folder: null,
  digests: null,
  override: null,
};

/** What the project of an adapter says about its gate; null: nothing, or it is of no project. */
function projectGate(run: string | null, adapter: string | null): Recipe['gate'] | null {
  if (run !== null) return recipeOf(run).loaded.recipe.gate ?? null;
  if (adapter !== null && readProvenance(adapter)?.gate?.status === 'off') return 'off';
  return null;
}

async function oneStanding(
  folders: readonly string[],
  subject: Subject,
  project: Recipe['gate'] | null,
  signal?: AbortSignal,
): Promise<Standing> {
  const wanted = wantedBy(project);
  const found: Standing[] = [];
  for (const folder of folders) {
    const standing = await gateStandingOf({ folder, subject, redecide, wanted, signal });
    if (standing.status === 'passed') return standing;
    found.push(standing);
  }
  const best = found.find((s) => s.status !== 'absent') ?? found[0] ?? { ...NONE, reasons: ['no gate has judged it'] };
  // What was judged of something else says nothing about this.
  if ((best.status === 'absent' || best.status === 'stale') && project === 'off')
    return { ...NONE, status: 'off', reasons: ['the recipe says gate: off'] };
  return best;
}

/** @throws as openSource · the signal's reason */
export async function standingsOf(
  request: StandingRequest,
  signal?: AbortSignal,
): Promise<Readonly<Record<string, Stands>>> {
  using source = await openSource(request, signal);
  const { adapter, base, baseDigest, origin } = source;
  if (adapter === null)
    return Object.fromEntries(request.formats.map((name) => [name, { subject: null, standing: NONE }]));
  const run = origin.kind === 'run' ? origin.run : runOf(adapter.folder);
  const folders = request.gate ?? [join(run ?? adapter.folder, GATE_FOLDER)];
  const project = projectGate(run, origin.kind === 'adapter' ? origin.folder : null);
  const added = await subjectOf({ model: base.dir, adapter, baseDigest, signal });
  const out: Record<string, Stands> = {};
  for (const name of request.formats) {
    const merge = FORMATS.find((f) => f.name === name)?.merge;
    const subject = merge === undefined ? added : { ...added, mergeRecipe: mergeRecipeDigest(merge) };
    const same = Object.values(out).find((s) => s.subject?.mergeRecipe === subject.mergeRecipe);
    out[name] = { subject, standing: same?.standing ?? (await oneStanding(folders, subject, project, signal)) };
  }
  return out;
}

/**
 * Of a folder that `temper export` wrote, where neither run nor base need be there.
 * @throws {IntegrityError} bad_provenance, gate_override; gate_stale: its adapter is not the one that was judged
 */
export async function exportStanding(dir: string, signal?: AbortSignal): Promise<Stands | null> {
  const provenance = readProvenance(dir);
  if (provenance === null) return null;
  const { gate, format, digests } = provenance;
  if (gate === undefined)
    return { subject: null, standing: { ...NONE, reasons: ['it was exported without asking the gate'] } };
  if (gate.status === 'candidate')
    return {
      subject: gate.subject ?? null,
      standing: { ...NONE, reasons: ['it is a candidate, made for a gate to judge'] },
    };
  if (gate.status === 'none') {
    if (format === 'peft')
      throw stale(dir, 'says that it is a whole model, which no gate judges, and holds an adapter');
    return { subject: null, standing: { ...NONE, status: 'passed' } };
  }
  const { subject } = gate;
  if (subject === undefined) throw stale(dir, 'names no subject of the gate');
  if (format === 'peft') {
    const got = await exportedAdapterDigest(dir, signal);
    if (got !== subject.adapter) throw stale(dir, 'holds another adapter than the one that the gate judged');
  }
  if (`sha256:${digests.base}` !== subject.base) throw stale(dir, 'is for another base than the gate judged it on');
  const folder = join(dir, GATE_FOLDER);
  const standing = await gateStandingOf({ folder, subject, redecide, signal });
  // Who wants no gate has no evidence either; what is there and speaks against it counts.
  if (gate.status === 'off' && standing.status !== 'failed' && standing.status !== 'damaged')
    return { subject, standing: { ...NONE, status: 'off', reasons: ['its recipe says gate: off'] } };
  const { digests: found, checkpoint } = standing;
  if (checkpoint !== undefined && FORMATS.find((f) => f.name === format)?.checkpoint) {
    const got = `sha256:${await digestCheckpoint(dir, signal ? { signal } : {})}`;
    if (got !== checkpoint) throw stale(dir, 'holds another checkpoint than the one that the gate judged');
  }
  const other = (['decision', 'outcomes', 'suite', 'lock'] as const).find((k) => found && gate[k] !== found[k]);
  if (other !== undefined)
    return {
      subject,
      standing: { ...standing, status: 'damaged', reasons: [`gate/: its ${other} is not what was exported`] },
    };
  const override = existsSync(folder) ? readOverride(folder, subject) : null;
  if (override === null || standing.status === 'passed') return { subject, standing };
  const { signer, reason, time } = override;
  return { subject, standing: { ...standing, status: 'overridden', override: { signer, reason, time } } };
}
const stale = (dir: string, what: string): IntegrityError =>
  new IntegrityError('gate_stale', `${dir}: ${what}; export it again from what was judged`, { dir });
