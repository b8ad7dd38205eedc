// README.md of an adapter that a run wrote: what it sits on, and how to load it.
import type { ModelConfig } from '../model/config.js';
import type { Adapter } from './adapter.js';
import type { PeftMeta } from './peft.js';
import { type AdapterSpec, isExpertTarget, LORA_TARGETS, MATRIX_NAME, matrixShape } from './spec.js';

/** Which matrices are adapted, where and how strongly. */
export function adapterTable(config: ModelConfig, spec: AdapterSpec): string {
  const rows = LORA_TARGETS.flatMap((target) => {
    const on = spec.layers.flatMap((t, layer) => {
      const s = t[target];
      return s ? [{ layer, s }] : [];
    });
    if (on.length === 0) return [];
    const one = (values: readonly number[]): string => [...new Set(values)].join(', ');
    const layers = on.length === config.num_hidden_layers ? 'all' : on.map((o) => o.layer).join(', ');
    const [ranks, alphas] = [on.map((o) => o.s.rank), on.map((o) => o.s.alpha)];
    return [`| ${MATRIX_NAME[target]} | ${layers} | ${one(ranks)} | ${one(alphas)} |`];
  });
  return `| matrix | layers | rank | alpha |\n|---|---|---|---|\n${rows.join('\n')}`;
}

/** Numbers that an adapter holds. */
export function adapterParameters(config: ModelConfig, spec: AdapterSpec): number {
  let sum = 0;
  for (const targets of spec.layers)
    for (const target of LORA_TARGETS) {
      const { inputs, outputs } = matrixShape(config, target);
      const experts = isExpertTarget(target) ? config.num_local_experts : 1;
      sum += (targets[target]?.rank ?? 0) * (inputs + outputs) * experts;
    }
  return sum;
}

export function modelCard({ spec, config }: Pick<Adapter, 'spec' | 'config'>, meta: PeftMeta): string {
  const merged = spec.mergeAware
    ? `
Trained merge-aware: each forward pass ran on the base with this adapter merged in and rounded, experts to MXFP4,
attention and router to bf16. The model that was trained is that merged checkpoint (\`temper export RUN --format
merged-mxfp4\`). Loaded as an adapter, as below, B·A is added without that rounding: logits differ from those it was
trained with.
`
    : '';
  const parameters = adapterParameters(config, spec);
  const experts = spec.layers.some((t) => t.gateUp || t.down);
  const scaled = spec.rsLora ? ', scaled by alpha / √rank (rsLoRA)' : '';
  const quantization = experts ? ', quantization_config=Mxfp4Config(dequantize=True)' : '';
  return `---
base_model: ${meta.baseModel}
library_name: peft
tags: [lora, gpt-oss, temper]
---
# LoRA adapter for ${meta.baseModel}
${meta.about ? `\n${meta.about}\n` : ''}
Trained with Temper through the released MXFP4 weights. ${parameters.toLocaleString('en-US')} parameters${scaled}.
${merged}
${adapterTable(config, spec)}

Beside the base checkpoint (its folder, or its name on the hub, is the first argument), in this folder:

\`\`\`python
from peft import PeftModel
from transformers import AutoModelForCausalLM${experts ? ', Mxfp4Config' : ''}

base = AutoModelForCausalLM.from_pretrained(${JSON.stringify(meta.baseModel)}${quantization})
model = PeftModel.from_pretrained(base, ".")
\`\`\`
${
  experts ? '\nExpert matrices are adapted through `target_parameters` (peft 0.17 or later). Rank is per expert.\n' : ''
}`;
}
