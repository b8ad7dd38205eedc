// A run's adapter, or one made elsewhere, as peft writes it: natural layout, f32.

import { applyAdapter } from '../../lora/apply.js';
import { adapterParameters } from '../../lora/model-card.js';
import { readPeft, rewritePeft } from '../../lora/peft.js';
import { type AdapterSpec, isExpertTarget, LORA_TARGETS } from '../../lora/spec.js';
import type { Consumer, ExportFormat, ExportSource } from '../format.js';

const MERGE = 'export merged-bf16 or merged-mxfp4 for it';
/** vLLM's own list (vllm/config/lora.py); the largest is what counts here. */
const VLLM_MAX_RANK = 512;

const specOf = ({ adapter }: ExportSource): AdapterSpec => adapter?.spec ?? { layers: [], rsLora: false, dropout: 0 };
const has = (spec: AdapterSpec, target: (typeof LORA_TARGETS)[number]): boolean =>
  spec.layers.some((t) => t[target] !== undefined);
const experts = (spec: AdapterSpec): boolean => LORA_TARGETS.some((t) => isExpertTarget(t) && has(spec, t));
/** Whether all matrices have one rank and one alpha; if not, those that differ first, for people. */
function unequal(spec: AdapterSpec): string | null {
  const all = spec.layers.flatMap((t) => Object.values(t));
  const [first] = all;
  const other = all.find((t) => t.rank !== first?.rank || t.alpha !== first?.alpha);
  return first && other
    ? `rank ${first.rank}, alpha ${first.alpha} beside rank ${other.rank}, alpha ${other.alpha}`
    : null;
}

const vllm: Consumer = {
  name: 'vllm',
  refuses(source) {
    const spec = specOf(source);
    const mixed = unequal(spec);
    if (mixed)
      return (
        `vLLM reads one rank and one alpha and ignores rank_pattern and alpha_pattern (${mixed}): ` +
        `${MERGE}, or train with one rank and alpha`
      );
    if (has(spec, 'router')) return `vLLM applies no adapter to the router: ${MERGE}`;
    if (has(spec, 'gateUp') !== has(spec, 'down'))
      return `vLLM wants both expert matrices adapted or neither: ${MERGE}, or train both`;
    const rank = Math.max(0, ...spec.layers.flatMap((t) => Object.values(t).map((s) => s.rank)));
    return rank > VLLM_MAX_RANK ? `vLLM takes ranks up to ${VLLM_MAX_RANK}, this has ${rank}: ${MERGE}` : null;
  },
};
const sglang: Consumer = {
  name: 'sglang',
  refuses(source) {
    const spec = specOf(source);
    if (experts(spec)) return `SGLang applies no adapter to gpt-oss's experts: ${MERGE}`;
    return has(spec, 'router') ? `SGLang applies no adapter to the router: ${MERGE}` : null;
  },
};
const llamaCpp: Consumer = {
  name: 'llama.cpp',
  refuses: () => 'llama.cpp reads GGUF, and its converter of PEFT folders skips experts: export gguf or gguf-lora',
};
const transformers: Consumer = { name: 'peft', refuses: () => null };

export const peft: ExportFormat = {
  name: 'peft',
  summary: "adapter_config.json and adapter_model.safetensors (f32) in peft's natural layout",
  consumers: [transformers, vllm, sglang, llamaCpp],
  refuses: ({ adapter, origin, base }) =>
    adapter !== null
      ? null
      : `${origin.kind === 'run' ? origin.run : base.dir}: trained no adapter; only a run of ` +
        'method sft, dpo or orpo can be ' +
        'exported as peft: take merged-bf16 or merged-mxfp4',
  estimateBytes: (source) => 4 * adapterParameters(source.base.config, specOf(source)) + (1 << 16),
  async write(source, folder, { signal, progress }) {
    const { adapter, baseModel } = source;
    if (!adapter) return {};
    signal?.throwIfAborted();
    const total = this.estimateBytes(source);
    progress(0, total);
    rewritePeft(adapter, folder, { baseModel });
    progress(total, total);
    return {};
  },
  reload(folder, base) {
    const adapter = readPeft(folder, base.config);
    const applied = applyAdapter(base, adapter);
    const { model, adapter: added } = applied;
    return {
      model,
      adapter: added,
      [Symbol.dispose]: () => {
        applied.close();
        adapter.close();
      },
    };
  },
  // An export holds the trainer's f32 values in another order, and the kernels are the same: so are the bits.
  tolerance: 0,
  cardHead: () => ({ library_name: 'peft' }),
  usage(source) {
    const dequantized = experts(specOf(source)) || has(specOf(source), 'router');
    const quantization = dequantized ? ', quantization_config=Mxfp4Config(dequantize=True)' : '';
    return `## How to load it

Beside the base checkpoint (its folder, or its name on the hub, is the first argument), in this folder:

\`\`\`python
from peft import PeftModel
from transformers import AutoModelForCausalLM${dequantized ? ', Mxfp4Config' : ''}

base = AutoModelForCausalLM.from_pretrained(${JSON.stringify(source.baseModel)}${quantization})
model = PeftModel.from_pretrained(base, ".")
\`\`\`
${
  dequantized
    ? '\nExpert matrices are adapted through `target_parameters` (peft 0.17 or later). Rank is ' + 'per expert.\n'
    : ''
}`;
  },
};
