// The tensors of a checkpoint with the adapter merged into them, one piece at a time: what merged formats write. One
// layer's pair and one piece are in memory; the base is mapped.

import { isExpertTarget, LORA_TARGETS, loraScale, MATRIX_NAME, matrixShape } from '../lora/spec.js';
import { checkpointTensors, type TensorSpec } from '../model/layout.js';
import type { LoraTarget } from '../model/types.js';
import { borrow } from '../native/borrow.js';
import { ops } from '../native/ops.js';
import { Scope, type Tensor } from '../native/tensor.js';
import type { ExportSource } from './format.js';
import { type LayerSurvived, nothingSurvived, type Survived } from './gain.js';

/** Elements of a piece of a tensor that is only copied or rounded: 32 MiB of bf16. */
const PIECE_ELEMENTS = 1 << 24;

export interface MergedTensors {
  /** Names, dtypes and shapes in the order they are written. */
  readonly specs: readonly TensorSpec[];
  /** The bytes of one of them, in order; a piece may be overwritten when the next is asked for. */
  pieces(spec: TensorSpec): Iterable<Uint8Array>;
  /**
   * By layer, of the tensors asked for so far: what rounding left of the experts' and of the other matrices' change; in
   * mxfp4.
   */
  readonly survived: readonly LayerSurvived[];
}

/** Experts that are read from the disk while one is merged. */
const EXPERTS_AHEAD = 8;

const bytesOf = (a: ArrayBufferView): Uint8Array => new Uint8Array(a.buffer, a.byteOffset, a.byteLength);

interface Matrix {
  readonly layer: number;
  readonly target: LoraTarget;
  /** Of MXFP4 experts: which of the two tensors. */
  readonly part: 'blocks' | 'scales' | null;
}
/** The matrix that a tensor is, if an adapter may sit on it. */
function matrixOf(name: string): Matrix | null {
  const m = /^model\.layers\.(\d+)\.(?:self_attn|mlp|mlp\.experts)\.(\w+?)(?:\.weight|_(blocks|scales))?$/.exec(name);
  const target = LORA_TARGETS.find((t) => MATRIX_NAME[t] === m?.[2]);
  if (!m || !target) return null;
  return { layer: Number(m[1]), target, part: (m[3] as 'blocks' | 'scales' | undefined) ?? null };
}

/** A and B of a pair as tensors, one expert the least: A [E,R,C], B [E,N,R]. */
function pairTensors(
  source: ExportSource,
  { layer, target }: Matrix,
  scope: Scope,
): { readonly A: Tensor; readonly B: Tensor; readonly scale: number } | null {
  const pair = source.adapter?.pair(layer, target);
  if (!pair || !source.adapter) return null;
  const { config } = source.base;
  const E = isExpertTarget(target) ? config.num_local_experts : 1;
  const { inputs, outputs } = matrixShape(config, target);
  const { A, B } = pair.read();
  return {
    A: scope.from(A, [E, pair.rank, inputs]),
    B: scope.from(B, [E, outputs, pair.rank]),
    scale: loraScale(pair, source.adapter.spec.rsLora),
  };
}
/** A pair that changes nothing: lora_merge then only expands, rounds or transposes. */
const noPair = (scope: Scope, E: number, N: number, C: number): { A: Tensor; B: Tensor; scale: number } => ({
  A: scope.empty('f32', [E, 0, C]),
  B: scope.empty('f32', [E, N, 0]),
  scale: 0,
});

/** Asks for the expert that comes some turns later, and at the first for all until then. */
function readAhead(w: Tensor, e: number, scope: Scope): void {
  const from = e === 0 ? 1 : e + EXPERTS_AHEAD,
    to = Math.min(e + EXPERTS_AHEAD + 1, w.rows);
  if (from < to) w.slice(scope, from, to).willNeed();
}

/** A tensor as it is, or rounded to bf16. */
function* copied(tensor: Tensor, spec: TensorSpec): Generator<Uint8Array> {
  const dtype = spec.dtype === 'BF16' ? 'bf16' : spec.dtype === 'F32' ? 'f32' : 'u8';
  const width = spec.dtype === 'BF16' ? 2 : spec.dtype === 'F32' ? 4 : 1;
  const piece = new Uint8Array(Math.min(PIECE_ELEMENTS, tensor.numel) * width);
  for (let from = 0; from < tensor.numel; from += PIECE_ELEMENTS) {
    using s = new Scope('workspace');
    const n = Math.min(PIECE_ELEMENTS, tensor.numel - from),
      next = Math.min(PIECE_ELEMENTS, tensor.numel - from - n);
    if (next > 0) tensor.view(s, [next], from + n).willNeed();
    let part = tensor.view(s, [n], from);
    if (tensor.dtype !== dtype) {
      const rounded = s.empty(dtype, [n]);
      ops.cast(rounded, part);
      part = rounded;
    }
    yield part.readInto(piece.subarray(0, n * width));
  }
}

/** One linear, merged: [N, C] in the dtype that is written. */
function* mergedLinear(
  source: ExportSource,
  matrix: Matrix,
  w: Tensor,
  spec: TensorSpec,
  survived: Survived | null,
): Generator<Uint8Array> {
  using s = new Scope('workspace');
  const pair = pairTensors(source, matrix, s);
  if (!pair) {
    yield* copied(w, spec);
    return;
  }
  const [N = 1, C = 1] = spec.shape;
  const y = s.empty(spec.dtype === 'F32' ? 'f32' : 'bf16', [1, N, C]);
  const one = w.view(s, [1, N, C]);
  ops.lora_merge(y, one, null, pair.A, pair.B, pair.scale, 1, 1);
  if (survived) addSurvived(survived, one, y, pair, s);
  yield bytesOf(y.read());
}

/** Of a dense matrix of one expert, w and y [1, N, C], by plain sums in double. */
export function addSurvived(
  to: Survived,
  w: Tensor,
  y: Tensor,
  { A, B, scale }: { readonly A: Tensor; readonly B: Tensor; readonly scale: number },
  s: Scope,
): void {
  const [, N = 1, C = 1] = y.shape;
  const f32 = (): Tensor => s.empty('f32', [1, N, C]);
  const [delta, zero, before, after] = [f32(), s.zeros('f32', [1, N, C]), f32(), f32()];
  ops.lora_merge(delta, zero, null, A, B, scale, 1, 1);
  ops.cast(before, w);
  ops.cast(after, y);
  const [d, b, a] = [delta.toFloat32(), before.toFloat32(), after.toFloat32()];
  for (let i = 0; i < d.length; i++) {
    const x = d[i] as number;
    to.kept += ((a[i] as number) - (b[i] as number)) * x;
    to.whole += x * x;
  }
}

/** Experts as Hugging Face's bf16 files hold them: [E, C, N], an expert at a time. */
function* mergedDenseExperts(source: ExportSource, matrix: Matrix, spec: TensorSpec): Generator<Uint8Array> {
  const { base } = source;
  const [E = 1, C = 1, N = 1] = spec.shape;
  const blocks = base.tensors.get(`${spec.name}_blocks`),
    scales = base.tensors.get(`${spec.name}_scales`) ?? null;
  const w = blocks ?? base.tensors.get(spec.name);
  if (!w) return;
  using s = new Scope('workspace');
  const pair = pairTensors(source, matrix, s);
  if (!pair && !blocks && w.dtype === 'bf16') {
    yield* copied(w, spec);
    return;
  }
  const piece = new Uint16Array(C * N);
  for (let e = 0; e < E; e++) {
    using step = new Scope('workspace');
    readAhead(w, e, step);
    const y = borrow(step, piece, [1, C, N]);
    const one = pair
      ? { A: pair.A.slice(step, e, e + 1), B: pair.B.slice(step, e, e + 1), scale: pair.scale }
      : noPair(step, 1, N, C);
    const part = w.slice(step, e, e + 1),
      exponents = scales?.slice(step, e, e + 1) ?? null;
    if (exponents && pair && source.adapter?.spec.mergeAware) {
      // Trained through the rounding of the merge: its values are the model that was trained.
      const [blocks, made] = [step.empty('u8', part.shape), step.empty('u8', exponents.shape)];
      ops.mxfp4_merge(blocks, made, null, part, exponents, one.A, one.B, one.scale);
      const nothing = noPair(step, 1, N, C);
      ops.lora_merge(y, blocks, made, nothing.A, nothing.B, 0, 0, 2);
    } else ops.lora_merge(y, part, exponents, one.A, one.B, one.scale, blocks ? 0 : 2, 2);
    yield bytesOf(piece);
  }
}

/** Experts in MXFP4 again: the bytes of `_blocks`, and the scales, which are handed out when their turn comes. */
function* mergedBlocks(
  source: ExportSource,
  matrix: Matrix,
  name: string,
  survived: Survived,
  scalesOf: Map<string, Uint8Array[]>,
): Generator<Uint8Array> {
  const { base } = source;
  const w = base.tensors.get(`${name}_blocks`),
    scales = base.tensors.get(`${name}_scales`);
  if (!w || !scales) return;
  const [E = 1, N = 1, G = 1] = scales.shape;
  using s = new Scope('workspace');
  const pair = pairTensors(source, matrix, s);
  if (!pair) return;
  const piece = new Uint8Array(N * G * 16),
    made: Uint8Array[] = [];
  for (let e = 0; e < E; e++) {
    using step = new Scope('workspace');
    readAhead(w, e, step);
    const scalesPiece = new Uint8Array(N * G);
    const blocks = borrow(step, piece, [1, N, G, 16]),
      exponents = borrow(step, scalesPiece, [1, N, G]),
      kept = step.empty('f32', [1, 2]);
    ops.mxfp4_merge(
      blocks,
      exponents,
      kept,
      w.slice(step, e, e + 1),
      scales.slice(step, e, e + 1),
      pair.A.slice(step, e, e + 1),
      pair.B.slice(step, e, e + 1),
      pair.scale,
    );
    const [some = 0, all = 0] = kept.toFloat32();
    survived.kept += some;
    survived.whole += all;
    made.push(scalesPiece);
    yield piece;
  }
  scalesOf.set(name, made);
}

/**
 * @param experts mxfp4: the released layout, from a base that is in it; dense: dequantised, as Hugging Face writes it.
 * All is bf16 in dense; in mxfp4 floats keep the dtype of the base.
 */
export function mergedTensors(source: ExportSource, experts: 'mxfp4' | 'dense'): MergedTensors {
  const { base } = source;
  const survived = nothingSurvived(base.config.num_hidden_layers);
  const scalesOf = new Map<string, Uint8Array[]>();
  const specs = checkpointTensors(base.config, experts).map((spec): TensorSpec => {
    const f32 = experts === 'mxfp4' && base.tensors.get(spec.name)?.dtype === 'f32';
    return f32 ? { ...spec, dtype: 'F32' } : spec;
  });
  function* pieces(spec: TensorSpec): Generator<Uint8Array> {
    const matrix = matrixOf(spec.name);
    const tensor = base.tensors.get(spec.name);
    if (matrix && isExpertTarget(matrix.target)) {
      const at = survived[matrix.layer]?.experts ?? { kept: 0, whole: 0 };
      const name = spec.name.replace(/_(?:blocks|scales)$/, '');
      const adapted = source.adapter?.pair(matrix.layer, matrix.target) !== undefined;
      if (matrix.part === null) yield* mergedDenseExperts(source, matrix, spec);
      else if (!adapted && tensor) yield* copied(tensor, spec);
      else if (matrix.part === 'blocks') yield* mergedBlocks(source, matrix, name, at, scalesOf);
      else {
        // Blocks come first wherever a file is written in order; for one who asks otherwise they are made again.
        if (!scalesOf.has(name)) for (const _ of mergedBlocks(source, matrix, name, at, scalesOf));
        yield* scalesOf.get(name) ?? [];
        scalesOf.delete(name);
      }
      return;
    }
    if (!tensor) return;
    const at = experts === 'mxfp4' && matrix ? survived[matrix.layer]?.dense : undefined;
    if (matrix) yield* mergedLinear(source, matrix, tensor, spec, at ?? null);
    else yield* copied(tensor, spec);
  }
  return { specs, pieces, survived };
}
