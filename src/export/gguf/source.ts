// The bytes of each tensor of a GGUF file: from the checkpoint's own, with the adapter's product added where it has
// one. Pieces are one expert or some rows, so that memory does not grow with the model.
import { CheckpointError } from '../../base/errors.js';
import type { Checkpoint } from '../../model/checkpoint.js';
import type { ExpertWeights, LoraTarget } from '../../model/types.js';
import { ops } from '../../native/ops.js';
import { Scope, type Tensor } from '../../native/tensor.js';
import type { LayerSurvived, Survived } from '../gain.js';
import { addSurvived } from '../merge.js';
import type { PlannedTensor } from './model.js';
import { everySecondRow, packBlocks } from './repack.js';

/** What is added to one matrix, or to each expert's: A f32 [R, C] or [E, R, C], B f32 [N, R] or [E, N, R]. */
export interface Pair {
  readonly A: Float32Array;
  readonly B: Float32Array;
  readonly rank: number;
  readonly scale: number;
}
export interface TensorSource {
  readonly base: Checkpoint;
  /** Reads the pair of a target; undefined: it is not adapted. */
  pair(layer: number, target: LoraTarget): Pair | undefined;
  /** Trained through the rounding of a merge: what is written are its values, in whatever type. */
  readonly throughMerge: boolean;
  /** Of each layer: what rounding left of its change; added up while tensors are read. Absent: nobody asks. */
  readonly survived?: readonly LayerSurvived[];
}

/** Elements that are converted at a time. */
const CHUNK = 2 ** 21;
const asBytes = (a: ArrayBufferView): Uint8Array => new Uint8Array(a.buffer, a.byteOffset, a.byteLength);
type Float = 'F32' | 'BF16';

/** Contents of `t` in that type. */
function convert(t: Tensor, type: Float): Uint8Array {
  const dtype = type === 'F32' ? 'f32' : 'bf16';
  if (t.dtype === dtype) return asBytes(t.read());
  using s = new Scope('workspace');
  return asBytes(castTo(s, t, dtype).read());
}
function castTo(scope: Scope, t: Tensor, dtype: 'f32' | 'bf16'): Tensor {
  const to = scope.empty(dtype, t.shape);
  ops.cast(to, t);
  return to;
}

/** Some rows of a matrix [N, C], with the pair's product added. */
function* denseRows(
  w: Tensor,
  pair: Pair | undefined,
  type: Float,
  throughMerge = false,
  survived?: Survived,
): Iterable<Uint8Array> {
  const N = w.rows,
    C = w.numel / N,
    step = Math.max(1, Math.floor(CHUNK / C));
  for (let from = 0; from < N; from += step) {
    using s = new Scope('workspace');
    const n = Math.min(step, N - from),
      rows = w.slice(s, from, from + n);
    if (!pair) {
      yield convert(rows, type);
      continue;
    }
    const { rank, scale } = pair,
      // A merge rounds to the base's own type.
      y = s.empty(throughMerge ? w.dtype : type === 'F32' ? 'f32' : 'bf16', [1, n, C]),
      one = rows.view(s, [1, n, C]),
      A = s.from(pair.A, [1, rank, C]),
      B = s.from(pair.B.subarray(from * rank, (from + n) * rank), [1, n, rank]);
    ops.lora_merge(y, one, null, A, B, scale, 1, 1);
    if (survived) addSurvived(survived, one, y, { A, B, scale }, s);
    yield convert(y, type);
  }
}

/** One expert's matrix [N, C] of the planned tensor, which may be every second row of the checkpoint's. */
class Expert {
  readonly #first: 0 | 1;
  constructor(
    readonly source: TensorSource,
    readonly plan: PlannedTensor,
    readonly weights: ExpertWeights,
    readonly pair: Pair | undefined,
  ) {
    this.#first = plan.half === 'up' ? 1 : 0;
  }
  #half(rows: Uint8Array, rowBytes: number): Uint8Array {
    return this.plan.half ? everySecondRow(rows, rowBytes, this.#first) : rows;
  }
  /** A [1, R, C] and B [1, N, R] of expert e, B's rows as the matrix has them. */
  #pairOf(s: Scope, e: number, halved: boolean): readonly [A: Tensor, B: Tensor, scale: number] {
    const { plan, pair } = this,
      [C = 0, rows = 0] = plan.ne,
      outputs = rows * (plan.half ? 2 : 1);
    if (!pair) return [s.empty('f32', [1, 0, C]), s.empty('f32', [1, halved ? rows : outputs, 0]), 0];
    const { A, B, rank, scale } = pair;
    const whole = asBytes(B.subarray(e * outputs * rank, (e + 1) * outputs * rank)),
      own = halved ? this.#half(whole, rank * 4) : whole,
      floats = new Float32Array(own.buffer, own.byteOffset, own.length / 4);
    return [
      s.from(A.subarray(e * rank * C, (e + 1) * rank * C), [1, rank, C]),
      s.from(floats, [1, floats.length / rank, rank]),
      scale,
    ];
  }
  /** Blocks and scales as they lie in the checkpoint. */
  #mxfp4(s: Scope, e: number): readonly [blocks: Uint8Array, scales: Uint8Array, groups: number] {
    const { w, scales } = this.weights,
      [, N = 0, G = 0] = w.shape;
    if (!scales) throw new CheckpointError('tensor_dtype', `${this.plan.name}: the checkpoint's experts are not MXFP4`);
    return [
      this.#half(asBytes(w.view(s, [N * G * 16], e * N * G * 16).read()), G * 16),
      this.#half(asBytes(scales.view(s, [N * G], e * N * G).read()), G),
      G,
    ];
  }
  packed(e: number): Uint8Array {
    using s = new Scope('workspace');
    const [blocks, scales, G] = this.#mxfp4(s, e);
    if (!this.pair) return packBlocks(blocks, scales);
    const N = scales.length / G,
      to = s.empty('u8', [1, N, G, 16]),
      toScales = s.empty('u8', [1, N, G]),
      kept = s.empty('f32', [1, 2]);
    const [A, B, scale] = this.#pairOf(s, e, true);
    ops.mxfp4_merge(to, toScales, kept, s.from(blocks, [1, N, G, 16]), s.from(scales, [1, N, G]), A, B, scale);
    const [left = 0, of = 0] = kept.toFloat32(),
      survived = this.source.survived?.[this.plan.layer]?.experts;
    if (survived) {
      survived.kept += left;
      survived.whole += of;
    }
    return packBlocks(asBytes(to.read()), asBytes(toScales.read()));
  }
  floats(e: number, type: Float): Uint8Array {
    using s = new Scope('workspace');
    const { w, layout } = this.weights,
      dtype = type === 'F32' ? 'f32' : 'bf16',
      C = this.plan.ne[0] ?? 0;
    if (layout === 0) {
      const [blocks, scales, G] = this.#mxfp4(s, e),
        N = scales.length / G,
        y = s.empty(dtype, [1, N, C]);
      const [A, B, scale] = this.#pairOf(s, e, true);
      const [w4, exponents] = [s.from(blocks, [1, N, G, 16]), s.from(scales, [1, N, G])];
      if (this.pair && this.source.throughMerge) {
        const [merged, made] = [s.empty('u8', w4.shape), s.empty('u8', exponents.shape)];
        ops.mxfp4_merge(merged, made, null, w4, exponents, A, B, scale);
        ops.lora_merge(y, merged, made, s.empty('f32', [1, 0, C]), s.empty('f32', [1, N, 0]), 0, 0, 1);
      } else ops.lora_merge(y, w4, exponents, A, B, scale, 0, 1);
      return asBytes(y.read());
    }
    const [, first = 0, second = 0] = w.shape,
      [A, B, scale] = this.#pairOf(s, e, false),
      y = s.empty(dtype, [1, B.shape[1] ?? 0, C]);
    ops.lora_merge(y, w.view(s, [1, first, second], e * first * second), null, A, B, scale, layout, 1);
    return this.#half(asBytes(y.read()), C * (type === 'F32' ? 4 : 2));
  }
}

function* expertBytes(source: TensorSource, plan: PlannedTensor, weights: ExpertWeights): Iterable<Uint8Array> {
  const one = new Expert(source, plan, weights, source.pair(plan.layer, plan.of as LoraTarget));
  for (let e = 0; e < weights.w.rows; e++)
    yield plan.type === 'MXFP4' ? one.packed(e) : one.floats(e, plan.type === 'BF16' ? 'BF16' : 'F32');
}

/** A bias as f32; where the checkpoint has none, llama.cpp wants zeros. */
function biasBytes(bias: Tensor | null, plan: PlannedTensor): Uint8Array {
  if (!bias) return new Uint8Array(plan.ne.reduce((a, b) => a * b, 4));
  const bytes = convert(bias, 'F32');
  return plan.half ? everySecondRow(bytes, 4, plan.half === 'up' ? 1 : 0) : bytes;
}

/** The tensor's bytes as the file wants them, in pieces. @throws {CheckpointError} bad_scale, not_finite */
export function* tensorData(source: TensorSource, plan: PlannedTensor): Iterable<Uint8Array> {
  const { base } = source,
    type = plan.type === 'BF16' ? 'BF16' : 'F32';
  if (plan.of === 'embed' || plan.of === 'head' || plan.of === 'norm') {
    yield* denseRows(base[plan.of], undefined, type);
    return;
  }
  const layer = base.layers[plan.layer];
  if (!layer) throw new CheckpointError('no_such_layer', `layer ${plan.layer} of ${base.layers.length}`);
  layer.verify?.();
  switch (plan.of) {
    case 'inputNorm':
    case 'postNorm':
    case 'sinks':
      yield convert(layer[plan.of], 'F32');
      break;
    case 'gateUp':
    case 'down':
      if (plan.bias) yield biasBytes(layer[plan.of].bias, plan);
      else yield* expertBytes(source, plan, layer[plan.of]);
      break;
    case 'q':
    case 'k':
    case 'v':
    case 'o':
    case 'router':
      if (plan.bias) yield biasBytes(layer[plan.of].bias, plan);
      else {
        const pair = source.pair(plan.layer, plan.of);
        yield* denseRows(layer[plan.of].w, pair, type, source.throughMerge, source.survived?.[plan.layer]?.dense);
      }
      break;
    default:
      plan.of satisfies never;
  }
}
