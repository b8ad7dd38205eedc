// Cells of outcomes: what one arm was asked and said for one metric, prompt and sample, as people are shown it, and the
// digest by which a label names what it is about, so that it counts for nothing else.
import { sha256 } from '../base/digest.js';
import { ARMS, type Arm, jsonLines } from './outcomes.js';
import { type ReaderFields, readable, type Said } from './reader-fields.js';

export type { Said } from './reader-fields.js';
export interface Cell {
  /** Over metric, slice, prompt, sample, arm, value, judge, policy and what was asked and said; "sha256:…". */
  readonly digest: string;
  readonly value: number | null;
  /** null: the outcomes have no texts. */
  readonly asked: string | null;
  readonly said: Said | null;
  /** That the judge named, and why there is no value. */
  readonly rule: string | null;
  readonly cause: string | null;
  readonly judge: string | null;
  readonly policy: string | null;
}
/** By arm; one that has no row is not there. */
export type PairCells = Readonly<Partial<Record<Arm, Cell>>>;

export interface PairName {
  readonly metric: string;
  readonly slice?: string | null | undefined;
  readonly prompt: string;
  readonly sample: number;
}
export const pairKey = ({ metric, slice, prompt, sample }: PairName): string =>
  JSON.stringify([metric, slice ?? '', prompt, sample]);

interface Outcome extends PairName {
  readonly arm: Arm;
  readonly value: number | null;
  readonly judge?: string | null;
  readonly policy?: string | null;
}
type Row = Outcome & ReaderFields;
/** Where texts stand: one row of a case and an arm has those of all its metrics; of no case, each row its own. */
export const placeOf = (
  row: PairName & { readonly test?: string | null | undefined; readonly case?: number | null | undefined },
  arm: Arm,
): string =>
  typeof row.test === 'string' && typeof row.case === 'number'
    ? JSON.stringify([row.test, row.case, arm])
    : JSON.stringify([pairKey(row), arm]);
const rowsOf = function* (bytes: Uint8Array, file: string): Generator<Row, void, void> {
  for (const [row] of jsonLines(bytes, file, 'outcomes')) yield readable<Outcome>(row);
};

/**
 * @param bytes of outcomes that were read as such before
 * @param wanted keys of pairs
 */
export function cellsOf(bytes: Uint8Array, file: string, wanted: ReadonlySet<string>): ReadonlyMap<string, PairCells> {
  const found = [...rowsOf(bytes, file)].filter((row) => wanted.has(pairKey(row)));
  const places = new Set(found.map((row) => placeOf(row, row.arm)));
  const texts = new Map<string, Row>();
  for (const row of rowsOf(bytes, file)) {
    const place = placeOf(row, row.arm);
    if (row.said !== undefined && places.has(place)) texts.set(place, row);
  }
  const cells = new Map<string, Partial<Record<Arm, Cell>>>();
  for (const row of found) {
    const { metric, slice = null, prompt, sample, arm, value, judge = null, policy = null } = row;
    const { asked = null, said = null } = texts.get(placeOf(row, arm)) ?? {};
    const named = [metric, slice, prompt, sample, arm, value, judge, policy, asked, said];
    const digest = `sha256:${sha256(JSON.stringify(named))}`;
    const { rule = null, cause = null } = row;
    const pair = cells.get(pairKey(row)) ?? {};
    pair[arm] = { digest, value, asked, said, rule, cause, judge, policy };
    cells.set(pairKey(row), pair);
  }
  return cells;
}
/** Digests by arm, as a label has them. */
export const digestsOf = (cells: PairCells): Partial<Record<Arm, string>> =>
  Object.fromEntries(ARMS.flatMap((arm) => (cells[arm] ? [[arm, cells[arm].digest]] : [])));
