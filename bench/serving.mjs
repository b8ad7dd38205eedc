// What the benchmarks of serving share: a model with room for long prompts, adapters that change what is answered.
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  cpSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { byteAlphabet } from '../scripts/nano/bpe.mjs';
import { writeO200k } from './o200k.mjs';

/** Where checkpoints of 20b's shapes stay from one benchmark to the next. */
export const WORK = join(tmpdir(), 'temper-peer-server');

/** A file just written lies in small pages of the system's cache, which is read a quarter slower: lets go of those. */
export const settle = (...files) => {
  for (const file of files) spawnSync('dd', [`if=${file}`, 'iflag=nocache', 'count=0', 'status=none']);
};

/**
 * A checkpoint of the released 20b's shapes with so many layers and o200k's vocabulary, drawn weights, bf16 and MXFP4;
 * made where it is not there yet. @param text its streams write text alone @returns its folder
 */
export async function shapes20b(layers, { work = WORK, text = false } = {}) {
  const model = join(work, `20b-${layers}${text ? '-text' : ''}`);
  if (!existsSync(join(model, 'tokenizer.json'))) {
    process.stderr.write(`making ${model}\n`);
    const { initCheckpoint, PRESETS } = await import('../dist/model/init.js');
    await initCheckpoint(model, { ...PRESETS['20b'], num_hidden_layers: layers }, { seed: 1 });
    writeO200k(model);
    if (text) writesText(model);
    settle(...readdirSync(model).map((name) => join(model, name)));
  }
  return model;
}

/** Control tokens that end a turn. */
const ENDS = /return|call|endoftext/;

/** Tokens that write no text by themselves: control tokens, pieces of characters, ids that the tokenizer lacks. */
function textless(model) {
  const { vocab_size } = JSON.parse(readFileSync(join(model, 'config.json'), 'utf8')),
    { vocab } = JSON.parse(readFileSync(join(model, 'tokenizer.json'), 'utf8')).model;
  const byteOf = new Map(byteAlphabet.map((c, byte) => [c, byte])),
    whole = new TextDecoder('utf-8', { fatal: true });
  const writes = new Set();
  for (const [name, id] of Object.entries(vocab))
    try {
      whole.decode(Uint8Array.from(name, (c) => byteOf.get(c)));
      writes.add(id);
    } catch {
      // part of a character: its text leaves with the next token's
    }
  return Array.from({ length: vocab_size }, (_, id) => id).filter((id) => !writes.has(id));
}
/** Reads and writes rows of the head, in the file. */
function headRows(model, work) {
  const index = join(model, 'model.safetensors.index.json');
  const shard = existsSync(index) ? JSON.parse(readFileSync(index, 'utf8')).weight_map['lm_head.weight'] : null;
  const file = openSync(join(model, shard ?? 'model.safetensors'), 'r+');
  try {
    const size = Buffer.alloc(8);
    readSync(file, size, 0, 8, 0);
    const header = Buffer.alloc(Number(size.readBigUInt64LE()));
    readSync(file, header, 0, header.length, 8);
    const { data_offsets: at, shape } = JSON.parse(header.toString('utf8'))['lm_head.weight'];
    const bytes = (at[1] - at[0]) / shape[0],
      place = (id) => 8 + header.length + at[0] + id * bytes;
    work({
      read(id) {
        const row = Buffer.alloc(bytes);
        readSync(file, row, 0, bytes, place(id));
        return row;
      },
      write: (id, row) => writeSync(file, row, 0, bytes, place(id)),
    });
  } finally {
    closeSync(file);
  }
}
/**
 * Streams write text with each token then, at a low temperature: a token without text looks like a long wait for the
 * next one. The others' rows of the head become zeros, in its file, which are not among the likely ones.
 */
function writesText(model) {
  const ids = textless(model);
  headRows(model, ({ read, write }) => {
    const nothing = Buffer.alloc(read(ids[0]).length);
    for (const id of ids) write(id, nothing);
  });
}

/**
 * The same weights with as many positions, where the model has fewer, and without a leaning to tokens that end a turn,
 * or to all that write no text: a stream of 20 tokens is a measurement of requests.
 */
export function longer(model, folder, { positions = 4096, text = false } = {}) {
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
  if (text) {
    writesText(copy);
    return copy;
  }
  const { added_tokens } = JSON.parse(readFileSync(join(copy, 'tokenizer.json'), 'utf8'));
  // No text has a reserved one: its row stands for "never". Where nothing but text is to come it would be the likeliest
  // at an end.
  const reserved = added_tokens.find((t) => /^<.reserved_/.test(t.content)).id;
  headRows(copy, ({ read, write }) => {
    const never = read(reserved);
    for (const { id, content } of added_tokens) if (ENDS.test(content)) write(id, never);
  });
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
