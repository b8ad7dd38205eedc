// Joins what shards left: every row once, in the order of the input, to the bytes that one run would have written.
import { createHash } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { IntegrityError } from '../../base/errors.js';
import { putInPlace } from '../../base/files.js';
import { checkOutputs, placeOf } from '../../base/outputs.js';
import { removeLeftovers, temporaryName } from '../../base/temporary.js';
import type { VerdictRow } from '../agreement.js';
import { isDetectorVerdict } from '../detectors/index.js';
import { lineBatches } from './lines.js';
import { type Footer, readFooter, sealOf } from './part.js';
import { type BatchSummary, Tally } from './tally.js';
import { VerdictFile } from './verdict-file.js';

export interface MergeOptions {
  /** One of each shard, in any order. */
  readonly parts: readonly string[];
  readonly output: string;
  readonly signal?: AbortSignal;
  readonly onRow?: (rowsDone: number, rows: number) => void;
  readonly onVerdict?: (row: VerdictRow) => void;
  /** The complete file of verdicts, before it is put in its place; reports are made of it. */
  readonly onComplete?: (file: string) => Promise<void>;
}

interface Part {
  readonly file: string;
  readonly footer: Footer;
  /** Where its last line begins. */
  readonly at: number;
}

/** The parts in the order of their shards. @throws {IntegrityError} part_damaged, part_overlap, part_gap, part_mixed */
function readParts(files: readonly string[]): readonly Part[] {
  const parts = files.map((file): Part => ({ file, ...readFooter(file) }));
  const [first] = parts;
  if (!first) throw new IntegrityError('part_gap', 'screen merge: no part is given');
  const { of, rows } = first.footer;
  const byShard = new Map<number, Part>();
  for (const part of parts) {
    const { footer, file } = part;
    const differs = differenceOf(first, part);
    if (differs)
      throw new IntegrityError('part_mixed', `${file} and ${first.file}: ${differs}; screen all shards alike`);
    const twice = byShard.get(footer.shard);
    if (twice)
      throw new IntegrityError(
        'part_overlap',
        `${file} and ${twice.file}: both are shard ${footer.shard} of ${of}; give each once`,
      );
    byShard.set(footer.shard, part);
  }
  checkPolicies(parts);
  const missing = Array.from({ length: of }, (_, i) => i + 1).filter((i) => !byShard.has(i));
  if (missing.length > 0)
    throw new IntegrityError(
      'part_gap',
      `screen merge: of ${of} shards ${missing.slice(0, 12).join(', ')}${missing.length > 12 ? ', …' : ''} ` +
        `${missing.length === 1 ? 'is' : 'are'} missing; screen what is missing and give all parts`,
    );
  const ordered = Array.from({ length: of }, (_, i) => byShard.get(i + 1) as Part);
  for (const { file, footer } of ordered)
    if (footer.own !== Math.max(0, Math.ceil((rows - footer.shard + 1) / of)))
      throw new IntegrityError(
        'part_damaged',
        `${file}: ${footer.own} rows are too many or too few for shard ${footer.shard}/${of}`,
      );
  return ordered;
}

/** What the input is called, where it is one file; reports name it. @throws {IntegrityError} part_damaged */
export function inputName([part]: readonly string[]): string | undefined {
  const { names } = part === undefined ? { names: [] } : readFooter(part).footer;
  return names.length === 1 ? names[0] : undefined;
}

/** Policies that judged something. @throws {IntegrityError} part_damaged */
export const policiesIn = (parts: readonly string[]): readonly string[] => [
  ...new Set(parts.flatMap((part) => judgedBy(readFooter(part).footer))),
];

/** What two parts differ in that all must share; null: nothing. */
function differenceOf(a: Part, b: Part): string | null {
  const [x, y] = [a.footer, b.footer];
  if (x.of !== y.of) return `one is of ${x.of} shards, one of ${y.of}`;
  if (x.rows !== y.rows || x.inputs.join() !== y.inputs.join()) return 'they are of different inputs';
  return x.blank === y.blank ? null : 'they passed over different rows';
}

/** Names of policies, those of detectors left out. */
const judgedBy = ({ policies }: Footer): readonly string[] =>
  Object.keys(policies)
    .filter((policy) => !isDetectorVerdict({ policy }))
    .sort();

/**
 * Every text is judged by every policy, so that two parts with verdicts of policies have them of the same ones. A part
 * whose rows had nothing to judge has none, and detectors have one only where they found something.
 * @throws {IntegrityError} part_mixed
 */
function checkPolicies(parts: readonly Part[]): void {
  const mixed = (a: Part, b: Part, why: string): IntegrityError =>
    new IntegrityError('part_mixed', `${b.file} and ${a.file}: ${why}; screen all shards alike`);
  const namesOf = ({ footer }: Part): string => judgedBy(footer).join(', ');
  const judged = parts.filter((part) => namesOf(part) !== '');
  const [first] = judged;
  const other = judged.find((part) => first && namesOf(part) !== namesOf(first));
  if (first && other) throw mixed(first, other, `one was judged by ${namesOf(first)}, the other by ${namesOf(other)}`);
  const seen = new Map<string, Part>();
  for (const part of parts)
    for (const [policy, digests] of Object.entries(part.footer.policies)) {
      const before = seen.get(policy) ?? part;
      seen.set(policy, before);
      for (const what of ['policy', 'judge', 'detectors', 'judging'] as const)
        if (digests[what] !== before.footer.policies[policy]?.[what])
          throw mixed(before, part, `policy ${policy}: they differ in the digest of the ${what}`);
    }
}

const ROW = /^\{"row":([0-9]{1,15}),/;

/**
 * The lines of a part by their rows, hashed and counted. @throws {IntegrityError} part_damaged, part_gap, part_mixed
 */
async function* rowsOf(
  part: Part,
  signal: AbortSignal | undefined,
): AsyncGenerator<{ readonly row: number; readonly lines: readonly string[] }, void, void> {
  const { file, footer } = part;
  const hash = createHash('sha256');
  let [at, verdicts, wanted] = [0, 0, footer.shard - 1];
  let open: { row: number; lines: string[] } | null = null;
  for await (const batch of lineBatches(file, { signal }))
    for (const { bytes, error } of batch) {
      if (error || !bytes) throw new IntegrityError('part_damaged', `${file}: a line is too long`);
      if (at >= part.at) break;
      at += bytes.length + 1;
      hash.update(bytes).update('\n');
      verdicts++;
      const text = bytes.toString('utf8');
      const row = Number(ROW.exec(text)?.[1] ?? -1);
      if (open && row === open.row) {
        open.lines.push(text);
        continue;
      }
      if (row !== wanted)
        throw new IntegrityError(
          'part_gap',
          `${file}: row ${row} where row ${wanted} of shard ${footer.shard} was to come`,
        );
      wanted += footer.of;
      if (open) yield open;
      open = { row, lines: [text] };
    }
  const { sha256, ...said } = footer;
  if (at !== part.at || verdicts !== footer.verdicts || sealOf(said, hash) !== sha256)
    throw new IntegrityError(
      'part_damaged',
      `${file}: its bytes are not those that its last line speaks of; copy it again`,
    );
  if (open) yield open;
}

/**
 * Writes the verdicts of all parts to `output`, in the order of the rows.
 * @throws {IntegrityError} part_overlap: a shard is there twice; part_gap: one is missing, or a row of it; part_mixed:
 *   other inputs, policies, judges or detectors; part_damaged: a part is cut, changed, or none · {ConfigError} output
 */
export async function mergeParts(options: MergeOptions): Promise<BatchSummary> {
  const { output, signal, onRow, onVerdict } = options;
  checkOutputs({ '--out': output }, { files: options.parts });
  const parts = readParts(options.parts);
  const total = parts[0]?.footer.rows ?? 0;
  const { target, stream } = placeOf(output);
  if (!stream) removeLeftovers(target);
  const out = await VerdictFile.create(temporaryName(stream ? join(tmpdir(), 'temper-merge') : target), output);
  const readers = parts.map((part) => rowsOf(part, signal));
  const tally = new Tally();
  try {
    for (let row = 0; row < total; row++) {
      const part = parts[row % parts.length] as Part;
      const next = await (readers[row % parts.length] as (typeof readers)[number]).next();
      if (next.done || next.value.row !== row)
        throw new IntegrityError('part_gap', `${part.file}: row ${row} is missing`);
      for (const text of next.value.lines) {
        const line = `{${text.slice((ROW.exec(text) as RegExpExecArray)[0].length)}`;
        const verdict = verdictOf(part, line);
        tally.add(verdict, verdict.expect);
        onVerdict?.(verdict);
        out.add(line);
      }
      tally.rows++;
      onRow?.(tally.rows, total);
      if (out.room) await out.room;
    }
    for (const [i, reader] of readers.entries())
      if (!(await reader.next()).done)
        throw new IntegrityError('part_damaged', `${parts[i]?.file}: has more rows than it says`);
    await out.finish();
    await options.onComplete?.(out.path);
    await putInPlace(out.path, output, signal);
    return tally.summary(0, parts[0]?.footer.blank ?? 0);
  } finally {
    for (const reader of readers) await reader.return();
    await out.close();
    await rm(out.path, { force: true });
  }
}

/** @throws {IntegrityError} part_damaged, part_mixed */
function verdictOf({ file, footer }: Part, line: string): VerdictRow {
  let verdict: VerdictRow;
  try {
    verdict = JSON.parse(line) as VerdictRow;
  } catch {
    throw new IntegrityError('part_damaged', `${file}: a line is not JSON`);
  }
  const { policy, digests, outcome } = verdict;
  if (outcome !== 'allow' && outcome !== 'block' && outcome !== 'unjudged')
    throw new IntegrityError('part_damaged', `${file}: a line is no verdict`);
  const said = Object.hasOwn(footer.policies, policy) ? footer.policies[policy] : undefined;
  if (policy !== '' && (said?.policy !== digests?.policy || said?.judge !== digests?.judge))
    throw new IntegrityError(
      'part_mixed',
      `${file}: a verdict of policy ${policy} has other digests than its last line says`,
    );
  return verdict;
}
