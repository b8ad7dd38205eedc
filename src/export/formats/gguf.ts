// Base and adapter merged into one GGUF file, with a Modelfile: experts stay MXFP4, blocks that the adapter does not
// change keep their values bit for bit.
import { join } from 'node:path';
import { writeFlushed } from '../../base/files.js';
import type { Checkpoint } from '../../model/checkpoint.js';
import { ropeSettings } from '../../model/config.js';
import { smallFiles } from '../checkpoint-files.js';
import type { Consumer, ExportFormat, ExportSource, Reloaded, WriteHooks, Written } from '../format.js';
import { gainKept, nothingSurvived } from '../gain.js';
import { loadGguf } from '../gguf/load.js';
import { requireLlamaFits } from '../gguf/model.js';
import { modelfile } from '../gguf/modelfile.js';
import { chatTemplate } from '../gguf/tokenizer.js';
import { llamaRefuses, type Precision, wholeBytes, writeWholeGguf } from '../gguf/whole.js';
import { compareWeights } from '../verify-weights.js';

export const MODEL_FILE = 'model.gguf';

const BETTER =
  'export gguf-lora and load it beside a gguf of the base, or train with adapter.mergeAware: mxfp4, whose merge is ' +
  'exact';

function reload(folder: string, base: Checkpoint): Reloaded {
  const model = loadGguf(join(folder, MODEL_FILE), ropeSettings(base.config).yarn?.truncate ?? true);
  return { model, adapter: null, [Symbol.dispose]: () => model.close() };
}

async function write(source: ExportSource, folder: string, hooks: WriteHooks, precision: Precision): Promise<Written> {
  const { signal, progress } = hooks,
    survived = source.adapter && precision === 'as stored' && nothingSurvived(source.base.config.num_hidden_layers);
  const { sha256 } = await writeWholeGguf(join(folder, MODEL_FILE), source, precision, {
    signal,
    onProgress: progress,
    ...(survived ? { survived } : {}),
  });
  writeFlushed(join(folder, 'Modelfile'), modelfile(MODEL_FILE));
  const warnings =
    chatTemplate(smallFiles(source)) === null
      ? [`${source.base.dir}: has no chat_template.jinja; the file has a plain one, without tools`]
      : [];
  const digests = { [MODEL_FILE]: sha256 };
  if (!survived) return { digests, warnings };
  const gain = await gainKept(source, survived, () => reload(folder, source.base), hooks, BETTER);
  return { digests, ...gain, warnings: [...warnings, ...gain.warnings] };
}

const loads: readonly Consumer[] = [
  { name: 'llama.cpp', refuses: ({ base }) => llamaRefuses(base.config) },
  { name: 'ollama', refuses: ({ base }) => llamaRefuses(base.config) },
];
const usage = `## How to load it

\`\`\`bash
llama-server -m ${MODEL_FILE} --jinja
ollama create my-model -f Modelfile
\`\`\`

llama.cpp rounds the bounds between which YaRN mixes frequencies to whole numbers, whatever the model says: its answers
differ a little from those of other servers, the more the longer the text. \`temper verify\` measures it.
`;

/** A format of a whole model in GGUF. */
const whole = (name: string, summary: string, precision: Precision): ExportFormat => ({
  name,
  merge: precision === 'f32' ? 'f32' : 'mxfp4',
  summary,
  consumers: loads,
  refuses: (source) =>
    llamaRefuses(source.base.config) ??
    (smallFiles(source)['tokenizer.json']
      ? null
      : `${source.base.dir}: has no tokenizer.json, without which a GGUF file reads and writes no text; put that of ` +
        'the model there'),
  // Tokens and merges of o200k take 12 MB.
  estimateBytes: ({ base }) => wholeBytes(base, precision) + (1 << 24),
  write(source, folder, hooks) {
    requireLlamaFits(source.base.config);
    return write(source, folder, hooks, precision);
  },
  reload,
  mergeAware: true,
  llama: (folder) => ({ kind: 'model', path: join(folder, MODEL_FILE), f32: precision === 'f32' }),
  // Sums of a merge in f32 lie apart from those of an adapter beside its base; in MXFP4 and bf16 rounding decides.
  tolerance: precision === 'f32' ? 1e-4 : null,
  async checkWeights(source, folder, signal) {
    using written = loadGguf(join(folder, MODEL_FILE), true);
    return await compareWeights(source, written, signal);
  },
  cardHead: () => ({ library_name: 'gguf' }),
  usage: () => usage,
});

export const gguf = whole(
  'gguf',
  'base and adapter merged for llama.cpp and Ollama: experts MXFP4, all else as the checkpoint has it',
  'as stored',
);
export const ggufF32 = whole(
  'gguf-f32',
  'the same with every weight f32: nothing is rounded, for proofs and small models',
  'f32',
);
