// Statements about a folder (attestations/*.json): who signed them, that they are about exactly these files, and that
// what they say is what the evidence says.

import { readInput } from '../base/inputs.js';
import { decodeJson } from '../base/json-file.js';
import { shortDigest } from '../runs/named-digest.js';
import { sameJson } from '../verdict-log/canonical.js';
import { BOM_FILE, performanceMetrics } from './bom.js';
import { checkSignature, readBundle, type SignatureOptions } from './bundle.js';
import { modelFiles } from './check-signature.js';
import { ATTESTATIONS, type Evidence, OVERRIDE_FILE } from './evidence.js';
import { type Finding, Findings, some } from './findings.js';
import { type Folder, isBelow } from './folder.js';
import type { Origin } from './origin.js';
import {
  BOM,
  configurationOf,
  EVAL_RESULT,
  evalResult,
  PASS_PROPERTY,
  PROBE_RESULT,
  PROVENANCE,
  provenance,
  resultOf,
  SVR,
  simpleVerification,
  TEST_RESULT,
  testResult,
} from './predicates.js';
import { PROBE_FOLDER, type ProbeFacts, probeResult } from './probe.js';
import { readStatement, type Statement } from './statement.js';

export interface AttestationContext extends SignatureOptions {
  readonly evidence: Evidence | null;
  /** null: there was no probe. */
  readonly probe: ProbeFacts | null;
  readonly origin: Origin | null;
  /** "sha256:…" of the adapter as a gate names it; null: it is not at hand. */
  readonly adapter: string | null;
}
type Check = (
  statement: Statement,
  folder: Folder,
  context: AttestationContext,
) => Promise<readonly string[]> | readonly string[];

/** Members of a predicate that are not what they must be. */
const differing = (
  predicate: Readonly<Record<string, unknown>>,
  wanted: Readonly<Record<string, unknown>>,
  keys: readonly string[],
): string[] =>
  keys.filter((key) => !sameJson(predicate[key], wanted[key])).map((key) => `its ${key} is not what the evidence says`);
const NO_GATE = ['is about a gate whose evidence is not here'];

/** Files that a test result names, against those that lie there. */
async function configurationProblems(
  predicate: Readonly<Record<string, unknown>>,
  evidence: Evidence,
): Promise<string[]> {
  const { folder } = evidence;
  const judged = new Map((await configurationOf(evidence, [])).map((r) => [r.name, r.digest.sha256]));
  const problems: string[] = [];
  const named = Array.isArray(predicate.configuration) ? (predicate.configuration as readonly unknown[]) : [];
  const seen = new Set<string>();
  for (const entry of named) {
    const { name, digest } = (entry ?? {}) as {
      readonly name?: unknown;
      readonly digest?: { readonly sha256?: unknown };
    };
    if (typeof name !== 'string') return ['its configuration cannot be read'];
    seen.add(name);
    if (name.startsWith('subject:')) {
      if (judged.get(name) !== digest?.sha256) problems.push(`its ${name} is not what the gate judged`);
    } else if (!folder.has(name)) problems.push(`gate/${name} is not here`);
    else if ((await folder.sha256(name)) !== digest?.sha256)
      problems.push(`gate/${name} is not the file it was made of`);
  }
  for (const name of judged.keys()) if (!seen.has(name)) problems.push(`does not name ${name}`);
  for (const e of folder.entries)
    if (!seen.has(e.name) && !isBelow(e.name, [ATTESTATIONS, OVERRIDE_FILE, PROBE_FOLDER]))
      problems.push(`gate/${e.name} was not there when it was made`);
  return problems;
}

const CHECKS: Readonly<Record<string, Check>> = {
  [TEST_RESULT]: async ({ predicate }, _folder, { evidence }) => {
    if (!evidence) return NO_GATE;
    const wanted = testResult(evidence, []);
    return [
      ...(predicate.result === resultOf(evidence)
        ? []
        : [`says ${String(predicate.result)}, the gate ${evidence.decision.decision}`]),
      ...differing(predicate, wanted, ['passedTests', 'warnedTests', 'failedTests']),
      ...(await configurationProblems(predicate, evidence)),
    ];
  },
  [SVR]: ({ predicate }, _folder, { evidence }) => {
    if (!evidence) return NO_GATE;
    const wanted = simpleVerification(evidence, '');
    const properties = Array.isArray(predicate.properties) ? (predicate.properties as readonly unknown[]) : [];
    return [
      ...(properties.includes(PASS_PROPERTY) && evidence.decision.decision !== 'PASS'
        ? [`says ${PASS_PROPERTY}, and the gate decided ${evidence.decision.decision}`]
        : []),
      ...differing(predicate, wanted, ['verifier', 'properties']),
    ];
  },
  [EVAL_RESULT]: ({ predicate }, _folder, { evidence }) => {
    if (!evidence) return NO_GATE;
    const wanted = evalResult(evidence, '', '');
    return differing(predicate, wanted, ['suite', 'claims', 'sampleSize', 'commitments', 'preRegistration', 'receipt']);
  },
  [PROBE_RESULT]: ({ predicate }, _folder, { probe }) => {
    if (!probe) return ['is about a probe whose result is not here'];
    return sameJson(predicate, probeResult(probe)) ? [] : ['is not what the probe says'];
  },
  [PROVENANCE]: ({ predicate }, _folder, { origin }) => {
    if (!origin?.training) return ['nothing here says how it was trained'];
    const named = (p: Readonly<Record<string, unknown>>): ReadonlyMap<string, unknown> => {
      const { resolvedDependencies: all } = (p.buildDefinition ?? {}) as { readonly resolvedDependencies?: unknown };
      return new Map(
        (Array.isArray(all) ? all : []).map((d: { name?: string; digest?: unknown }) => [d?.name ?? '', d?.digest]),
      );
    };
    const [said, known] = [named(predicate), named(provenance(origin.training))];
    // Which code it was the run alone knows, where that is at hand.
    return ['recipe', 'base', 'data', 'tokenizer', ...(known.has('code') ? ['code'] : [])]
      .filter((name) => !sameJson(said.get(name), known.get(name)))
      .map((name) => `its digest of the ${name} is not that of ${name === 'code' ? 'the run' : 'temper.json'}`);
  },
  [BOM]: async ({ predicate }, folder, { evidence }) => {
    const file = `${ATTESTATIONS}/${BOM_FILE}`;
    const problems =
      folder.has(file) && !sameJson(decodeJson(readInput(folder.path(file), 'record')), predicate)
        ? [`${file} is not what was signed`]
        : [];
    const { metadata } = predicate as {
      readonly metadata?: {
        readonly component?: {
          readonly modelCard?: { readonly quantitativeAnalysis?: { readonly performanceMetrics?: unknown } };
        };
      };
    };
    const said = metadata?.component?.modelCard?.quantitativeAnalysis?.performanceMetrics;
    return sameJson(said, performanceMetrics(evidence?.decision.metrics ?? []))
      ? problems
      : [...problems, 'its metrics are not those of the gate'];
  },
};

/** Subjects by name against the files; all that makes the model must be among them. */
async function subjectProblems({ subject }: Statement, folder: Folder, adapter: string | null): Promise<string[]> {
  const problems: string[] = [];
  for (const { name = '', digest } of subject)
    if (name === 'adapter') {
      if (adapter !== null && `sha256:${digest.sha256}` !== adapter)
        problems.push(`is about adapter ${shortDigest(digest.sha256 ?? '')}, this is ${shortDigest(adapter)}`);
    } else if (!folder.has(name)) problems.push(`is about ${name}, which is not here`);
    else if ((await folder.sha256(name)) !== digest.sha256) problems.push(`is about another ${name}`);
  const named = new Set(subject.map((s) => s.name));
  return [
    ...problems,
    ...modelFiles(folder)
      .filter((name) => !named.has(name))
      .map((name) => `says nothing of ${name}`),
  ];
}

export async function checkAttestations(folder: Folder, context: AttestationContext): Promise<readonly Finding[]> {
  const findings = new Findings('attestation');
  const entries = folder.entries.filter((e) => e.name.startsWith(`${ATTESTATIONS}/`));
  const found = new Set<string>();
  for (const { name, kind } of entries) {
    if (name === `${ATTESTATIONS}/${BOM_FILE}`) continue;
    if (kind !== 'file') {
      findings.add('failed', 'form', name, 'is a link or no plain file');
      continue;
    }
    const bundle = await findings.attempt('form', name, () => readBundle(readInput(folder.path(name), 'record'), name));
    const statement =
      bundle && (await findings.attempt('form', name, () => readStatement(bundle.envelope.payload, name)));
    if (!bundle || !statement) continue;
    const { status, signer, why } = checkSignature(bundle, context);
    const what = `${name}, by ${signer}`;
    if (status === 'failed') {
      findings.add('failed', 'by', what, why ?? 'the signature does not hold');
      continue;
    }
    const check = Object.hasOwn(CHECKS, statement.predicateType) ? CHECKS[statement.predicateType] : undefined;
    found.add(statement.predicateType);
    const problems = await findings.attempt('content', name, async () => [
      ...(await subjectProblems(statement, folder, context.adapter)),
      ...((await check?.(statement, folder, context)) ?? []),
    ]);
    if (!problems) continue;
    if (problems.length > 0) findings.add('failed', 'content', what, some(problems, 4));
    else if (status === 'untrusted') findings.add('unchecked', 'by', what, why ?? '');
    else if (!check)
      findings.add(
        'unchecked',
        'content',
        what,
        `signed, and of a kind that is not known here: ${statement.predicateType}`,
      );
    else findings.add('ok', 'content', what, 'signed, about these files, and what the evidence says');
  }
  const wanted: readonly (readonly [string, string])[] = [
    [TEST_RESULT, "the gate's result (in-toto test-result)"],
    [EVAL_RESULT, "the gate's figures (eval-result)"],
    [PROVENANCE, 'where it comes from (SLSA provenance)'],
    [BOM, 'bill of materials (CycloneDX)'],
    ...(context.probe ? [[PROBE_RESULT, "the probe's result"] as const] : []),
    ...(context.evidence?.decision.decision === 'PASS' ? [[SVR, 'that the gate passed (SVR)'] as const] : []),
  ];
  for (const [type, what] of wanted)
    if (!found.has(type)) findings.add('missing', 'content', what, 'there is no such statement');
  return findings.list;
}
