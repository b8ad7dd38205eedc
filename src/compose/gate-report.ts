// The reports of a gate's folder, with what the folder says of cost and proof.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { readInput } from '../base/inputs.js';
import { decodeJson } from '../base/json-file.js';
import { versions } from '../base/machine.js';
import { type Proof, type Reports, writeGateReports } from '../gate/report/index.js';

export interface GateReportRequest {
  readonly folder: string;
  readonly content?: boolean | undefined;
  /** How long the gate took. */
  readonly seconds?: number | null | undefined;
  readonly proof?: Proof | null | undefined;
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
/** @throws as writeGateReports */
export const reportGate = (
  { folder, content, seconds = secondsBefore(folder), proof = null }: GateReportRequest,
  signal?: AbortSignal,
): Promise<Reports> => writeGateReports({ folder, content, seconds, proof, version: versions().temper, signal });
