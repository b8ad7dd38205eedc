// How an adapter stands before the release gate, as plain data: what exports, servers and cards are told of it. Whoever
// works it out is the gate (src/gate); what is told here cannot be told by a folder of itself.

/**
 * `passed` a PASS for exactly these digests, decided again from its evidence · `failed` another decision on them ·
 * `absent` no evidence · `stale` evidence of other digests · `damaged` evidence that contradicts itself · `revoked` on
 * a signed list · `overridden` released all the same, by a named signer · `off` the recipe wants no gate.
 */
export const GATE_STATUSES = [
  'passed',
  'failed',
  'absent',
  'stale',
  'damaged',
  'revoked',
  'overridden',
  'off',
] as const;
export type GateStatus = (typeof GATE_STATUSES)[number];
export const GATE_DECISIONS = ['PASS', 'FAIL', 'INCONCLUSIVE', 'ERROR'] as const;
export type GateDecision = (typeof GATE_DECISIONS)[number];

/** sha256 of the gate's own files, each as `sha256:` and hex. */
export interface GateDigests {
  readonly decision: string;
  readonly outcomes: string;
  readonly suite: string;
  readonly lock: string;
}
export interface GateOverride {
  /** sha256 of the signer's public key, hex. */
  readonly signer: string;
  readonly reason: string;
  /** ISO 8601. */
  readonly time: string;
}
export interface Standing {
  readonly status: GateStatus;
  /** One line each; empty where it passed. */
  readonly reasons: readonly string[];
  /** Of the evidence; null: there is none that can be read. */
  readonly decision: GateDecision | null;
  /** Folder of the evidence; null: there is none. */
  readonly folder: string | null;
  readonly digests: GateDigests | null;
  /** digestCheckpoint of the merged checkpoint that was judged, `sha256:` and hex; absent: none was. */
  readonly checkpoint?: string;
  readonly override: GateOverride | null;
  /** What people said in place of the judge; absent: nothing. */
  readonly labelled?: GateLabels;
}
export interface GateLabels {
  readonly pairs: number;
  readonly by: readonly string[];
  /** What would have been decided without them. */
  readonly without: GateDecision;
}
/** In one sentence, for readers of a release. */
export const labelsText = ({ pairs, by, without }: GateLabels): string =>
  `of ${pairs} pairs people (${by.join(', ')}) said what counts in place of the judge; by the judge alone it is ` +
  `${without}; no signature shows who they are`;
/** Whether a decision is about a merged checkpoint too. */
export const judgesMerged = ({ metrics }: Readonly<Record<string, unknown>>): boolean =>
  Array.isArray(metrics) && metrics.some((m: { readonly arm?: unknown } | null) => m?.arm === 'merged');
/** May be released: it passed, or somebody answers for it. */
export const isReleased = ({ status }: Pick<Standing, 'status'>): boolean =>
  status === 'passed' || status === 'overridden' || status === 'off';
