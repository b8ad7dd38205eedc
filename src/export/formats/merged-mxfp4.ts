// The whole model in the released layout: experts quantised to MXFP4 again, blocks that the adapter does not change
// byte for byte as they were. What the rounding cost is measured and said.
import { applyAdapter } from '../../lora/apply.js';
import { adapterOf } from '../../lora/peft.js';
import { openCheckpoint } from '../../model/checkpoint.js';
import { writeCheckpointInto } from '../../model/checkpoint-writer.js';
import { checkpointTensors, specBytes } from '../../model/layout.js';
import { mergedConfig, smallFiles } from '../checkpoint-files.js';
import type { Consumer, ExportFormat, ExportSource, WriteHooks, Written } from '../format.js';
import { heldOutRows, lossOf, nllOf } from '../held-out.js';
import { type MergedTensors, mergedTensors, type Survived } from '../merge.js';
import { checkWeights } from '../verify-weights.js';

/** A merge that keeps less of what training gained is not the model that was trained. */
const LEAST_KEPT = 0.9;
const fine = (name: string): Consumer => ({ name, refuses: () => null });

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
async function measure(source: ExportSource, folder: string, hooks: WriteHooks): Promise<Losses | null> {
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
  using merged = openCheckpoint(folder);
  const after = await nllOf(merged, null, held, stage('the merged model'), signal);
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

const BETTER =
  'export merged-bf16, or the adapter itself (peft), or train with adapter.mergeAware: mxfp4, whose merge is exact';

function warningsOf(total: number | null, losses: Losses | null): string[] {
  if (losses?.kept != null)
    return losses.kept >= LEAST_KEPT
      ? []
      : [
          `the merged model keeps ${percent(losses.kept)} of what training gained (held-out loss ` +
            `${losses.base.toFixed(4)} before, ${losses.adapter.toFixed(4)} with the adapter, ` +
            `${losses.merged.toFixed(4)} merged): rounding to MXFP4 lost the rest; ${BETTER}`,
        ];
  return total === null || total >= LEAST_KEPT
    ? []
    : [
        `${percent(total)} of the experts' change survived rounding to MXFP4, and no held-out rows say what that ` +
          `costs: give --rows; ${BETTER}`,
      ];
}

function notesOf(
  merged: MergedTensors,
  total: number | null,
  losses: Losses | null,
  warnings: readonly string[],
): string {
  const rows = merged.survived.map(
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

| layer | experts (MXFP4) | attention and router (bf16) |
|---|---|---|
${rows.join('\n')}
`;
}

export const mergedMxfp4: ExportFormat = {
  name: 'merged-mxfp4',
  summary: 'the whole model in the released layout, experts in MXFP4 again',
  consumers: [fine('transformers'), fine('vllm'), fine('sglang'), fine('llama.cpp'), fine('ollama')],
  refuses: ({ base }) =>
    base.experts === 'mxfp4'
      ? null
      : `${base.dir}: its experts are not MXFP4, so there are no blocks to keep: export merged-bf16, or train on the ` +
        'released checkpoint',
  estimateBytes: ({ base }) => checkpointTensors(base.config, 'mxfp4').reduce((n, t) => n + specBytes(t), 1 << 26),
  async write(source, folder, hooks): Promise<Written> {
    const { signal, progress } = hooks;
    const merged = mergedTensors(source, 'mxfp4');
    const digests = await writeCheckpointInto(folder, source.base.config, merged.pieces, {
      tensors: merged.specs,
      configJson: mergedConfig(source, 'mxfp4'),
      files: smallFiles(source),
      onProgress: progress,
      ...(signal ? { signal } : {}),
    });
    if (!source.adapter) return { digests };
    const total = share(sum(merged.survived.map((s) => s.experts)));
    const losses = await measure(source, folder, hooks);
    const warnings = warningsOf(total, losses);
    return {
      digests,
      warnings,
      notes: notesOf(merged, total, losses, warnings),
      report: {
        survived: merged.survived.map(({ experts, dense }, layer) => ({
          layer,
          experts: share(experts),
          dense: share(dense),
        })),
        survivedExperts: total,
        ...(losses === null ? {} : { heldOut: losses }),
      },
    };
  },
  reload(folder) {
    const model = openCheckpoint(folder);
    return { model, adapter: null, [Symbol.dispose]: () => model.close() };
  },
  // What rounding to four bits costs is in the report; the weights themselves are checked block by block.
  tolerance: null,
  checkWeights,
  cardHead: () => ({ library_name: 'transformers', pipeline_tag: 'text-generation' }),
  usage: () => `## How to load it

In this folder:

\`\`\`python
from transformers import AutoModelForCausalLM, Mxfp4Config

model = AutoModelForCausalLM.from_pretrained(".", quantization_config=Mxfp4Config(dequantize=True))
\`\`\`

Without \`Mxfp4Config(dequantize=True)\` transformers computes on the MXFP4 bytes, where its kernels run.
`,
};
