// An adapter alone, as llama.cpp loads it beside a GGUF file of its base: attention, router and experts.
import { join } from 'node:path';
import { writeFlushed } from '../../base/files.js';
import type { ExportFormat } from '../format.js';
import { adapterBytes, commonAlpha, writeAdapterGguf } from '../gguf/adapter.js';
import { loadAdapterGguf } from '../gguf/load-adapter.js';
import { adapterModelfile } from '../gguf/modelfile.js';
import { llamaRefuses } from '../gguf/whole.js';
import { MODEL_FILE } from './gguf.js';

export const ADAPTER_FILE = 'adapter.gguf';

export const ggufLora: ExportFormat = {
  name: 'gguf-lora',
  merge: null,
  summary: 'the adapter alone for llama.cpp (--lora), beside a GGUF file of its base, f32',
  consumers: [
    { name: 'llama.cpp', refuses: ({ base }) => llamaRefuses(base.config) },
    {
      name: 'ollama',
      refuses: () => "Ollama's engine for gpt-oss takes no adapters: export gguf, which has it merged",
    },
  ],
  refuses: ({ adapter, base }) =>
    adapter === null ? `${base.dir}: no adapter to write; export gguf for the whole model` : llamaRefuses(base.config),
  estimateBytes: ({ adapter }) => (adapter ? adapterBytes(adapter) : 0) + (1 << 18),
  async write({ adapter, baseModel }, folder, { signal, progress }) {
    if (!adapter) return {};
    const { sha256 } = await writeAdapterGguf(join(folder, ADAPTER_FILE), adapter, baseModel, {
      signal,
      onProgress: progress,
    });
    writeFlushed(join(folder, 'Modelfile'), adapterModelfile(ADAPTER_FILE, MODEL_FILE));
    const folded = commonAlpha(adapter) === null;
    return {
      digests: { [ADAPTER_FILE]: sha256 },
      ...(folded
        ? { notes: 'Its pairs have scales that no single alpha stands for: they are multiplied into `lora_b`.' }
        : {}),
    };
  },
  reload(folder, base) {
    const { model, [Symbol.dispose]: close } = loadAdapterGguf(join(folder, ADAPTER_FILE), base.config);
    return { model: base, adapter: model, [Symbol.dispose]: close };
  },
  llama: (folder) => ({ kind: 'adapter', path: join(folder, ADAPTER_FILE), f32: true }),
  // Scales are f32 in the file, and may be multiplied into B.
  tolerance: 1e-5,
  cardHead: () => ({ library_name: 'gguf' }),
  usage: () => `## How to load it

Beside a GGUF file of the base (\`temper export --model DIR --format gguf\` writes one):

\`\`\`bash
llama-server -m ${MODEL_FILE} --lora ${ADAPTER_FILE} --jinja
\`\`\`
`,
};
