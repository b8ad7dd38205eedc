// What an outsider can check of a folder, as one page: what came of it in a sentence, then line by line.
import { html, page } from '../report/html.js';
import type { Finding, FindingGroup, FindingStatus } from './findings.js';
import type { VerifiedFolder } from './verify.js';

export const GROUP_NAMES: Readonly<Record<FindingGroup, string>> = {
  signature: 'Signature over the folder',
  files: 'Files of the export',
  chain: 'Recipe, data, base, run',
  gate: 'Release gate',
  override: 'Override',
  attestation: 'Statements about it',
};
export const STATUS_NAMES: Readonly<Record<FindingStatus, string>> = {
  ok: 'ok',
  failed: 'FAILED',
  missing: 'missing',
  unchecked: 'not checkable',
};
export interface Audit extends VerifiedFolder {
  /**
   * 0; 10: the gate did not pass, or a PASS is required and there is none, and nobody who is trusted answers for it;
   * 20: asked to be strict, and not all was checked; 40.
   */
  readonly exit: 0 | 10 | 20 | 40;
  /** In a sentence. */
  readonly verdict: string;
  readonly counts: Readonly<Record<FindingStatus, number>>;
}

function verdictOf({ ok, decision, override, signed }: VerifiedFolder, failed: number): string {
  if (!ok) return `Not what it says it is: ${failed} ${failed === 1 ? 'check' : 'checks'} failed.`;
  const by = signed ? 'signed by a key that you trust' : 'not signed by a key that you trust';
  if (override) {
    const who = override.trusted ? override.by : `${override.by}, which is no key that you trust`;
    return `Released against its gate (${override.against}) by ${who}; ${by}.`;
  }
  if (decision === null) return `No gate compared it with its base; ${by}.`;
  return decision === 'PASS'
    ? `Its gate passed; ${by}.`
    : `Its gate decided ${decision}, and nobody answers for it; ${by}.`;
}
export interface AuditRules {
  /** What is missing or cannot be checked counts. */
  readonly strict?: boolean | undefined;
  /** Without a gate it is as if that had failed. */
  readonly requireGate?: boolean | undefined;
}
export function auditOf(verified: VerifiedFolder, { strict = false, requireGate = false }: AuditRules): Audit {
  const counts = { ok: 0, failed: 0, missing: 0, unchecked: 0 };
  for (const { status } of verified.findings) counts[status]++;
  const { ok, decision, override } = verified;
  const stopped = (decision === null ? requireGate : decision !== 'PASS') && !override?.trusted;
  const open = counts.missing + counts.unchecked > 0;
  return {
    ...verified,
    exit: !ok ? 40 : stopped ? 10 : strict && open ? 20 : 0,
    verdict: verdictOf(verified, counts.failed),
    counts,
  };
}
/** Groups in the order of their findings. */
export function byGroup(findings: readonly Finding[]): ReadonlyMap<FindingGroup, readonly Finding[]> {
  const groups = new Map<FindingGroup, Finding[]>();
  for (const name of Object.keys(GROUP_NAMES) as FindingGroup[]) {
    const own = findings.filter((f) => f.group === name);
    if (own.length > 0) groups.set(name, own);
  }
  return groups;
}

const STYLE = `
main { max-width: 62rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.15rem; font-weight: 600; margin: 0; color: var(--soft); overflow-wrap: anywhere; }
.verdict { font-size: 1.6rem; line-height: 1.25; margin: .35rem 0 1rem; font-weight: 600; }
.verdict.good { color: var(--good); } .verdict.bad { color: var(--bad); }
.counts { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; margin: 0 0 1.5rem; padding: 0; list-style: none; }
.counts { color: var(--soft); }
.counts b { color: var(--ink); font-size: 1.15rem; }
.note { border-left: 3px solid var(--accent); padding: .4rem .9rem; margin: 0 0 1.5rem; background: var(--panel); }
section { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; }
section { margin: 0 0 1rem; padding: .9rem 1.1rem; }
h2 { font-size: 1rem; margin: 0 0 .5rem; }
table { border-collapse: collapse; width: 100%; table-layout: fixed; }
td { border-top: 1px solid var(--line); padding: .4rem .75rem .4rem 0; vertical-align: top; overflow-wrap: anywhere; }
tr:first-child td { border-top: 0; }
td:first-child { width: 8.5rem; font-weight: 600; white-space: nowrap; }
td:nth-child(2) { width: 38%; }
.ok { color: var(--good); } .failed { color: var(--bad); }
.missing { color: var(--accent); } .unchecked { color: var(--soft); }
footer { color: var(--soft); font-size: .85rem; margin-top: 1.5rem; }
@media (max-width: 40rem) {
  table, tbody, tr, td { display: block; width: auto !important; }
  tr { border-top: 1px solid var(--line); padding: .4rem 0; } tr:first-child { border-top: 0; }
  td { border: 0; padding: .1rem 0; }
}
@media print { section { break-inside: avoid; } body { background: #fff; } }
`;

/** One self-contained file. @param about which keys were trusted, and which version looked when */
export function auditPage(audit: Audit, about: string): string {
  const { dir, findings, verdict, counts, ok, override, exit } = audit;
  const tone = !ok || exit === 10 ? 'bad' : override || audit.decision === null ? '' : 'good';
  return page(
    `${dir} · Temper audit`,
    STYLE,
    html`<main>
<h1>${dir}</h1>
<p class="verdict ${tone}">${verdict}</p>
<ul class="counts">${(Object.keys(STATUS_NAMES) as FindingStatus[]).map(
      (status) => html`<li><b class="${status}">${counts[status]}</b> ${STATUS_NAMES[status]}</li>`,
    )}</ul>
${override && html`<p class="note">Overridden by ${override.by}, ${override.time}: ${override.reason}</p>`}
${[...byGroup(findings)].map(
  ([group, own]) =>
    html`<section><h2>${GROUP_NAMES[group]}</h2><table>${own.map(
      (f) => html`<tr><td class="${f.status}">${STATUS_NAMES[f.status]}</td><td>${f.what}</td><td>${f.why}</td></tr>\n`,
    )}</table></section>`,
)}
<footer>${about} All of it was checked offline, of the folder itself; what is not checkable lies elsewhere.</footer>
</main>`,
  );
}
