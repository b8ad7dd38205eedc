// The reports of a gate's folder, with what the folder says of cost and proof.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { readInput } from '../base/inputs.js';
import { decodeJson } from '../base/json-file.js';
import { versions } from '../base/machine.js';
import { readDecision } from '../gate/decision.js';
import { DECISION_FILE } from '../gate/record.js';
import { type Proof, type Reports, writeGateReports } from '../gate/report/index.js';
import { proofFor } from './gate-proof.js';

export interface GateReportRequest {
  readonly folder: string;
  readonly content?: boolean | undefined;
  /** How long the gate took. */
  readonly seconds?: number | null | undefined;
}
const Said = z.looseObject({ cost: z.looseObject({ seconds: z.number().nullable() }).optional() });
/** What a report before said, of which outcomes know nothing. */
function secondsBefore(folder: string): number | null {
  const file = join(folder, 'report.json');
  if (!existsSync(file)) return null;
  try {
    return Said.parse(decodeJson(readInput(file, 'record'))).cost?.seconds ?? null;
  } catch {
    return null; // it is made anew
  }
}
/** The proof in a gate's folder, where it is of the decision's lock. @throws {IntegrityError} bad_decision */
function proofIn(folder: string): Proof | null {
  const { lock } = readDecision(join(folder, DECISION_FILE));
  const proof = lock === null ? null : proofFor(folder, lock);
  return proof && { time: proof.at, knownBad: proof.bad.decision, harmless: proof.harmless.decision };
}
/** @throws as writeGateReports */
export const reportGate = async (
  { folder, content, seconds = secondsBefore(folder) }: GateReportRequest,
  signal?: AbortSignal,
): Promise<Reports> =>
  writeGateReports({ folder, content, seconds, proof: proofIn(folder), version: versions().temper, signal });
