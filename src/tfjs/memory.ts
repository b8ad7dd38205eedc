// tfjs tensors as native ones, for the length of one call. On tfjs's pure-JavaScript backend and on wasm no value is
// copied, in or out: native ops read and write the backend's own memory. Every other backend (tfjs-node, webgl, …)
// hands its values out as a copy and takes results in as one. What lies on another backend than the current one is
// copied too.
import type { DataType, Rank, Tensor as TfTensor } from '@tensorflow/tfjs-core';
import { NativeError } from '../base/errors.js';
import { borrow } from '../native/borrow.js';
import { Scope, type Tensor } from '../native/tensor.js';

/** What the bridge takes of the `tf` namespace: that of tfjs, tfjs-core, tfjs-node or tfjs-node-gpu. */
export type Tf = Pick<typeof import('@tensorflow/tfjs-core'), 'backend' | 'customGrad' | 'engine' | 'tensor' | 'tidy'>;

/** The wasm backend, as far as its memory is concerned; checked before each use. */
interface WasmBackend {
  readonly wasm: { readonly HEAPU8: Uint8Array };
  readonly dataIdMap: { has(id: object): boolean; get(id: object): { readonly memoryOffset: number | null } };
  makeOutput(shape: number[], dtype: DataType): { dataId: object; shape: number[]; dtype: DataType };
}
const asWasm = (backend: unknown): WasmBackend | null => {
  const b = backend as Partial<WasmBackend> | null;
  return b?.wasm?.HEAPU8 instanceof Uint8Array && b.dataIdMap && typeof b.makeOutput === 'function'
    ? (b as WasmBackend)
    : null;
};

/** A result to be: where its values go, and how it becomes tfjs's once they are there. */
interface Output {
  readonly values: () => Float32Array;
  readonly finish: () => TfTensor<Rank>;
}

export class TfMemory {
  constructor(readonly tf: Tf) {}

  #output(shape: readonly number[]): Output {
    const { tf } = this;
    const size = shape.reduce((a, b) => a * b, 1);
    const wasm = asWasm(tf.backend());
    if (!wasm || size === 0) {
      const values = new Float32Array(size);
      return { values: () => values, finish: () => tf.tensor(values, [...shape], 'float32') };
    }
    const info = wasm.makeOutput([...shape], 'float32');
    // tfjs's own from here on: the tidy around the op frees it where the op fails.
    const tensor = tf.engine().makeTensorFromTensorInfo(info);
    return {
      values: () => new Float32Array(wasm.wasm.HEAPU8.buffer, wasm.dataIdMap.get(info.dataId).memoryOffset ?? 0, size),
      finish: () => tensor,
    };
  }

  /** The values of a tensor: of the backend's own memory where that can be addressed. */
  #values(tensor: TfTensor): Float32Array {
    const wasm = asWasm(this.tf.backend());
    if (wasm?.dataIdMap.has(tensor.dataId)) {
      const { memoryOffset } = wasm.dataIdMap.get(tensor.dataId);
      if (memoryOffset !== null) return new Float32Array(wasm.wasm.HEAPU8.buffer, memoryOffset, tensor.size);
    }
    return tensor.dataSync<'float32'>();
  }

  /**
   * Runs native ops on tfjs's values: `work` is given a native tensor for each output, zeros, and for each input (null
   * stays null), and a scope for what it needs beside them.
   * @param shapes of the outputs, f32
   * @throws {NativeError} bad_dtype, or what an op refuses
   */
  run(
    shapes: readonly (readonly number[])[],
    inputs: readonly (TfTensor | null)[],
    work: (outputs: readonly Tensor[], inputs: readonly (Tensor | null)[], scope: Scope) => void,
  ): TfTensor[] {
    for (const t of inputs)
      if (t && t.dtype !== 'float32')
        throw new NativeError('bad_dtype', `a tfjs tensor [${t.shape.join(',')}] is ${t.dtype}, wanted float32`);
    // All that may make wasm's memory grow comes first: then the addresses hold until the end of the call.
    const outputs = shapes.map((shape) => this.#output(shape));
    const given = inputs.map((t) => t && this.#values(t));
    using scope = new Scope('workspace');
    work(
      outputs.map(({ values }, i) => borrow(scope, values().fill(0), shapes[i] ?? [])),
      inputs.map((t, i) => t && borrow(scope, given[i] as Float32Array, t.shape)),
      scope,
    );
    return outputs.map((o) => o.finish());
  }
}
