// The weights of a merged checkpoint, computed again in plain TypeScript and double: nothing of the kernels that merged
// them is on this path. Small tensors are looked at whole, large ones in rows spread over them.
import { setImmediate } from 'node:timers/promises';
import { isExpertTarget, LORA_TARGETS, loraScale, MATRIX_NAME, matrixShape } from '../lora/spec.js';
import { openCheckpoint } from '../model/checkpoint.js';
import type { LoraTarget } from '../model/types.js';
import { Scope, type Tensor } from '../native/tensor.js';
import type { ExportSource, WeightCheck } from './format.js';

/**
 * Rows of a matrix are looked at in groups of neighbours, so many of them over all its experts; all if there are fewer.
 */
const TILE = 8;
const TILES = 16;
/** Of tensors that are copied. */
const COPIED_ELEMENTS = 1 << 20;
const MAX_WRONG = 20;
const GROUP = 32;
const CODES = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0, -0.5, -1, -1.5, -2, -3, -4, -6] as const;

/** Weights by the names of a checkpoint. */
export interface WeightsByName {
  readonly tensors: { get(name: string): Tensor | undefined };
}
/** A pair of one layer, read once. */
interface Delta {
  readonly A: Float32Array;
  readonly B: Float32Array;
  readonly rank: number;
  readonly scale: number;
}
/** Row n of expert e of scale·B·A in double, and the sums of its terms' sizes: what rounding in f32 goes by. */
interface DeltaRow {
  readonly sum: Float64Array;
  readonly size: Float64Array;
}
function deltaRow(delta: Delta | null, e: number, n: number, N: number, C: number): DeltaRow {
  const sum = new Float64Array(C),
    size = new Float64Array(C);
  if (!delta) return { sum, size };
  const { A, B, rank, scale } = delta;
  for (let r = 0; r < rank; r++) {
    const b = scale * (B[(e * N + n) * rank + r] ?? 0);
    if (b === 0) continue;
    for (let c = 0; c < C; c++) {
      const term = b * (A[(e * rank + r) * C + c] as number);
      sum[c] = (sum[c] as number) + term;
      size[c] = (size[c] as number) + Math.abs(term);
    }
  }
  return { sum, size };
}

/** `count` elements from `at` on, as numbers; bf16 is widened. */
function elements(t: Tensor, at: number, count: number): Float32Array | Uint8Array {
  using s = new Scope('workspace');
  const raw = t.view(s, [count], at).read();
  if (raw instanceof Uint16Array) {
    const out = new Float32Array(count),
      bits = new Uint32Array(out.buffer);
    for (let i = 0; i < count; i++) bits[i] = (raw[i] as number) << 16;
    return out;
  }
  return raw as Float32Array | Uint8Array;
}

/** Row n of expert e in MXFP4: bytes, scales and values. */
function mxfp4Row(
  blocks: Tensor,
  scales: Tensor,
  row: number,
  C: number,
): { bytes: Uint8Array; exponents: Uint8Array; values: Float64Array } {
  const bytes = elements(blocks, row * (C / 2), C / 2) as Uint8Array,
    exponents = elements(scales, row * (C / GROUP), C / GROUP) as Uint8Array;
  const values = new Float64Array(C);
  for (let c = 0; c < C; c++) {
    const byte = bytes[c >> 1] as number;
    const code = c % 2 ? byte >> 4 : byte & 15;
    values[c] = (CODES[code] as number) * 2 ** ((exponents[Math.floor(c / GROUP)] as number) - 127);
  }
  return { bytes, exponents, values };
}

/** Squared error of a block's best codes at an exponent. */
function errorAt(w: Float64Array, exponent: number): number {
  const unit = 2 ** (exponent - 127);
  let sum = 0;
  for (const x of w) {
    let best = Infinity;
    for (let k = 0; k < 8; k++) best = Math.min(best, Math.abs(Math.abs(x) / unit - (CODES[k] as number)));
    sum += (best * unit) ** 2;
  }
  return sum;
}

interface Mxfp4Row {
  readonly bytes: Uint8Array;
  readonly exponents: Uint8Array;
  readonly values: Float64Array;
}
/**
 * What is wrong with one row that was rounded to MXFP4; null: nothing.
 * @param got its bytes, or its values alone
 */
function mxfp4Wrong(
  got: Partial<Mxfp4Row> & Pick<Mxfp4Row, 'values'>,
  old: Mxfp4Row,
  delta: Float64Array,
): string | null {
  for (let g = 0; g < old.exponents.length; g++) {
    const [from, to] = [g * GROUP, (g + 1) * GROUP];
    const want = Float64Array.from({ length: GROUP }, (_, i) =>
      Math.fround((old.values[from + i] as number) + (delta[from + i] as number)),
    );
    const before = old.values.subarray(from, to),
      after = got.values.subarray(from, to);
    if (want.every((x, i) => x === before[i])) {
      const bytes = got.bytes?.subarray(from / 2, to / 2);
      const same =
        after.every((x, i) => x === before[i]) &&
        (got.exponents === undefined || got.exponents[g] === old.exponents[g]) &&
        (bytes === undefined || bytes.every((b, i) => b === old.bytes[from / 2 + i]));
      if (!same) return `block ${g} is not changed by the adapter, and its bytes are`;
      continue;
    }
    const amax = want.reduce((m, x) => Math.max(m, Math.abs(x)), 0);
    const low = Math.min(Math.max(amax === 0 ? 1 : Math.floor(Math.log2(amax)) - 2 + 127, 1), 253);
    const best = Math.min(errorAt(want, low), errorAt(want, low + 1));
    let error = 0;
    for (let i = 0; i < GROUP; i++) error += ((after[i] as number) - (want[i] as number)) ** 2;
    // The merge adds in f32: a value beside the middle between two codes may fall to either side.
    if (!(error <= best * (1 + 1e-3) + 1e-12 * amax * amax))
      return `block ${g} has squared error ${error.toExponential(3)}, ${best.toExponential(3)} can be had`;
  }
  return null;
}

/**
 * What is wrong with a row in bf16 or f32: more than half a unit in the last place away.
 * @param size of what was added up in f32 to make each element
 */
function floatWrong(got: Float32Array, want: Float64Array, size: Float64Array, bits: 8 | 24): string | null {
  for (let c = 0; c < want.length; c++) {
    const [x, y] = [got[c] as number, want[c] as number];
    const unit = 2 ** (Math.floor(Math.log2(Math.max(Math.abs(y), 2 ** -120))) - bits + 1);
    if (!(Math.abs(x - y) <= 0.5 * unit * (1 + 2 ** -6) + 2 ** -20 * (size[c] as number)))
      return `element ${c} is ${x}, wanted ${y}`;
  }
  return null;
}

const spread = (count: number, most: number): number[] =>
  count <= most
    ? Array.from({ length: count }, (_, i) => i)
    : Array.from({ length: most }, (_, i) => Math.floor((i * count) / most) + (i % Math.floor(count / most)));

function matrixNames(layer: number, target: LoraTarget): string {
  const at = `model.layers.${layer}`;
  return isExpertTarget(target)
    ? `${at}.mlp.experts.${MATRIX_NAME[target]}`
    : target === 'router'
      ? `${at}.mlp.router.weight`
      : `${at}.self_attn.${MATRIX_NAME[target]}.weight`;
}

/** One matrix that the adapter may sit on. */
function checkMatrix(source: ExportSource, merged: WeightsByName, layer: number, target: LoraTarget): WeightCheck {
  const { base, adapter } = source;
  const { inputs: C, outputs: N } = matrixShape(base.config, target);
  const E = isExpertTarget(target) ? base.config.num_local_experts : 1;
  const name = matrixNames(layer, target);
  const pair = adapter?.pair(layer, target);
  const delta: Delta | null =
    pair && adapter ? { ...pair.read(), rank: pair.rank, scale: loraScale(pair, adapter.spec.rsLora) } : null;
  const [was, is] = [base.tensors, merged.tensors];
  const [oldBlocks, oldScales] = [was.get(`${name}_blocks`), was.get(`${name}_scales`)];
  const [newBlocks, newScales] = [is.get(`${name}_blocks`), is.get(`${name}_scales`)];
  const [oldFloats, newFloats] = [was.get(name), is.get(name)];
  /** Rows n…n+k−1 along the inputs, of a matrix that may lie [E, C, N]. */
  const floatRows = (t: Tensor, e: number, n: number, k: number): Float32Array[] => {
    if (!isExpertTarget(target))
      return Array.from({ length: k }, (_, i) => elements(t, (e * N + n + i) * C, C) as Float32Array);
    const rows = Array.from({ length: k }, () => new Float32Array(C));
    for (let c = 0; c < C; c++) {
      const part = elements(t, (e * C + c) * N + n, k);
      for (let i = 0; i < k; i++) (rows[i] as Float32Array)[c] = part[i] as number;
    }
    return rows;
  };
  // Of a model that was trained through this rounding, wider types hold the rounded values.
  const throughRounding = delta !== null && adapter?.spec.mergeAware !== undefined;
  const perExpert = Math.ceil(N / TILE);
  let checked = 0;
  for (const tile of spread(E * perExpert, TILES)) {
    const e = Math.floor(tile / perExpert),
      n = (tile % perExpert) * TILE,
      k = Math.min(TILE, N - n);
    const [after, before] = [newFloats, oldFloats].map((t) => (t ? floatRows(t, e, n, k) : null));
    for (let i = 0; i < k; i++) {
      const row = e * N + n + i;
      const d = deltaRow(delta, e, n + i, N, C);
      const old = oldBlocks && oldScales ? mxfp4Row(oldBlocks, oldScales, row, C) : null;
      const got = after?.[i];
      let wrong: string | null = 'is missing';
      if (newBlocks && newScales && old) wrong = mxfp4Wrong(mxfp4Row(newBlocks, newScales, row, C), old, d.sum);
      else if (got && old && throughRounding) wrong = mxfp4Wrong({ values: Float64Array.from(got) }, old, d.sum);
      else if (got && newFloats) {
        const w = old?.values ?? Float64Array.from(before?.[i] ?? []);
        const want = w.map((x, c) => x + (d.sum[c] as number)),
          size = w.map((x, c) => Math.abs(x) + (d.size[c] as number));
        const bf16 = newFloats.dtype === 'bf16' || (throughRounding && oldFloats?.dtype === 'bf16');
        wrong = floatWrong(got, want, size, bf16 ? 8 : 24);
      }
      checked += C;
      if (wrong !== null) return { checked, wrong: [`${name}, expert ${e}, row ${n + i}: ${wrong}`] };
    }
  }
  return { checked, wrong: [] };
}

/** A tensor that no adapter sits on: the same values, but for what bf16 does to f32. */
function checkCopied(name: string, was: Tensor, is: Tensor | undefined): WeightCheck {
  const count = Math.min(was.numel, COPIED_ELEMENTS),
    // From the start and from the end.
    parts = count === was.numel ? [0] : [0, was.numel - count];
  let checked = 0;
  for (const at of parts) {
    const before = elements(was, at, count),
      after = is ? elements(is, at, count) : null;
    const same = after !== null && was.dtype === is?.dtype && before.every((x, i) => Object.is(x, after[i]));
    const want = Float64Array.from(before),
      rounded =
        after instanceof Float32Array &&
        floatWrong(after, want, want.map(Math.abs), is?.dtype === 'bf16' ? 8 : 24) === null;
    const wrong = same || rounded ? null : 'is not what the base has';
    checked += count;
    if (wrong !== null) return { checked, wrong: [`${name}: ${wrong}`] };
  }
  return { checked, wrong: [] };
}

/** @returns what is wrong, tensor by tensor; the first twenty */
export async function checkWeights(source: ExportSource, folder: string, signal?: AbortSignal): Promise<WeightCheck> {
  using merged = openCheckpoint(folder);
  return await compareWeights(source, merged, signal);
}
/** The same of weights by the names of a checkpoint, wherever they lie. */
export async function compareWeights(
  source: ExportSource,
  merged: WeightsByName,
  signal?: AbortSignal,
): Promise<WeightCheck> {
  const { config } = source.base;
  const wrong: string[] = [];
  let checked = 0;
  const matrices = new Set<string>();
  const add = async (check: () => WeightCheck): Promise<void> => {
    await setImmediate(); // lets messages in
    signal?.throwIfAborted();
    const found = check();
    checked += found.checked;
    wrong.push(...found.wrong);
  };
  for (let layer = 0; layer < config.num_hidden_layers; layer++)
    for (const target of LORA_TARGETS) {
      const name = matrixNames(layer, target);
      for (const part of ['', '_blocks', '_scales']) matrices.add(name + part);
      await add(() => checkMatrix(source, merged, layer, target));
    }
  for (const [name, was] of source.base.tensors)
    if (!matrices.has(name)) await add(() => checkCopied(name, was, merged.tensors.get(name)));
  return { checked, wrong: wrong.slice(0, MAX_WRONG) };
}
