// What a checkpoint folder holds and what is odd about it. Opening it already refuses what is wrong; odd is what works
// but surprises.

import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { TemperError } from '../base/errors.js';
import { ops } from '../native/ops.js';
import { Scope, type Tensor } from '../native/tensor.js';
import { type Checkpoint, type CheckpointFile, DENSE_CACHE, digestCheckpoint, openCheckpoint } from './checkpoint.js';
import { layerWindow, type ModelConfig } from './config.js';
import { generationEnds } from './generation-config.js';
import { checkpointTensors, specBytes } from './layout.js';

export interface TensorSummary {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: number;
}
export interface Inspection {
  readonly dir: string;
  readonly layout: 'mxfp4' | 'dense';
  readonly config: ModelConfig;
  readonly files: readonly CheckpointFile[];
  readonly tensors: readonly TensorSummary[];
  readonly weightBytes: number;
  /** Numbers in the model; and those one token meets, the input embedding left out. */
  readonly parameters: number;
  readonly activeParameters: number;
  /** SHA-256 of config, index and weights (digestCheckpoint); null when not asked for. */
  readonly digest: string | null;
  readonly odd: readonly string[];
}

/** Parameter counts by config alone. */
export function countParameters(c: ModelConfig): { readonly parameters: number; readonly activeParameters: number } {
  let parameters = 0,
    activeParameters = 0;
  for (const t of checkpointTensors(c, 'dense')) {
    const n = t.shape.reduce((a, b) => a * b, 1);
    parameters += n;
    if (t.kind !== 'embed' || c.tie_word_embeddings)
      activeParameters += t.name.includes('.experts.') ? (n / c.num_local_experts) * c.num_experts_per_tok : n;
  }
  return { parameters, activeParameters };
}

export interface InspectOptions {
  /** Also reads every byte: digest, and NaN or infinite weights. */
  readonly full?: boolean;
  readonly signal?: AbortSignal;
  readonly onProgress?: (bytes: number) => void;
}

/**
 * Opens the checkpoint in `dir` and describes it.
 * @throws {CheckpointError} what openCheckpoint refuses · {DOMException} AbortError
 */
export async function inspectCheckpoint(dir: string, options: InspectOptions = {}): Promise<Inspection> {
  using model = openCheckpoint(dir);
  const specs = checkpointTensors(model.config, model.experts);
  const odd = oddities(dir, model, options.signal);
  for (const layer of model.layers) {
    options.signal?.throwIfAborted();
    layer.verify?.();
  }
  if (options.full) odd.push(...nonFinite(model, options.signal));
  const digest = options.full ? await digestCheckpoint(dir, { ...options, fresh: true }) : null;
  return {
    dir,
    layout: model.experts,
    config: model.config,
    files: model.files,
    tensors: specs.map((t) => ({ name: t.name, dtype: t.dtype, shape: t.shape, bytes: specBytes(t) })),
    weightBytes: specs.reduce((n, t) => n + specBytes(t), 0),
    ...countParameters(model.config),
    digest,
    odd,
  };
}

function oddities(dir: string, model: Checkpoint, signal?: AbortSignal): string[] {
  const c = model.config,
    odd: string[] = [];
  const quantised = c.quantization_config?.quant_method === 'mxfp4';
  if (model.experts === 'mxfp4' && !quantised)
    odd.push('experts are MXFP4 but config.json has no quantization_config of mxfp4: transformers will not load it');
  if (model.experts === 'dense' && quantised) odd.push('config.json says mxfp4 but the experts are stored dequantised');
  if (model.experts === 'dense') odd.push('experts are dequantised: four times the size of the released MXFP4');
  if (!c.rope_scaling && !c.rope_parameters)
    odd.push('config.json has neither rope_scaling nor rope_parameters: the defaults of transformers are taken');
  const windows = Array.from({ length: c.num_hidden_layers }, (_, i) => layerWindow(c, i));
  if (windows.some((w, i) => w > 0 !== (i % 2 === 0)))
    odd.push('layer_types do not alternate from a window layer on, as released models do');
  const present = new Set(readdirSync(dir));
  if (!present.has('tokenizer.json')) odd.push('no tokenizer.json: text commands will need one');
  const generation = join(dir, 'generation_config.json');
  if (existsSync(generation)) {
    try {
      const ends = generationEnds(generation);
      if (c.vocab_size > 200012 && !ends.includes(200012))
        odd.push('generation_config.json does not stop at <|call|> (200012), as the first public revision did');
    } catch (e) {
      if (!(e instanceof TemperError)) throw e;
      odd.push(e.message);
    }
  }
  const used = new Set(model.files.map((f) => f.name));
  const left = [...present].filter((n) => n.endsWith('.safetensors') && n !== DENSE_CACHE && !used.has(n));
  if (left.length > 0) odd.push(`weight files the index does not name: ${left.slice(0, 3).join(', ')}`);
  let zero = 0,
    low = 255,
    high = 0;
  for (const t of model.layers.flatMap((l) => [l.gateUp.scales, l.down.scales])) {
    if (!t) continue;
    for (const bytes of pieces(t)) {
      signal?.throwIfAborted();
      for (const e of bytes as Uint8Array) {
        if (e === 0) zero++;
        else {
          low = Math.min(low, e);
          high = Math.max(high, e);
        }
      }
    }
  }
  if (zero > 0) odd.push(`${zero} MXFP4 scales are 0 (2^-127): some kernels read that as the number 0`);
  if (high > 0 && (low < 90 || high > 140))
    odd.push(`MXFP4 scales run from ${low} to ${high}; released models stay near 120`);
  return odd;
}

function* pieces(t: Tensor): Generator<ReturnType<Tensor['read']>> {
  const step = 1 << 22;
  for (let from = 0; from < t.numel; from += step) {
    using s = new Scope('workspace');
    yield t.view(s, [Math.min(step, t.numel - from)], from).read();
  }
}

function nonFinite(model: Checkpoint, signal?: AbortSignal): string[] {
  const out: string[] = [];
  const named: [string, Tensor | null][] = [
    ['embed_tokens', model.embed],
    ['norm', model.norm],
    ['lm_head', model.head],
  ];
  model.layers.forEach((l, i) => {
    for (const [name, v] of Object.entries(l) as [string, unknown][]) {
      const parts = typeof v === 'object' && v !== null && 'w' in v ? (v as { w: Tensor; bias: Tensor | null }) : null;
      if (parts) named.push([`layer ${i} ${name}`, parts.w], [`layer ${i} ${name} bias`, parts.bias]);
      else if (typeof v === 'object' && v !== null) named.push([`layer ${i} ${name}`, v as Tensor]);
    }
  });
  const step = 1 << 22;
  for (const [name, t] of named) {
    if (!t || t.dtype === 'u8') continue;
    for (let from = 0; from < t.numel; from += step) {
      signal?.throwIfAborted();
      using s = new Scope('workspace');
      const n = Math.min(step, t.numel - from);
      const f32 = s.empty('f32', [n]),
        sum = s.empty('f32', [1]);
      ops.cast(f32, t.view(s, [n], from));
      ops.sum_squares(sum, f32);
      if (!Number.isFinite(sum.toFloat32()[0])) {
        out.push(`${name} holds NaN, infinite or enormous values`);
        break;
      }
    }
  }
  return out;
}
