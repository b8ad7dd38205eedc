// The whole model in bf16 as Hugging Face lays it out: experts dequantised, [E, in, out], no quantization_config.

import { openCheckpoint } from '../../model/checkpoint.js';
import { writeCheckpointInto } from '../../model/checkpoint-writer.js';
import { checkpointTensors, specBytes } from '../../model/layout.js';
import { mergedConfig, smallFiles } from '../checkpoint-files.js';
import type { Consumer, ExportFormat } from '../format.js';
import { mergedTensors } from '../merge.js';
import { checkWeights } from '../verify-weights.js';

const fine = (name: string): Consumer => ({ name, refuses: () => null });

export const mergedBf16: ExportFormat = {
  name: 'merged-bf16',
  merge: 'bf16',
  checkpoint: true,
  summary: 'the whole model, adapter merged, experts dequantised to bf16',
  consumers: [fine('transformers'), fine('vllm'), fine('sglang'), fine('llama.cpp')],
  refuses: () => null,
  estimateBytes: ({ base }) => checkpointTensors(base.config, 'dense').reduce((n, t) => n + specBytes(t), 1 << 26),
  async write(source, folder, { signal, progress }) {
    const { specs, pieces } = mergedTensors(source, 'dense');
    const digests = await writeCheckpointInto(folder, source.base.config, pieces, {
      experts: 'dense',
      tensors: specs,
      configJson: mergedConfig(source, 'dense'),
      files: smallFiles(source),
      onProgress: progress,
      ...(signal ? { signal } : {}),
    });
    return { digests };
  },
  reload(folder) {
    const model = openCheckpoint(folder);
    return { model, adapter: null, [Symbol.dispose]: () => model.close() };
  },
  // Weights are rounded to eight bits, and a router's choice between two experts may fall otherwise: so a single logit
  // may go far. The weights themselves are checked to half a unit in the last place.
  tolerance: null,
  effectLost: 0.25,
  mergeAware: true,
  checkWeights,
  cardHead: () => ({ library_name: 'transformers', pipeline_tag: 'text-generation' }),
  usage: () => `## How to load it

In this folder:

\`\`\`python
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained(".", dtype="bfloat16")
\`\`\`

transformers 5 and later take \`dtype\`; 4.55 to 4.57 take \`torch_dtype\` in its place.
`,
};
