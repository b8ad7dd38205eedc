// A gpt-oss trained from scratch: f32 master weights in one flat tensor (as are gradients, so that one adamw call
// updates everything), and beside them the weights as they will be exported: dense ones in bf16, experts in MXFP4. The
// forward runs on those, so what is trained is what is saved; the gradient passes the rounding straight through to the
// masters (arXiv:1308.3432).
import { CheckpointError } from '../base/errors.js';
import { ops } from '../native/ops.js';
import { type Place, Scope, type Tensor } from '../native/tensor.js';
import { type TensorSource, type WriteOptions, writeCheckpoint, writeCheckpointInto } from './checkpoint-writer.js';
import { layerWindow, type ModelConfig } from './config.js';
import { fitsMxfp4, globalTensors, layerPrefix, layerTensors, MXFP4_GROUP, type TensorSpec } from './layout.js';
import type {
  ExpertWeights,
  LayerGrads,
  LayerWeights,
  LinearGrads,
  LinearWeights,
  ModelGrads,
  ModelWeights,
} from './types.js';

/** One named part of the flat tensors, in elements. Experts are out×in, [E,N,C]. */
export interface Segment {
  readonly name: string;
  readonly offset: number;
  readonly shape: readonly number[];
}

export interface Trainable extends Disposable {
  readonly config: ModelConfig;
  /** f32 [P]: all master weights; padding between segments stays zero. */
  readonly params: Tensor;
  /** f32 [P]: their gradients; the caller zeroes them. */
  readonly grads: Tensor;
  readonly segments: readonly Segment[];
  /** The weights the forward uses, and the views of `grads` its backward adds to. */
  readonly model: ModelWeights;
  readonly gradViews: ModelGrads;
  /** Rounds the masters into `model`. Call after every change of `params`. */
  refresh(): void;
  /** Writes the released layout to a new folder, or in place of the one there, atomically. */
  save(dir: string, options?: WriteOptions): Promise<void>;
  /** The same into a folder that exists and that the caller makes appear atomically. */
  saveInto(folder: string, options?: WriteOptions): Promise<void>;
  close(): void;
}

/** Segments start on 64-byte lines. */
const ALIGN = 16;
const EXPERTS = ['gate_up_proj', 'down_proj'] as const;

/** Matrices of the dense layout, but with experts out×in, the order the ops' gradients have. */
function masterTensors(c: ModelConfig): readonly TensorSpec[] {
  const transpose = (t: TensorSpec): TensorSpec =>
    t.shape.length === 3 ? { ...t, shape: [t.shape[0] ?? 0, t.shape[2] ?? 0, t.shape[1] ?? 0] } : t;
  const layer = layerTensors(c, 'dense').map(transpose);
  return [
    ...Array.from({ length: c.num_hidden_layers }, (_, i) =>
      layer.map((t) => ({ ...t, name: layerPrefix(i) + t.name })),
    ).flat(),
    ...globalTensors(c),
  ];
}

/**
 * Makes a model with random weights. Matrices: normal with deviation 1/√in, those that write into the residual stream
 * (o_proj, down_proj) a further 1/√(2L); embedding 0.5, head 1/√D, router 0.02; norms 1; biases and sinks 0.
 * @param seed the same config and seed give the same bits
 * @throws {CheckpointError} bad_config: widths that MXFP4 cannot hold (multiples of 32), tied embeddings
 */
export function createTrainable(
  config: ModelConfig,
  options: { readonly seed: number; readonly place?: Place },
): Trainable {
  if (!fitsMxfp4(config))
    throw new CheckpointError(
      'bad_config',
      `hidden_size ${config.hidden_size} and intermediate_size ${config.intermediate_size}: ` +
        `MXFP4 experts need multiples of ${MXFP4_GROUP}`,
    );
  if (config.tie_word_embeddings)
    throw new CheckpointError(
      'bad_config',
      'tie_word_embeddings true: a model trained from scratch has a head of its own; set it to false',
    );
  const own = new Scope('weights', options.place),
    opt = new Scope('optimizer', options.place);
  try {
    return build(config, options.seed, own, opt);
  } catch (e) {
    own.close();
    opt.close();
    throw e;
  }
}

function build(config: ModelConfig, seed: number, own: Scope, opt: Scope): Trainable {
  const specs = masterTensors(config);
  let total = 0;
  const segments = specs.map((t): Segment => {
    const offset = total;
    total += Math.ceil(t.shape.reduce((a, b) => a * b, 1) / ALIGN) * ALIGN;
    return { name: t.name, offset, shape: t.shape };
  });
  const params = opt.zeros('f32', [total]),
    grads = opt.zeros('f32', [total]);
  const byName = new Map(segments.map((s) => [s.name, s]));
  const segment = (name: string): Segment => {
    const s = byName.get(name);
    if (!s) throw new CheckpointError('tensor_missing', `no parameter ${name}`, { tensor: name });
    return s;
  };
  const viewOf = (flat: Tensor, name: string): Tensor => {
    const s = segment(name);
    return flat.view(opt, s.shape, s.offset);
  };
  for (const [i, t] of specs.entries()) initialise(viewOf(params, t.name), t, config, seed * 65536 + i);

  // The materialised weights, and how each is made from its master.
  const files = new Map<string, Tensor>();
  const refreshers: (() => void)[] = [];
  const dense = (name: string): Tensor => {
    const master = viewOf(params, name),
      t = own.empty('bf16', master.shape);
    files.set(name, t);
    refreshers.push(() => ops.cast(t, master));
    return t;
  };
  const linear = (name: string, bias: boolean): LinearWeights => ({
    w: dense(`${name}.weight`),
    bias: bias ? dense(`${name}.bias`) : null,
  });
  const expert = (name: string): ExpertWeights => {
    const master = viewOf(params, name);
    const [E = 0, N = 0, C = 0] = master.shape;
    const w = own.empty('u8', [E, N, C / MXFP4_GROUP, MXFP4_GROUP / 2]),
      scales = own.empty('u8', [E, N, C / MXFP4_GROUP]);
    files.set(`${name}_blocks`, w).set(`${name}_scales`, scales);
    refreshers.push(() => ops.mxfp4_quantize(w, scales, master));
    return { w, scales, bias: dense(`${name}_bias`), layout: 0 };
  };
  const linearGrads = (name: string, bias: boolean): LinearGrads => ({
    w: viewOf(grads, `${name}.weight`),
    bias: bias ? viewOf(grads, `${name}.bias`) : null,
  });
  const expertGrads = (name: string): LinearGrads => ({ w: viewOf(grads, name), bias: viewOf(grads, `${name}_bias`) });

  const layers: LayerWeights[] = [],
    layerGrads: LayerGrads[] = [];
  for (let i = 0; i < config.num_hidden_layers; i++) {
    const at = layerPrefix(i),
      bias = config.attention_bias;
    const [gateUp, down] = EXPERTS.map((n) => `${at}mlp.experts.${n}`) as [string, string];
    layers.push({
      inputNorm: dense(`${at}input_layernorm.weight`),
      q: linear(`${at}self_attn.q_proj`, bias),
      k: linear(`${at}self_attn.k_proj`, bias),
      v: linear(`${at}self_attn.v_proj`, bias),
      o: linear(`${at}self_attn.o_proj`, bias),
      sinks: dense(`${at}self_attn.sinks`),
      postNorm: dense(`${at}post_attention_layernorm.weight`),
      router: linear(`${at}mlp.router`, true),
      gateUp: expert(gateUp),
      down: expert(down),
      window: layerWindow(config, i),
    });
    layerGrads.push({
      inputNorm: viewOf(grads, `${at}input_layernorm.weight`),
      q: linearGrads(`${at}self_attn.q_proj`, bias),
      k: linearGrads(`${at}self_attn.k_proj`, bias),
      v: linearGrads(`${at}self_attn.v_proj`, bias),
      o: linearGrads(`${at}self_attn.o_proj`, bias),
      sinks: viewOf(grads, `${at}self_attn.sinks`),
      postNorm: viewOf(grads, `${at}post_attention_layernorm.weight`),
      router: linearGrads(`${at}mlp.router`, true),
      gateUp: expertGrads(gateUp),
      down: expertGrads(down),
    });
  }
  const [embed, norm, head] = ['model.embed_tokens.weight', 'model.norm.weight', 'lm_head.weight'] as const;
  let closed = false;
  const close = (): void => {
    if (closed) return;
    closed = true;
    own.close();
    opt.close();
  };
  const model: ModelWeights = { config, embed: dense(embed), layers, norm: dense(norm), head: dense(head), close };
  const gradViews: ModelGrads = {
    embed: viewOf(grads, embed),
    layers: layerGrads,
    norm: viewOf(grads, norm),
    head: viewOf(grads, head),
  };
  const refresh = (): void => {
    for (const run of refreshers) run();
  };
  refresh();

  const source: TensorSource = function* (spec) {
    const t = files.get(spec.name);
    if (!t)
      throw new CheckpointError('tensor_missing', `${spec.name} is not part of this model`, { tensor: spec.name });
    const data = t.read();
    yield new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  };
  return {
    config,
    params,
    grads,
    segments,
    model,
    gradViews,
    refresh,
    close,
    [Symbol.dispose]: close,
    save: (dir, o) => writeCheckpoint(dir, config, source, { ...o, replace: true }),
    saveInto: async (folder, o) => {
      await writeCheckpointInto(folder, config, source, o);
    },
  };
}

function initialise(t: Tensor, spec: TensorSpec, c: ModelConfig, seed: number): void {
  if (spec.kind === 'norm') {
    ops.fill(t, 1);
    return;
  }
  if (spec.kind === 'bias' || spec.kind === 'sinks') {
    ops.fill(t, 0);
    return;
  }
  const residual = spec.name.includes('o_proj') || spec.name.endsWith('experts.down_proj');
  const scale =
    spec.kind === 'embed'
      ? 0.5
      : spec.name.includes('mlp.router')
        ? 0.02
        : (spec.shape.at(-1) ?? 1) ** -0.5 * (residual ? (2 * c.num_hidden_layers) ** -0.5 : 1);
  ops.random_normal(t, seed, scale);
}
