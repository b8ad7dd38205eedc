// Made-up checkpoints in the released format, for tests and benchmarks: random weights of a sane size, streamed to
// disk, the same bytes for the same seed.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { readInput } from '../base/inputs.js';
import { packageRoot } from '../base/machine.js';
import { ops } from '../native/ops.js';
import { type DType, type Place, Scope, type Tensor } from '../native/tensor.js';
import { assemble } from './checkpoint.js';
import { type TensorSource, writeCheckpoint } from './checkpoint-writer.js';
import { type ModelConfig, parseConfig } from './config.js';
import { checkpointTensors, type TensorSpec } from './layout.js';
import type { ModelWeights } from './types.js';

const RELEASED = {
  hidden_size: 2880,
  intermediate_size: 2880,
  head_dim: 64,
  num_attention_heads: 64,
  num_key_value_heads: 8,
  num_experts_per_tok: 4,
  sliding_window: 128,
  rope_theta: 150000,
  rope_scaling: {
    beta_fast: 32,
    beta_slow: 1,
    factor: 32,
    original_max_position_embeddings: 4096,
    rope_type: 'yarn',
    truncate: false,
  },
  max_position_embeddings: 131072,
  initial_context_length: 4096,
  swiglu_limit: 7,
  rms_norm_eps: 1e-5,
} as const;
const FULL = { ...RELEASED, vocab_size: 201088, eos_token_id: 200002, pad_token_id: 199999 } as const;

export type Preset = 'nano' | 'slice' | '20b' | '120b';
/**
 * nano: the shape of models/nano; slice: two layers of the released shapes with six experts and 4,096 tokens; 20b,
 * 120b: the released models' shapes.
 */
export const PRESETS: Readonly<Record<Preset, ModelConfig>> = {
  nano: parseConfig(
    {
      ...RELEASED,
      vocab_size: 1024,
      hidden_size: 128,
      intermediate_size: 128,
      head_dim: 32,
      num_attention_heads: 8,
      num_key_value_heads: 2,
      num_hidden_layers: 4,
      num_local_experts: 8,
      num_experts_per_tok: 2,
      sliding_window: 64,
      max_position_embeddings: 1024,
      initial_context_length: 256,
      rope_scaling: { ...RELEASED.rope_scaling, factor: 4, original_max_position_embeddings: 256 },
      eos_token_id: 1007,
      pad_token_id: 1004,
    },
    'preset nano',
  ),
  slice: parseConfig({ ...RELEASED, vocab_size: 4096, num_hidden_layers: 2, num_local_experts: 6 }, 'preset slice'),
  '20b': parseConfig({ ...FULL, num_hidden_layers: 24, num_local_experts: 32 }, 'preset 20b'),
  '120b': parseConfig({ ...FULL, num_hidden_layers: 36, num_local_experts: 128 }, 'preset 120b'),
};

export interface InitOptions {
  readonly seed: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
  readonly maxShardBytes?: number;
}

/** Root mean square of the sixteen MXFP4 values. */
const CODE_RMS = Math.sqrt(68.5 / 8);
const STEP_ELEMENTS = 1 << 22;

/**
 * Writes a random checkpoint into the new folder `dir`. Deviations: matrices 1/√in (o_proj and down_proj a further
 * 1/√(2L)), embedding 0.5, biases 0.02, sinks 1; norms 1. Expert bytes are uniform over all codes, their scales over
 * three powers of two around the same deviation. The preset nano gets the embedded tokenizer.json, where this package
 * has it; the others get none.
 * @throws {CheckpointError} path_exists, disk_full (checked before anything is written), bad_config
 * @throws {DOMException} AbortError; nothing is left behind
 */
export async function initCheckpoint(
  dir: string,
  model: Preset | ModelConfig,
  options: InitOptions,
): Promise<ModelConfig> {
  const config = typeof model === 'string' ? PRESETS[model] : parseConfig(model);
  const order = new Map(checkpointTensors(config).map((t, i) => [t.name, i]));
  const source: TensorSource = (spec) => randomPieces(spec, config, seedOf(options.seed, order.get(spec.name) ?? 0));
  const tokenizer = join(packageRoot, 'models', 'nano', 'tokenizer.json');
  const files: Record<string, string | Uint8Array> = {};
  if (model === 'nano' && existsSync(tokenizer)) files['tokenizer.json'] = readInput(tokenizer, 'tokenizer');
  if (model === '20b' || model === '120b') {
    const generation = {
      bos_token_id: 199998,
      do_sample: true,
      eos_token_id: [200002, 199999, 200012],
      pad_token_id: 199999,
    };
    files['generation_config.json'] = `${JSON.stringify(generation, null, 2)}\n`;
  }
  await writeCheckpoint(dir, config, source, {
    files,
    ...(options.signal ? { signal: options.signal } : {}),
    ...(options.onProgress ? { onProgress: options.onProgress } : {}),
    ...(options.maxShardBytes ? { maxShardBytes: options.maxShardBytes } : {}),
  });
  return config;
}

const seedOf = (seed: number, at: number): number => seed * 65536 + at;
const dtypeOf = (spec: TensorSpec): DType => (spec.dtype === 'U8' ? 'u8' : 'bf16');
const numelOf = (spec: TensorSpec): number => spec.shape.reduce((a, b) => a * b, 1);

/** Piece `step` of a made-up tensor, elements from step·STEP_ELEMENTS on, into t, wherever that lies. */
function fillPiece(t: Tensor, spec: TensorSpec, c: ModelConfig, seed: number, step: number): void {
  const L = c.num_hidden_layers;
  const residual = /o_proj|down_proj/.test(spec.name) ? (2 * L) ** -0.5 : 1;
  const inputs = spec.kind === 'scales' ? (spec.shape.at(-1) ?? 1) * 32 : (spec.shape.at(-1) ?? 1);
  const deviation =
    spec.kind === 'embed' ? 0.5 : spec.kind === 'bias' ? 0.02 : spec.kind === 'sinks' ? 1 : inputs ** -0.5 * residual;
  const middle = 127 + Math.round(Math.log2(deviation / CODE_RMS));
  const pieceSeed = seed * 4096 + step;
  if (spec.kind === 'norm') ops.fill(t, 1);
  else if (spec.kind === 'blocks') ops.random_bytes(t, pieceSeed, 0, 255);
  else if (spec.kind === 'scales') ops.random_bytes(t, pieceSeed, middle - 1, middle + 1);
  else ops.random_normal(t, pieceSeed, deviation);
}

function* randomPieces(spec: TensorSpec, c: ModelConfig, seed: number): Generator<Uint8Array> {
  const numel = numelOf(spec);
  for (let from = 0, step = 0; from < numel; from += STEP_ELEMENTS, step++) {
    using s = new Scope('workspace');
    const t = s.empty(dtypeOf(spec), [Math.min(STEP_ELEMENTS, numel - from)]);
    fillPiece(t, spec, c, seed, step);
    const data = t.read();
    yield new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  }
}

/**
 * The model that initCheckpoint would write, made in memory: for measuring without a file. On a device the values are
 * the CPU's up to rounding.
 * @param options.embed where the embedding table lies, as for openCheckpoint
 * @throws {NativeError} out_of_memory, out_of_device_memory
 */
export function madeUpModel(
  config: ModelConfig,
  options: { readonly seed: number; readonly place?: Place; readonly embed?: Place },
): ModelWeights {
  const here = new Scope('weights', options.place),
    host = new Scope('weights', options.embed ?? options.place);
  const close = (): void => {
    here.close();
    host.close();
  };
  try {
    const tensors = new Map(
      checkpointTensors(config).map((spec, at) => {
        const t = (spec.kind === 'embed' && !config.tie_word_embeddings ? host : here).empty(dtypeOf(spec), spec.shape);
        for (let from = 0, step = 0; from < t.numel; from += STEP_ELEMENTS, step++) {
          using s = new Scope('workspace', t.place);
          fillPiece(
            t.view(s, [Math.min(STEP_ELEMENTS, t.numel - from)], from),
            spec,
            config,
            seedOf(options.seed, at),
            step,
          );
        }
        return [spec.name, t] as const;
      }),
    );
    return { ...assemble(config, 'mxfp4', tensors), close };
  } catch (e) {
    close();
    throw e;
  }
}
