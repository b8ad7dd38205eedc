// The result of a probe in the evidence of a gate: what an attack by training made of the adapter, as far as anybody
// can read it. What it concludes is concluded again by whoever is given that function.
import { join } from 'node:path';
import { z } from 'zod';
import { IntegrityError } from '../base/errors.js';
import { readJsonFile } from '../base/json-file.js';
import { shortDigest } from '../runs/named-digest.js';
import { type JsonObject, sameJson } from '../verdict-log/canonical.js';
import type { Evidence } from './evidence.js';
import type { Findings } from './findings.js';
import type { Folder } from './folder.js';

/** In the folder of a gate. */
export const PROBE_FOLDER = 'probe';
const PROBE_FILE = `${PROBE_FOLDER}/probe.json`;

const Worst = z.looseObject({ metric: z.string(), step: z.number(), rate: z.number(), bound: z.number() });
const Probe = z.looseObject({
  status: z.string(),
  subject: z.looseObject({ adapter: z.string(), base: z.string() }),
  suite: z.looseObject({ digest: z.string() }),
  attack: z.looseObject({ data: z.string(), rows: z.number() }),
  maxRate: z.number().nullable(),
  worst: z.looseObject({ adapter: Worst, base: Worst }),
});
export interface ProbeFacts {
  readonly probe: z.infer<typeof Probe>;
  /** sha256 of probe.json, hex. */
  readonly sha256: string;
}

/** null: there was none. @throws {IntegrityError} gate_evidence */
export async function readProbe(gate: Folder): Promise<ProbeFacts | null> {
  if (!gate.has(PROBE_FILE)) return null;
  const file = gate.path(PROBE_FILE);
  const bad = (why: string): IntegrityError =>
    new IntegrityError('gate_evidence', `${file}: ${why}; probe again with temper gate probe`, { file });
  const value = readJsonFile(file, 'record', { next: 'probe again', missing: bad, bad });
  const read = Probe.safeParse(value);
  if (read.success) return { probe: read.data, sha256: await gate.sha256(PROBE_FILE) };
  const [issue] = read.error.issues;
  throw bad(`${issue?.path.join('.') || 'it'}: ${issue?.message ?? 'is of another form'}`);
}

/** What a statement says of it. */
export function probeResult({ probe, sha256 }: ProbeFacts): JsonObject {
  const { status, attack, suite, subject, maxRate, worst } = probe;
  const said = { status, attack, suite, subject, maxRate, worst };
  return { probe: { name: PROBE_FILE, digest: { sha256 } }, ...(structuredClone(said) as unknown as JsonObject) };
}

export interface ProbeContext {
  readonly evidence: Evidence | null;
  readonly facts: ProbeFacts | null;
  /** "sha256:…" of the adapter that is at hand; null: there is none. */
  readonly adapter: string | null;
  /** Concludes again from a probe's files; null: nothing does. */
  readonly reprobe: ((folder: string, signal?: AbortSignal) => unknown) | null;
  readonly signal?: AbortSignal | undefined;
}
export async function checkProbe(findings: Findings, context: ProbeContext): Promise<void> {
  const { evidence, facts, adapter, reprobe, signal } = context;
  const what = 'the probe: an attack by training';
  if (!evidence) return;
  if (!facts) {
    findings.add('missing', 'probe', what, 'nobody measured what a few steps of training on harm make of it');
    return;
  }
  const { subject } = facts.probe;
  const wrong = [
    ...(adapter !== null && adapter !== subject.adapter ? [`adapter ${shortDigest(subject.adapter)}`] : []),
    ...(evidence.decision.subject?.base !== subject.base ? [`base ${shortDigest(subject.base)}`] : []),
  ];
  if (wrong.length > 0) {
    findings.add('failed', 'probe', what, `is about ${wrong.join(' and ')}, which is another than this`);
    return;
  }
  const { worst } = facts.probe;
  const told = `at worst ${worst.adapter.rate} (${worst.adapter.metric}, step ${worst.adapter.step})`;
  if (!reprobe) {
    findings.add('unchecked', 'probe', what, `${told}; nothing here concludes again`);
    return;
  }
  const folder = join(evidence.folder.dir, PROBE_FOLDER);
  const again = await findings.attempt('probe', what, () => reprobe(folder, signal));
  if (again === null) return;
  const same = sameJson(again, facts.probe);
  findings.add(
    same ? 'ok' : 'failed',
    'probe',
    what,
    same ? `${told}: what its outcomes and suite give, concluded again` : 'is not what its outcomes and suite give',
  );
}
