// temper-oss/tfjs: gpt-oss's frozen matrices and MXFP4 experts as differentiable ops of TensorFlow.js, and its datasets
// as rows. It takes the `tf` namespace, so tfjs, tfjs-node and tfjs-node-gpu fit, and imports none of them. Ops run on
// the CPU, in the calling thread, as tfjs's own do.
import { basename } from 'node:path';
import type { Tensor as TfTensor } from '@tensorflow/tfjs-core';
import { ConfigError } from '../base/errors.js';
import { isExpertTarget, matrixShape } from '../lora/spec.js';
import { type Checkpoint, openCheckpoint } from '../model/checkpoint.js';
import type { ModelConfig } from '../model/config.js';
import type { LayerWeights, LoraTarget } from '../model/types.js';
import type { PRECISION } from '../native/ops.js';
import { ops } from '../native/ops.js';
import { saveAdapter, type TfPairs } from './adapter.js';
import { type LinearOptions, linear } from './linear.js';
import type { TfPair } from './lora.js';
import { type Tf, TfMemory } from './memory.js';
import { type MoeOptions, moe } from './moe.js';

export type { TfPairs } from './adapter.js';
export { type TfDataset, writeRows } from './data.js';
export type { LinearOptions } from './linear.js';
export type { TfPair } from './lora.js';
export type { Tf } from './memory.js';
export type { MoeOptions } from './moe.js';

export interface BridgeOptions {
  /** Of matrix products, as in a recipe; default f32. */
  readonly precision?: keyof typeof PRECISION;
}
export interface PairOptions {
  readonly rank: number;
  /** scale = alpha / rank; default 2 · rank. */
  readonly alpha?: number;
  readonly seed?: number;
}

export interface FrozenLayer {
  /** A frozen dense matrix of the layer: x float32 [...,C] → [...,N]; gradients to x, the pair and the bias given. */
  linear(name: 'q' | 'k' | 'v' | 'o' | 'router', x: TfTensor, options?: LinearOptions): TfTensor;
  /** The experts: x float32 [T,D], normed → [T,D]; gradients to x, scores, pairs and biases given. */
  moe(x: TfTensor, options?: MoeOptions): TfTensor;
  /** RMSNorm before the experts (post_attention_layernorm) or attention (input_layernorm), without a gradient. */
  norm(name: 'post' | 'input', x: TfTensor): TfTensor;
  /** A new pair for a matrix: A uniform in ±1/√C, B zero, so that it changes nothing yet. */
  pair(target: LoraTarget, options: PairOptions): Required<TfPair>;
}
export interface FrozenModel extends Disposable {
  readonly config: ModelConfig;
  /** @throws {ConfigError} no_such_layer */
  layer(i: number): FrozenLayer;
  /** Writes pairs as a PEFT adapter, which `temper generate --adapter`, eval and export take. */
  saveAdapter(folder: string, pairs: TfPairs, about?: string): Promise<void>;
  /** Ends the mapping; ops on it throw from then on. */
  close(): void;
}
export interface Bridge {
  /** Opens a checkpoint of gpt-oss; its bytes are mapped, not read. @throws {CheckpointError} what is wrong with it */
  open(dir: string): FrozenModel;
  /** As FrozenLayer.linear, for a matrix of tfjs's own: W float32 [N,C], which gets no gradient. */
  linear(x: TfTensor, weight: TfTensor, options?: LinearOptions): TfTensor;
}

/** @param tf the namespace of tfjs, tfjs-core, tfjs-node or tfjs-node-gpu */
export function createBridge(tf: Tf, { precision = 'f32' }: BridgeOptions = {}): Bridge {
  const memory = new TfMemory(tf);
  return {
    open: (dir) => frozen(memory, precision, openCheckpoint(dir), basename(dir)),
    linear: (x, weight, options = {}) => linear(memory, precision, x, { w: weight, bias: null }, options),
  };
}

function frozen(
  memory: TfMemory,
  precision: keyof typeof PRECISION,
  model: Checkpoint,
  baseModel: string,
): FrozenModel {
  const { config } = model;
  const close = (): void => model.close();
  return {
    config,
    layer(i) {
      const w = model.layers[i];
      if (!w)
        throw new ConfigError('no_such_layer', `layer ${i}: the model has layers 0…${config.num_hidden_layers - 1}`);
      w.verify?.();
      return layerOf(memory, precision, config, w);
    },
    saveAdapter: (folder, pairs, about = '') => saveAdapter(config, folder, pairs, { baseModel, about }),
    close,
    [Symbol.dispose]: close,
  };
}

function layerOf(
  memory: TfMemory,
  precision: keyof typeof PRECISION,
  config: ModelConfig,
  w: LayerWeights,
): FrozenLayer {
  const { router, gateUp, down } = w;
  return {
    linear: (name, x, options = {}) => linear(memory, precision, x, w[name], options),
    moe: (x, options = {}) => moe(memory, precision, { config, router, gateUp, down }, x, options),
    norm(name, x) {
      const D = config.hidden_size,
        T = x.size / D;
      const [y] = memory.run([x.shape], [x], ([out], [given], s) => {
        const norm = name === 'post' ? w.postNorm : w.inputNorm;
        ops.rmsnorm_fwd(
          out!.view(s, [T, D]),
          s.empty('f32', [T]),
          null,
          given!.view(s, [T, D]),
          null,
          norm,
          config.rms_norm_eps,
        );
      });
      return y as TfTensor;
    },
    pair(target, { rank, alpha = 2 * rank, seed = 0 }) {
      const { inputs: C, outputs: N } = matrixShape(config, target);
      const of = isExpertTarget(target) ? [config.num_local_experts] : [];
      const bound = 1 / Math.sqrt(C);
      const [A, B] = memory.run(
        [
          [...of, rank, C],
          [...of, N, rank],
        ],
        [],
        ([a]) => ops.random_uniform(a!, seed, -bound, bound),
      ) as [TfTensor, TfTensor];
      return { A, B, scale: alpha / rank };
    },
  };
}
