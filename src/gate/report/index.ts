// The reports of a gate's folder: made of decision.json, outcomes and suite there, written beside them.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { writeFileAtomic } from '../../base/files.js';
import { readDecision } from '../decision.js';
import { DECISION_FILE, OUTCOMES_FILE } from '../record.js';
import { loadSuite } from '../suite.js';
import { htmlOf } from './html.js';
import { junitOf } from './junit.js';
import { markdownOf } from './markdown.js';
import { type Overview, overviewOf } from './overview.js';
import { sarifOf } from './sarif.js';
import type { Proof } from './words.js';

export type { Proof } from './words.js';

export interface ReportRequest {
  /** Folder of the gate. */
  readonly folder: string;
  /** Of Temper. */
  readonly version: string;
  /** The page shows what was asked and said, where the outcomes have it. Default: yes. */
  readonly content?: boolean | undefined;
  /** How long the gate took; null: not known. */
  readonly seconds?: number | null | undefined;
  readonly proof?: Proof | null | undefined;
  readonly signal?: AbortSignal | undefined;
}
export interface Reports {
  readonly html: string;
  readonly markdown: string;
  readonly json: string;
  readonly junit: string;
  readonly sarif: string;
}

/** As data: the same figures as the page has, no texts. */
function jsonOf(overview: Overview, proof: Proof | null): unknown {
  const { decision, suite, findings, examples, matrix, causes, cost } = overview;
  return {
    schema: 'temper.gate-report/1',
    decision: decision.decision,
    exit: decision.exit,
    reasons: decision.reasons,
    notes: decision.notes,
    suite: { name: suite.name, version: suite.version, digest: decision.suite },
    subject: decision.subject,
    lock: decision.lock,
    ...(decision.labelled ? { labelled: decision.labelled } : {}),
    findings: findings.map((e) => ({
      ...(e.of.arm === undefined ? {} : { arm: e.of.arm }),
      metric: e.of.metric,
      slice: e.of.slice,
      test: e.of.test,
      verdict: e.of.verdict,
      reasons: e.of.reasons,
      next: e.next,
      worse: e.worseCount,
      better: e.betterCount,
      prompts: [...new Set(e.worse.map((p) => p.prompt))],
    })),
    metrics: decision.metrics,
    examples: [...examples.values()].flat().map(({ arm, metric, slice, prompt, sample, base, adapter, line }) => ({
      ...(arm === 'adapter' ? {} : { arm }),
      ...{ metric, slice, prompt, sample, base, adapter, line },
    })),
    matrix,
    missing: Object.fromEntries(causes),
    cost,
    proof,
  };
}

/**
 * @throws {IntegrityError} bad_decision · {ConfigError} bad_suite · what reading and writing refuse · the signal's
 * reason
 */
export async function writeGateReports(request: ReportRequest): Promise<Reports> {
  const { folder, version, content = true, seconds, proof = null, signal } = request;
  const decision = readDecision(join(folder, DECISION_FILE));
  const { suite } = loadSuite(join(folder, 'suite', 'suite.yaml'));
  const outcomes = join(folder, OUTCOMES_FILE);
  const overview = await overviewOf(decision, suite, outcomes, { content, seconds, signal });
  const page = { proof, version };
  const written = {
    html: [join(folder, 'report.html'), htmlOf(overview, page)],
    markdown: [join(folder, 'report.md'), markdownOf(overview, page)],
    json: [join(folder, 'report.json'), `${JSON.stringify(jsonOf(overview, proof), null, 1)}\n`],
    junit: [join(folder, 'report.junit.xml'), junitOf(overview)],
    sarif: [join(folder, 'report.sarif'), sarifOf(overview, version)],
  } as const;
  for (const [file, text] of Object.values(written)) writeFileAtomic(file, text);
  return Object.fromEntries(Object.entries(written).map(([name, [file]]) => [name, file])) as unknown as Reports;
}
/** A folder that a gate has decided in. */
export const isGateFolder = (folder: string): boolean => existsSync(join(folder, DECISION_FILE));
