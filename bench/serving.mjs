// What the benchmarks of serving share: a model with room for long prompts, adapters that change what is answered.
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { writeO200k } from './o200k.mjs';

/** Where checkpoints of 20b's shapes stay from one benchmark to the next. */
export const WORK = join(tmpdir(), 'temper-peer-server');

/** A file just written lies in small pages of the system's cache, which is read a quarter slower: lets go of those. */
export const settle = (...files) => {
  for (const file of files) spawnSync('dd', [`if=${file}`, 'iflag=nocache', 'count=0', 'status=none']);
};

/**
 * A checkpoint of the released 20b's shapes with so many layers and o200k's vocabulary, drawn weights, bf16 and MXFP4;
 * made where it is not there yet. @returns its folder
 */
export async function shapes20b(layers, work = WORK) {
  const model = join(work, `20b-${layers}`);
  if (!existsSync(join(model, 'tokenizer.json'))) {
    process.stderr.write(`making ${model}\n`);
    const { initCheckpoint, PRESETS } = await import('../dist/model/init.js');
    await initCheckpoint(model, { ...PRESETS['20b'], num_hidden_layers: layers }, { seed: 1 });
    writeO200k(model);
    settle(...readdirSync(model).map((name) => join(model, name)));
  }
  return model;
}

/** Control tokens: those that end a turn, and all. */
const ENDS = /return|call|endoftext/;
export const CONTROLS = /^<\|/;

/**
 * The same weights with as many positions, where the model has fewer, and without a leaning to some control tokens: a
 * stream of 20 tokens is a measurement of requests, and one that writes a header for hundreds of tokens has no text.
 */
export function longer(model, folder, { positions = 4096, never = ENDS } = {}) {
  const config = JSON.parse(readFileSync(join(model, 'config.json'), 'utf8'));
  if (config.max_position_embeddings >= positions) return model;
  const copy = join(folder, `model-${positions}`);
  cpSync(model, copy, { recursive: true });
  const factor = positions / config.rope_scaling.original_max_position_embeddings;
  const rope_scaling = { ...config.rope_scaling, factor };
  writeFileSync(
    join(copy, 'config.json'),
    JSON.stringify({ ...config, max_position_embeddings: positions, rope_scaling }),
  );
  const weights = join(copy, 'model.safetensors'),
    bytes = readFileSync(weights),
    header = Number(bytes.readBigUInt64LE());
  const { data_offsets: at, shape } = JSON.parse(bytes.toString('utf8', 8, 8 + header))['lm_head.weight'];
  const row = (at[1] - at[0]) / shape[0];
  const { added_tokens } = JSON.parse(readFileSync(join(copy, 'tokenizer.json'), 'utf8'));
  const rowAt = (id) => 8 + header + at[0] + id * row;
  // No text has a reserved one: its row stands for "never". Where nothing but text is to come it would be the likeliest
  // at an end; zeros are not, at a low temperature.
  const reserved = rowAt(added_tokens.find((t) => /^<.reserved_/.test(t.content)).id);
  for (const { id, content } of added_tokens)
    if (never === CONTROLS) bytes.fill(0, rowAt(id), rowAt(id) + row);
    else if (never.test(content)) bytes.copy(bytes, rowAt(id), reserved, reserved + row);
  writeFileSync(weights, bytes);
  return copy;
}

/** Adapters of rank 8 on attention and experts. @returns folders by name */
export async function makeAdapters(model, folder, n) {
  const [{ openCheckpoint }, { createAdapter }, { adapterSpec }, { writePeft }] = await Promise.all([
    import('../dist/model/checkpoint.js'),
    import('../dist/lora/adapter.js'),
    import('../dist/lora/spec.js'),
    import('../dist/lora/peft.js'),
  ]);
  const checkpoint = openCheckpoint(model);
  const names = {};
  for (let i = 0; i < n; i++) {
    const spec = adapterSpec(checkpoint.config, {
      rank: 8,
      alpha: 16,
      targets: ['attention', 'experts'],
      rsLora: false,
      dropout: 0,
    });
    const adapter = createAdapter(checkpoint.config, spec, { seed: i });
    adapter.params.write(adapter.params.toFloat32().map((x, j) => x || Math.sin(i + j) * 0.01));
    names[`a${i}`] = join(folder, `a${i}`);
    await writePeft(adapter, names[`a${i}`], { baseModel: 'base' });
    adapter.close();
  }
  checkpoint.close();
  return names;
}
