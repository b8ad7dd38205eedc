// Base and adapter merged into one GGUF file, with a Modelfile: experts stay MXFP4, blocks that the adapter does not
// change keep their values bit for bit.
import { join } from 'node:path';
import { writeFlushed } from '../../base/files.js';
import { ropeSettings } from '../../model/config.js';
import { smallFiles } from '../checkpoint-files.js';
import type { Consumer, ExportFormat, ExportSource, WriteHooks, Written } from '../format.js';
import { loadGguf } from '../gguf/load.js';
import { requireLlamaFits } from '../gguf/model.js';
import { modelfile } from '../gguf/modelfile.js';
import { chatTemplate } from '../gguf/tokenizer.js';
import { llamaRefuses, type Precision, wholeBytes, writeWholeGguf } from '../gguf/whole.js';
import { compareWeights } from '../verify-weights.js';

export const MODEL_FILE = 'model.gguf';

/** What rounding left of ΔW, by layer: ⟨ΔW', ΔW⟩ / ⟨ΔW, ΔW⟩ of all its experts. */
class Kept {
  readonly #left = new Map<number, number>();
  readonly #of = new Map<number, number>();
  add(layer: number, left: number, of: number): void {
    this.#left.set(layer, (this.#left.get(layer) ?? 0) + left);
    this.#of.set(layer, (this.#of.get(layer) ?? 0) + of);
  }
  byLayer(): { readonly layer: number; readonly kept: number }[] {
    return [...this.#of]
      .filter(([, of]) => of > 0)
      .map(([layer, of]) => ({ layer, kept: (this.#left.get(layer) ?? 0) / of }));
  }
}

async function write(source: ExportSource, folder: string, hooks: WriteHooks, precision: Precision): Promise<Written> {
  const kept = new Kept(),
    { signal, progress } = hooks;
  const { sha256 } = await writeWholeGguf(join(folder, MODEL_FILE), source, precision, {
    signal,
    onProgress: progress,
    onRounded: (layer, _, left, of) => kept.add(layer, left, of),
  });
  writeFlushed(join(folder, 'Modelfile'), modelfile(MODEL_FILE));
  const warnings =
    chatTemplate(smallFiles(source)) === null
      ? [`${source.base.dir}: has no chat_template.jinja, so the file has no template: a server needs one given to it`]
      : [];
  const layers = kept.byLayer();
  return { digests: { [MODEL_FILE]: sha256 }, warnings, report: layers.length > 0 ? { keptByLayer: layers } : {} };
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
  reload(folder, base) {
    const model = loadGguf(join(folder, MODEL_FILE), ropeSettings(base.config).yarn?.truncate ?? true);
    return { model, adapter: null, [Symbol.dispose]: () => model.close() };
  },
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
