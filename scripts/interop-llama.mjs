// Exports in llama.cpp's hands: sections of docs/interop.md.
import { copyFileSync } from 'node:fs';
import { join } from 'node:path';
import { smallFiles } from '../dist/export/checkpoint-files.js';
import { FORMATS } from '../dist/export/formats/index.js';
import { askLlama } from '../dist/export/gguf/llama-consumer.js';
import { loadGguf } from '../dist/export/gguf/load.js';
import { modelKeys, plannedTensors } from '../dist/export/gguf/model.js';
import { tensorData } from '../dist/export/gguf/source.js';
import { tokenizerKeys } from '../dist/export/gguf/tokenizer.js';
import { writeGguf } from '../dist/export/gguf/writer.js';
import { runExport } from '../dist/export/run-export.js';
import { openSource } from '../dist/export/source.js';
import { parseConfig } from '../dist/model/config.js';
import { initCheckpoint, PRESETS } from '../dist/model/init.js';

/** Random models of other shapes: plain rotary positions and odd numbers of everything; the released widths. */
const MADE = {
  'plain positions': parseConfig({
    vocab_size: 1024,
    hidden_size: 192,
    intermediate_size: 96,
    num_hidden_layers: 3,
    num_attention_heads: 6,
    num_key_value_heads: 3,
    head_dim: 64,
    num_local_experts: 5,
    num_experts_per_tok: 3,
    sliding_window: 16,
    max_position_embeddings: 512,
    rope_theta: 10000,
    eos_token_id: 1007,
    pad_token_id: 1004,
  }),
  'released widths': {
    ...PRESETS.slice,
    vocab_size: 1024,
    num_local_experts: 3,
    num_experts_per_tok: 2,
    eos_token_id: 1007,
    pad_token_id: 1004,
  },
};
const SHIPPED = ['nano', 'nano-judge'];
const tokens = (lengths) =>
  lengths.map((length, r) => Int32Array.from({ length }, (_, i) => (i * 37 + 11 + 80 * r) % 1024));
/** Beyond every window; a few tokens. */
const LONG = tokens([140]),
  SHORT = tokens([36, 4]);
/** Prefixes of a sequence that are asked for. */
const PREFIXES = 6;

/** The folder of a checkpoint by its name; one that is made up is written into a new one. */
async function checkpointOf(name, models, fresh) {
  if (!(name in MADE)) return join(models, name);
  const dir = fresh();
  await initCheckpoint(dir, MADE[name], { seed: 11 });
  copyFileSync(join(models, 'nano', 'tokenizer.json'), join(dir, 'tokenizer.json'));
  return dir;
}

/**
 * Every export of every adapter on every checkpoint, in llama.cpp.
 * @param o program: llama-server; adapters: by name, what createAdapter is told; adapterOn, fresh: of interop.mjs
 */
async function llamaRows({ program, models, adapters, adapterOn, fresh, only }) {
  const rows = [];
  for (const checkpoint of [...SHIPPED, ...Object.keys(MADE)]) {
    const large = checkpoint === 'released widths';
    const model = await checkpointOf(checkpoint, models, fresh);
    for (const [name, choice] of [['none', null], ...Object.entries(adapters)]) {
      if (only && !`${checkpoint} ${name}`.includes(only)) continue;
      if (large && name !== 'none' && name !== 'attention, experts') continue;
      const adapter = choice && (await adapterOn(model, choice)),
        from = { model, ...(adapter ? { adapter } : {}) };
      for (const format of adapter ? ['gguf', 'gguf-f32', 'gguf-lora'] : ['gguf', 'gguf-f32']) {
        const out = fresh();
        await runExport({ ...from, format: [format], out, evalTokens: 0 });
        const source = await openSource(from),
          f = FORMATS.find((x) => x.name === format),
          exported = f.reload(out, source.base);
        const sequences = adapter ? SHORT : LONG;
        const r = await askLlama(program, f.llama(out), source, exported, sequences, { prefixes: PREFIXES });
        rows.push({ checkpoint, name, format, ...r });
        exported[Symbol.dispose]();
        source[Symbol.dispose]();
      }
    }
  }
  return rows;
}

/** The same values in other types, so that one kind of rounding is left: where the distance comes from. */
async function isolationRows({ program, models, fresh }) {
  const rows = [];
  for (const checkpoint of ['nano', 'nano-judge', 'plain positions']) {
    const model = await checkpointOf(checkpoint, models, fresh);
    const source = await openSource({ model });
    const { base, baseModel } = source;
    for (const [dense, experts] of /** @type {['F32' | 'BF16', 'F32' | 'MXFP4'][]} */ ([
      ['F32', 'F32'],
      ['BF16', 'F32'],
      ['F32', 'MXFP4'],
      ['BF16', 'MXFP4'],
    ])) {
      const path = `${fresh()}.gguf`;
      const keys = modelKeys(base.config, baseModel, experts === 'F32' ? 'f32' : 'mxfp4');
      for (const [key, value] of tokenizerKeys(smallFiles(source), base.dir, base.config.vocab_size))
        keys.set(key, value);
      const from = { base, pair: () => undefined, throughMerge: false };
      const tensors = plannedTensors(base.config, dense, experts).map((t) => ({
        ...t,
        data: () => tensorData(from, t),
      }));
      await writeGguf(path, keys, tensors);
      const reloaded = loadGguf(path, false);
      const file = { kind: /** @type {const} */ ('model'), path, f32: dense === 'F32' && experts === 'F32' };
      const exported = { model: reloaded, adapter: null, [Symbol.dispose]: () => reloaded.close() };
      rows.push({
        checkpoint,
        dense,
        experts,
        ...(await askLlama(program, file, source, exported, SHORT, { prefixes: PREFIXES })),
      });
      exported[Symbol.dispose]();
    }
    source[Symbol.dispose]();
  }
  return rows;
}

const power = (x) => (x === 0 ? '0' : x.toExponential(1));
const llamaTable = (rows) =>
  `| checkpoint | adapter | export | compared | largest difference | relative | allowed |
|---|---|---|---|---|---|---|
${rows
  .map(
    (r) =>
      `| ${r.checkpoint} | ${r.name} | ${r.format} | ${r.compared} | ${power(r.maxDifference)} | ` +
      `${power(r.relative)} | ${power(r.tolerance)} |`,
  )
  .join('\n')}`;
const isolationTable = (rows) =>
  `| checkpoint | dense | experts | beside our exact model | what rounding moves ours by | beside ours rounded so |
|---|---|---|---|---|---|
${rows
  .map(
    (r) =>
      `| ${r.checkpoint} | ${r.dense} | ${r.experts} | ${power(r.rounding?.apart ?? r.relative)} | ` +
      `${power(r.rounding?.moves ?? 0)} | ${power(r.relative)} |`,
  )
  .join('\n')}`;

/** @param o program, models, adapters by name, adapterOn and fresh of interop.mjs */
export async function llamaSections(o) {
  const llama = await llamaRows(o),
    isolated = o.only ? [] : await isolationRows(o);
  const text = `## llama.cpp

With ${llama[0]?.versions}: llama-server on a CPU, keys and values in f32: the log-probability of every token after some
prefixes, beside our model read back from the same file. Checkpoints: models/nano and models/nano-judge; a random one
with plain rotary positions and odd numbers of heads, experts and layers; a random one of the released widths (2,880; 64
heads; two layers, three experts). All but the one with plain positions have YaRN, whose bounds llama.cpp rounds to
whole numbers, whatever the model says: ours are rounded in the same way for this comparison. In gguf it rounds the
inputs of products, to bf16 beside bf16 and to 8 bits beside MXFP4, and ours do so too. With no adapter six prefixes of
140 tokens, beyond every window; else six of 36 tokens and four of 4. Relative is the root mean square of the
differences beside the spread of our log-probabilities. Allowed is what \`temper verify --llama\` lets pass
(docs/guides/gguf.md says why). gguf-lora lies on a base in f32.

${llamaTable(llama)}

## Where the distance of gguf comes from

The same values in other types, so that llama.cpp rounds other inputs: none beside f32, to bf16 beside bf16, to 8 bits
in groups of 32 beside MXFP4. Bases alone, prefixes of 36 and 4 tokens, relative as above.

${isolationTable(isolated)}
`;
  const wrong = llama.filter((r) => !r.ok).map((r) => `${r.checkpoint}, ${r.name}, ${r.format}: ${r.relative}`);
  return { text, wrong };
}
