// README.md of an exported adapter: what it sits on, and how to load it.
import type { Adapter } from './adapter.js';
import type { PeftMeta } from './peft.js';
import { LORA_TARGETS, MATRIX_NAME } from './spec.js';

export function modelCard(adapter: Adapter, meta: PeftMeta): string {
  const { spec, config } = adapter;
  const rows = LORA_TARGETS.flatMap((target) => {
    const on = spec.layers.flatMap((t, layer) => {
      const s = t[target];
      return s ? [{ layer, s }] : [];
    });
    if (on.length === 0) return [];
    const one = (values: readonly number[]): string => [...new Set(values)].join(', ');
    return [
      `| ${MATRIX_NAME[target]} | ` +
        `${on.length === config.num_hidden_layers ? 'all' : on.map((o) => o.layer).join(', ')} | ` +
        `${one(on.map((o) => o.s.rank))} | ${one(on.map((o) => o.s.alpha))} |`,
    ];
  });
  const parameters = adapter.entries.reduce((a, e) => a + e.shape.reduce((x, y) => x * y, 1), 0);
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

| matrix | layers | rank | alpha |
|---|---|---|---|
${rows.join('\n')}

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
