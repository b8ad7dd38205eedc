// A bill of materials of a model, CycloneDX 1.6: the adapter, the base and the data it is made of, and what its gate
// measured, with the intervals.
import { sha256 } from '../base/digest.js';
import type { Json, JsonObject } from '../verdict-log/canonical.js';
import type { DecidedMetric, Evidence } from './evidence.js';
import { type TrainingRun, testName } from './predicates.js';
import type { Subject } from './statement.js';

export const BOM_FILE = 'bom.cdx.json';
const APPROACH: Readonly<Record<string, string>> = { pretrain: 'self-supervised' };

/** From a digest, so that the same things give the same number. */
function serialOf(text: string): string {
  const hex = sha256(text);
  const parts = [
    hex.slice(0, 8),
    hex.slice(8, 12),
    `8${hex.slice(13, 16)}`,
    `8${hex.slice(17, 20)}`,
    hex.slice(20, 32),
  ];
  return `urn:uuid:${parts.join('-')}`;
}
const hashes = (digest: string): Json => [{ alg: 'SHA-256', content: digest.replace(/^sha256:/, '') }];
const isDigest = (text: string | null | undefined): text is string => /^(?:sha256:)?[0-9a-f]{64}$/.test(text ?? '');

/** Rates of base and of what was judged, and their difference with its interval. Values are texts there. */
export function performanceMetrics(metrics: readonly DecidedMetric[]): JsonObject[] {
  return metrics.flatMap((m) => {
    const slice = typeof m.slice === 'string' && m.slice !== '' ? { slice: m.slice } : {};
    const entries: JsonObject[] = [];
    const judged = m.arm ?? 'adapter';
    for (const [what, value] of [
      [judged, m.adapter],
      ['base', m.base],
    ] as const)
      if (typeof value === 'number') entries.push({ type: `${m.metric} (${what})`, value: String(value), ...slice });
    const { low, high } = m.interval ?? {};
    if (typeof m.difference === 'number')
      entries.push({
        type: `${m.metric} (${judged} − base)`,
        value: String(m.difference),
        ...slice,
        ...(typeof low === 'number' || typeof high === 'number'
          ? {
              confidenceInterval: {
                ...(typeof low === 'number' ? { lowerBound: String(low) } : {}),
                ...(typeof high === 'number' ? { upperBound: String(high) } : {}),
              },
            }
          : {}),
      });
    return entries;
  });
}
function limitations(evidence: Evidence | null): string[] {
  if (!evidence) return ['No gate compared this model with its base.'];
  const { decision } = evidence;
  return [
    `The gate decided ${decision.decision} by a judge that errs; its metrics have the intervals given here.`,
    ...decision.metrics.filter((m) => m.verdict !== 'PASS').map((m) => `${testName(m)}: ${m.verdict}`),
  ];
}

export interface BomFacts {
  readonly name: string;
  readonly subject: readonly Subject[];
  readonly evidence: Evidence | null;
  readonly run: TrainingRun | null;
  /** What the base is called, and its digest. */
  readonly base: { readonly name: string; readonly digest: string | null };
  readonly tool: string;
  /** ISO 8601. */
  readonly time: string;
}
export function bomOf({ name, subject, evidence, run, base, tool, time }: BomFacts): JsonObject {
  const data = (run?.data ?? []).map((d, i) => ({
    type: 'data',
    'bom-ref': `data-${i}`,
    name: d.file,
    hashes: hashes(d.sha256),
    data: [{ type: 'dataset', name: d.file }],
  }));
  const ancestor: JsonObject = {
    type: 'machine-learning-model',
    'bom-ref': 'base',
    name: base.name,
    ...(isDigest(base.digest) ? { hashes: hashes(base.digest) } : {}),
  };
  const files = subject.map((s) => ({
    type: 'file',
    'bom-ref': `file:${s.name}`,
    name: s.name,
    hashes: hashes(s.digest.sha256 ?? ''),
  }));
  return {
    bomFormat: 'CycloneDX',
    specVersion: '1.6',
    serialNumber: serialOf(JSON.stringify([name, subject, time])),
    version: 1,
    metadata: {
      timestamp: time,
      tools: { components: [{ type: 'application', name: 'temper', version: tool }] },
      component: {
        type: 'machine-learning-model',
        'bom-ref': 'model',
        name,
        pedigree: { ancestors: [{ ...ancestor, 'bom-ref': 'base-ancestor' }] },
        modelCard: {
          'bom-ref': 'card',
          modelParameters: {
            approach: { type: (run && APPROACH[run.method]) ?? 'supervised' },
            task: 'text-generation',
            architectureFamily: 'transformer',
            modelArchitecture: 'gpt-oss',
            ...(data.length > 0 ? { datasets: data.map((d) => ({ ref: d['bom-ref'] })) } : {}),
          },
          quantitativeAnalysis: { performanceMetrics: performanceMetrics(evidence?.decision.metrics ?? []) },
          considerations: { technicalLimitations: limitations(evidence) },
        },
      },
    },
    components: [ancestor, ...data, ...files],
    dependencies: [
      { ref: 'model', dependsOn: ['base', ...data.map((d) => d['bom-ref']), ...files.map((f) => f['bom-ref'])] },
    ],
  };
}
