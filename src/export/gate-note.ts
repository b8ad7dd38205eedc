// What an export says of the release gate: in its card, in temper.json, and in gate/, where the evidence lies.
import { existsSync, lstatSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { IntegrityError } from '../base/errors.js';
import { writeFlushed } from '../base/files.js';
import { makeFolders } from '../base/folders.js';
import { readInput } from '../base/inputs.js';
import type { GateProvenance } from '../lora/provenance.js';
import { digestCheckpoint } from '../model/checkpoint.js';
import { labelsText, type Standing } from '../runs/standing.js';
import { type Subject, subjectOf } from '../runs/subject.js';
import type { ExportFormat, ExportSource } from './format.js';

export interface GateNote {
  readonly standing: Standing;
  /** What was judged; null: a whole model, which no gate judges. */
  readonly subject: Subject | null;
  /** It is made for a gate to judge, and not let out. */
  readonly candidate?: boolean | undefined;
  /** A signed override, as it is written into gate/. */
  readonly override?: string | undefined;
}
/** By name of the format: what is merged is another model than what is added. */
export type GateNotes = Readonly<Record<string, GateNote>>;

export const GATE_FOLDER = 'gate';
export const OVERRIDE_FILE = 'override.json';

/**
 * What is about to be written is what was judged.
 * @throws {IntegrityError} gate_stale: it changed since
 */
export async function checkNote(
  source: ExportSource,
  format: ExportFormat,
  { subject }: GateNote,
  signal?: AbortSignal,
): Promise<void> {
  const { adapter, base, baseDigest } = source;
  if (subject === null || adapter === null) return;
  const { merge } = format;
  const now = await subjectOf({ model: base.dir, adapter, merge, baseDigest, signal });
  const part = (Object.keys(now) as (keyof Subject)[]).find((key) => now[key] !== subject[key]);
  if (part !== undefined)
    throw new IntegrityError(
      'gate_stale',
      `${adapter.folder}: its ${part} changed while it was exported; export it again when nothing writes to it`,
      { part, got: now[part], wanted: subject[part] },
    );
}

/**
 * What was written is the checkpoint that was judged.
 * @throws {IntegrityError} gate_stale: it is another one
 */
export async function checkWritten(
  folder: string,
  { checkpoint }: ExportFormat,
  { standing }: GateNote,
  signal?: AbortSignal,
): Promise<void> {
  if (checkpoint !== true || standing.checkpoint === undefined) return;
  const got = `sha256:${await digestCheckpoint(folder, signal ? { signal } : {})}`;
  if (got !== standing.checkpoint)
    throw new IntegrityError(
      'gate_stale',
      `the checkpoint that was merged is ${got}, the gate judged ${standing.checkpoint}; make a candidate with this ` +
        'version, and hold the gate over it (temper gate --merged DIR)',
      { got, wanted: standing.checkpoint },
    );
}

export function gateProvenance({ standing, subject, candidate }: GateNote): GateProvenance {
  const { status, digests, override } = standing;
  if (subject === null) return { status: 'none' };
  if (candidate === true) return { status: 'candidate', subject: { ...subject } };
  if (status !== 'passed' && status !== 'overridden' && status !== 'off')
    throw new TypeError(`an adapter that is ${status} is not exported`);
  return {
    status,
    subject: { ...subject },
    ...(digests ?? {}),
    ...(override ? { override: { ...override } } : {}),
  };
}

/** Names of what makes and shows a decision; anything else in the folder stays where it is. */
const EVIDENCE: readonly string[] = [
  'decision.json',
  'outcomes.jsonl',
  'labels.jsonl',
  'gate.lock.json',
  'proved.json',
  'suite',
  'attestations',
  'probe',
  ...['html', 'md', 'json', 'junit.xml', 'sarif'].map((form) => `report.${form}`),
];
/** What it tuned may lie beside these, and goes nowhere. */
const PROBE_EVIDENCE: readonly string[] = [
  ...['probe.json', 'probe.html', 'probe.md', 'points', 'suite', 'gate.lock.json'],
];
function copyFolder(
  from: string,
  to: string,
  wanted: (name: string) => boolean,
  below?: Readonly<Record<string, (name: string) => boolean>>,
): void {
  makeFolders(to);
  for (const name of readdirSync(from).sort()) {
    const path = join(from, name);
    if (!wanted(name)) continue;
    const s = lstatSync(path);
    if (s.isDirectory()) copyFolder(path, join(to, name), below?.[name] ?? (() => true));
    else if (s.isFile()) writeFlushed(join(to, name), readInput(path, 'outcomes'));
    else
      throw new IntegrityError('gate_damaged', `${path}: is no regular file, which no gate writes; hold it again`, {
        file: path,
      });
  }
}
/** @throws {IntegrityError} gate_damaged: a link or a device among it */
export function copyEvidence({ standing, override, candidate }: GateNote, folder: string): void {
  const { folder: from } = standing;
  if (candidate === true) return;
  if (from === null && override === undefined) return;
  const to = join(folder, GATE_FOLDER);
  makeFolders(to);
  if (from !== null && existsSync(from))
    copyFolder(from, to, (name) => EVIDENCE.includes(name), { probe: (name) => PROBE_EVIDENCE.includes(name) });
  if (override !== undefined) writeFlushed(join(to, OVERRIDE_FILE), override);
}

/** @param cell makes text of data harmless */
export function gateCard({ standing, subject, candidate }: GateNote, cell: (text: string) => string): string {
  const { status, reasons, digests, override, labelled } = standing;
  if (subject === null) return '';
  const head = '\n## Release gate\n\n';
  if (candidate === true)
    return `${head}**Not judged yet.** This is a candidate: made for the gate to judge, and not to be let out.\n`;
  if (status === 'off')
    return `${head}**None.** The recipe says \`gate: off\`: nobody compared this adapter with its base for safety.\n`;
  const shown = digests
    ? `\n| | sha256 |\n|---|---|\n| adapter | \`${subject.adapter}\` |\n${Object.entries(digests)
        .map(([name, digest]) => `| ${name} | \`${digest}\` |\n`)
        .join('')}`
    : '';
  if (status === 'passed')
    return (
      `${head}**Passed**: compared with its base on the same prompts, every metric within its margin and below its ` +
      `cap. The evidence is in gate/; gate/report.html tells it.\n${
        labelled ? `\nPeople had a say: ${cell(labelsText(labelled))}.\n` : ''
      }${shown}`
    );
  return (
    `${head}**Released against the gate**, which it did not pass: ` +
    `${reasons.map(cell).join('; ')}. Key \`${override?.signer ?? 'unknown'}\` answers for it, ${cell(
      override?.time ?? '',
    )}: ${cell(override?.reason ?? '')}. The signed statement is gate/${OVERRIDE_FILE}.\n${shown}`
  );
}
