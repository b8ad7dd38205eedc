// What a merge that rounds kept of what training gained: by its weights, layer by layer, and by the loss on held-out
// rows of base, adapter and merged model. For its report, its card and its warnings.
import { applyAdapter } from '../lora/apply.js';
import { adapterOf } from '../lora/peft.js';
import type { ExportSource, Reloaded, WriteHooks, Written } from './format.js';
import { heldOutRows, lossOf, nllOf } from './held-out.js';

/** A merge that keeps less of what training gained is not the model that was trained. */
const LEAST_KEPT = 0.9;

/** What is left of ΔW after rounding: Σ ΔW'·ΔW and Σ ΔW², ΔW' = what is written − base. */
export interface Survived {
  kept: number;
  whole: number;
}
/** Of the experts of one layer, and of its other matrices. */
export interface LayerSurvived {
  readonly experts: Survived;
  readonly dense: Survived;
}
export const nothingSurvived = (layers: number): LayerSurvived[] =>
  Array.from({ length: layers }, () => ({ experts: { kept: 0, whole: 0 }, dense: { kept: 0, whole: 0 } }));

interface Losses {
  readonly base: number;
  readonly adapter: number;
  readonly merged: number;
  readonly tokens: number;
  /** (base − merged) / (base − adapter); null: training gained nothing on these rows. */
  readonly kept: number | null;
  readonly rows: string;
}

/** The same rows under the base, under base and adapter, and under what was just written, read back. */
async function measure(source: ExportSource, reload: () => Reloaded, hooks: WriteHooks): Promise<Losses | null> {
  const { options, signal } = hooks;
  if (!source.adapter) return null;
  const held = await heldOutRows(source, options.rows, options.evalTokens, signal);
  if (!held) return null;
  const stage = (what: string) => (done: number) =>
    hooks.stage(`held-out loss of ${what}  ${done} of ${held.batches.length} batches`);
  const base = await nllOf(source.base, null, held, stage('the base'), signal);
  const adapter = adapterOf(source.adapter);
  let adapted: readonly Float32Array[];
  try {
    using applied = applyAdapter(source.base, adapter);
    adapted = await nllOf(applied.model, applied.adapter, held, stage('the adapter'), signal);
  } finally {
    adapter.close();
  }
  using merged = reload();
  const after = await nllOf(merged.model, merged.adapter, held, stage('the merged model'), signal);
  const [b, a, m] = [base, adapted, after].map((nll) => lossOf(held, nll, base)) as [number, number, number];
  return {
    base: b,
    adapter: a,
    merged: m,
    tokens: held.tokens,
    kept: b - a > 0 ? (b - m) / (b - a) : null,
    rows: held.from,
  };
}

const share = ({ kept, whole }: Survived): number | null => (whole > 0 ? kept / whole : null);
function sum(of: readonly Survived[]): Survived {
  return of.reduce((a, b) => ({ kept: a.kept + b.kept, whole: a.whole + b.whole }), { kept: 0, whole: 0 });
}
const percent = (x: number | null): string => (x === null ? '–' : `${(100 * x).toFixed(1)} %`);

function warningsOf(total: number | null, losses: Losses | null, better: string): string[] {
  if (losses?.kept != null)
    return losses.kept >= LEAST_KEPT
      ? []
      : [
          `the merged model keeps ${percent(losses.kept)} of what training gained (held-out loss ` +
            `${losses.base.toFixed(4)} before, ${losses.adapter.toFixed(4)} with the adapter, ` +
            `${losses.merged.toFixed(4)} merged): rounding to MXFP4 lost the rest; ${better}`,
        ];
  return total === null || total >= LEAST_KEPT
    ? []
    : [
        `${percent(total)} of the experts' change survived rounding to MXFP4, and no held-out rows say what that ` +
          `costs: give --rows; ${better}`,
      ];
}

function notesOf(
  survived: readonly LayerSurvived[],
  total: number | null,
  losses: Losses | null,
  warnings: readonly string[],
): string {
  const rows = survived.map(
    ({ experts, dense }, layer) => `| ${layer} | ${percent(share(experts))} | ${percent(share(dense))} |`,
  );
  const loss =
    losses === null
      ? 'No held-out rows were measured.'
      : `Held-out loss on ${losses.tokens.toLocaleString('en-US')} tokens: base ${losses.base.toFixed(4)}, with the ` +
        `adapter ${losses.adapter.toFixed(4)}, merged ${losses.merged.toFixed(4)}` +
        `${losses.kept === null ? '' : `: ${percent(losses.kept)} of the gain is kept`}.`;
  return `## What rounding cost

${warnings.map((w) => `**${w}**\n\n`).join('')}${loss}

Share of ΔW that survived rounding, ⟨ΔW', ΔW⟩ / ⟨ΔW, ΔW⟩, in all experts ${percent(total)}:

| layer | experts | attention and router |
|---|---|---|
${rows.join('\n')}
`;
}

/**
 * Measures and says what the merge that was just written cost.
 * @param reload opens what was written
 * @param better what to do instead, where too little is kept
 */
export async function gainKept(
  source: ExportSource,
  survived: readonly LayerSurvived[],
  reload: () => Reloaded,
  hooks: WriteHooks,
  better: string,
): Promise<Required<Pick<Written, 'warnings' | 'notes' | 'report'>>> {
  const total = share(sum(survived.map((s) => s.experts)));
  const losses = await measure(source, reload, hooks);
  const warnings = warningsOf(total, losses, better);
  return {
    warnings,
    notes: notesOf(survived, total, losses, warnings),
    report: {
      survived: survived.map(({ experts, dense }, layer) => ({ layer, experts: share(experts), dense: share(dense) })),
      survivedExperts: total,
      ...(losses === null ? {} : { heldOut: losses }),
    },
  };
}
