// The whole model in the released layout: experts quantised to MXFP4 again, blocks that the adapter does not change
// byte for byte as they were. What the rounding cost is measured and said.
import { openCheckpoint } from '../../model/checkpoint.js';
import { writeCheckpointInto } from '../../model/checkpoint-writer.js';
import { checkpointTensors, specBytes } from '../../model/layout.js';
import { mergedConfig, smallFiles } from '../checkpoint-files.js';
import type { Consumer, ExportFormat, Reloaded, Written } from '../format.js';
import { gainKept } from '../gain.js';
import { mergedTensors } from '../merge.js';
import { checkWeights } from '../verify-weights.js';

const fine = (name: string): Consumer => ({ name, refuses: () => null });

const BETTER =
  'export merged-bf16, or the adapter itself (peft), or train with adapter.mergeAware: mxfp4, whose merge is exact';

function reload(folder: string): Reloaded {
  const model = openCheckpoint(folder);
  return { model, adapter: null, [Symbol.dispose]: () => model.close() };
}

export const mergedMxfp4: ExportFormat = {
  name: 'merged-mxfp4',
  merge: 'mxfp4',
  checkpoint: true,
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
    return { digests, ...(await gainKept(source, merged.survived, () => reload(folder), hooks, BETTER)) };
  },
  reload,
  mergeAware: true,
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
