// Writes a checkpoint in the released layout: config.json, shards of at most 4.8·10⁹ bytes named from zero, index.
// Streamed; the folder appears whole or not at all.
import { existsSync, readdirSync, statfsSync, statSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { CheckpointError } from '../base/errors.js';
import { writeFlushed, writeFolderAtomic } from '../base/files.js';
import { makeFolders } from '../base/folders.js';
import { LargeFile } from '../base/large-file.js';
import { checkOutputs } from '../base/outputs.js';
import { layoutFile } from '../native/safetensors.js';
import { layerWindow, type ModelConfig } from './config.js';
import { checkpointTensors, specBytes, type TensorSpec } from './layout.js';

export const MAX_SHARD_BYTES = 4.8e9;

export interface WriteOptions {
  readonly experts?: 'mxfp4' | 'dense';
  readonly maxShardBytes?: number;
  /** In place of the released layout's: names, dtypes and shapes of what is written, in order. */
  readonly tensors?: readonly TensorSpec[];
  /** In place of the one made of the config. */
  readonly configJson?: Readonly<Record<string, unknown>>;
  /** Further small files of the folder, by name. */
  readonly files?: Readonly<Record<string, string | Uint8Array>>;
  readonly signal?: AbortSignal;
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
}
/** Yields the bytes of one tensor, in order, in pieces; each is taken before the next is asked for. */
export type TensorSource = (spec: TensorSpec) => Iterable<Uint8Array>;

/** config.json with the keys of the released files. */
export function configJson(c: ModelConfig, experts: 'mxfp4' | 'dense' = 'mxfp4'): Record<string, unknown> {
  const windows = Array.from({ length: c.num_hidden_layers }, (_, i) => layerWindow(c, i));
  return {
    architectures: ['GptOssForCausalLM'],
    attention_bias: c.attention_bias,
    attention_dropout: 0,
    ...(c.eos_token_id != null ? { eos_token_id: c.eos_token_id } : {}),
    experts_per_token: c.num_experts_per_tok,
    head_dim: c.head_dim,
    hidden_act: 'silu',
    hidden_size: c.hidden_size,
    ...(c.initial_context_length !== undefined ? { initial_context_length: c.initial_context_length } : {}),
    initializer_range: 0.02,
    intermediate_size: c.intermediate_size,
    layer_types: windows.map((w) => (w ? 'sliding_attention' : 'full_attention')),
    max_position_embeddings: c.max_position_embeddings,
    model_type: 'gpt_oss',
    num_attention_heads: c.num_attention_heads,
    num_experts_per_tok: c.num_experts_per_tok,
    num_hidden_layers: c.num_hidden_layers,
    num_key_value_heads: c.num_key_value_heads,
    num_local_experts: c.num_local_experts,
    output_router_logits: false,
    ...(c.pad_token_id != null ? { pad_token_id: c.pad_token_id } : {}),
    ...(experts === 'mxfp4'
      ? {
          quantization_config: {
            modules_to_not_convert: [
              'model.layers.*.self_attn',
              'model.layers.*.mlp.router',
              'model.embed_tokens',
              'lm_head',
            ],
            quant_method: 'mxfp4',
          },
        }
      : {}),
    rms_norm_eps: c.rms_norm_eps,
    ...(c.rope_parameters ? { rope_parameters: c.rope_parameters } : {}),
    ...(c.rope_scaling ? { rope_scaling: c.rope_scaling } : {}),
    ...(c.rope_theta != null ? { rope_theta: c.rope_theta } : {}),
    router_aux_loss_coef: 0.9,
    sliding_window: c.sliding_window ?? 128,
    ...(c.swiglu_alpha !== 1.702 ? { swiglu_alpha: c.swiglu_alpha } : {}),
    swiglu_limit: c.swiglu_limit,
    tie_word_embeddings: c.tie_word_embeddings,
    use_cache: true,
    vocab_size: c.vocab_size,
  };
}

/** Cuts the tensors into shards in order; a tensor is never split. */
export function planShards(tensors: readonly TensorSpec[], maxBytes: number): readonly (readonly TensorSpec[])[] {
  const shards: TensorSpec[][] = [[]];
  let bytes = 0;
  for (const t of tensors) {
    const size = specBytes(t);
    if (bytes > 0 && bytes + size > maxBytes) {
      shards.push([]);
      bytes = 0;
    }
    shards.at(-1)?.push(t);
    bytes += size;
  }
  return shards;
}

/**
 * The header is laid out before any data exists: bytes are awaited piece by piece, so that a signal is heard while
 * gigabytes are written.
 */
const NO_DATA = new Uint8Array(0);
const five = (n: number): string => String(n).padStart(5, '0');

/** One shard, its bytes hashed on their way; while some are being written the next ones are made. */
async function writeShard(
  path: string,
  shard: readonly TensorSpec[],
  source: TensorSource,
  onBytes: (bytes: number) => void,
  signal?: AbortSignal,
): Promise<string> {
  const { ordered, header } = layoutFile(
    path,
    shard.map((t) => ({ ...t, data: NO_DATA })),
    { format: 'pt' },
  );
  const byName = new Map(shard.map((t) => [t.name, t]));
  const file = await LargeFile.create(path, { expectedBytes: shard.reduce((n, t) => n + specBytes(t), header.length) });
  try {
    await file.write(header);
    for (const { name } of ordered) {
      const spec = byName.get(name);
      if (!spec) continue;
      let bytes = 0;
      for (const piece of source(spec)) {
        signal?.throwIfAborted();
        await file.write(piece);
        bytes += piece.length;
        onBytes(piece.length);
      }
      if (bytes !== specBytes(spec))
        throw new CheckpointError(
          'tensor_shape',
          `writing ${spec.name}: got ${bytes} bytes, wanted ${specBytes(spec)}`,
          {
            tensor: spec.name,
          },
        );
    }
    return await file.finish();
  } finally {
    await file.close();
  }
}

/**
 * Writes config, weights and index into an existing folder; see `writeCheckpoint` for the atomic form.
 * One shard becomes model.safetensors, more become model-00000-of-0000N (N the last index) with
 * model.safetensors.index.json.
 * @returns sha256 of the shards by name
 */
export async function writeCheckpointInto(
  folder: string,
  config: ModelConfig,
  source: TensorSource,
  options: WriteOptions = {},
): Promise<Readonly<Record<string, string>>> {
  const experts = options.experts ?? 'mxfp4';
  const tensors = options.tensors ?? checkpointTensors(config, experts);
  const totalBytes = tensors.reduce((n, t) => n + specBytes(t), 0);
  const shards = planShards(tensors, options.maxShardBytes ?? MAX_SHARD_BYTES);
  const nameOf = (i: number): string =>
    shards.length === 1 ? 'model.safetensors' : `model-${five(i)}-of-${five(shards.length - 1)}.safetensors`;
  let done = 0;
  const onBytes = (bytes: number): void => {
    done += bytes;
    options.onProgress?.(done, totalBytes);
  };
  const digests: Record<string, string> = {};
  for (const [i, shard] of shards.entries())
    digests[nameOf(i)] = await writeShard(join(folder, nameOf(i)), shard, source, onBytes, options.signal);
  if (shards.length > 1) {
    const map = Object.fromEntries(
      shards.flatMap((shard, i) => shard.map((t) => [t.name, nameOf(i)] as const)).sort(([a], [b]) => (a < b ? -1 : 1)),
    );
    writeFlushed(
      join(folder, 'model.safetensors.index.json'),
      `${JSON.stringify({ metadata: { total_size: totalBytes }, weight_map: map }, null, 2)}\n`,
    );
  }
  writeFlushed(
    join(folder, 'config.json'),
    `${JSON.stringify(options.configJson ?? configJson(config, experts), null, 2)}\n`,
  );
  for (const [name, data] of Object.entries(options.files ?? {})) writeFlushed(join(folder, name), data);
  return digests;
}

/**
 * Writes a checkpoint folder in one step: nothing is at `dir` until it is complete. An existing checkpoint there is
 * replaced only with `replace`.
 * @throws {CheckpointError} path_exists; disk_full when the file system has not the bytes, checked before anything is
 * written
 */
export async function writeCheckpoint(
  dir: string,
  config: ModelConfig,
  source: TensorSource,
  options: WriteOptions & { readonly replace?: boolean } = {},
): Promise<void> {
  const path = resolve(dir);
  if (!options.replace && existsSync(path) && (!statSync(path).isDirectory() || readdirSync(path).length > 0))
    throw new CheckpointError(
      'path_exists',
      `${dir}: exists and is no empty folder; give a new one or remove it first`,
      {
        file: dir,
      },
    );
  checkOutputs({ 'the folder': dir }, {}, 'folder');
  const needed = checkpointTensors(config, options.experts ?? 'mxfp4').reduce((n, t) => n + specBytes(t), 1 << 20);
  makeFolders(dirname(path));
  checkDiskSpace(dirname(path), needed);
  await writeFolderAtomic(path, async (folder) => {
    await writeCheckpointInto(folder, config, source, options);
  });
}

/** @throws {CheckpointError} disk_full */
export function checkDiskSpace(folder: string, neededBytes: number): void {
  const { bavail, bsize } = statfsSync(folder);
  if (bavail * bsize < neededBytes)
    throw new CheckpointError(
      'disk_full',
      `${folder}: ${bavail * bsize} bytes are free, ${neededBytes} are needed; make room or choose another folder`,
      { file: folder, neededBytes, freeBytes: bavail * bsize },
    );
}
