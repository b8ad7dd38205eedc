// Tensors over memory that is JavaScript's: no copy in, none out. For calls that begin and end in one turn of the event
// loop: whoever borrows an array sees to it that its buffer stays where it is, neither transferred nor grown, until the
// scope closes.
import { addon } from './addon.js';
import { DTYPES, type DType, type Scope, Tensor } from './tensor.js';

/** f32, i32, u8 and the raw bits of bf16. */
type Lendable = Float32Array | Int32Array | Uint8Array | Uint16Array;

class Borrowed extends Tensor {
  constructor(
    handle: number,
    dtype: DType,
    shape: readonly number[],
    /** Held, so that the memory is not collected. */
    readonly data: Lendable,
  ) {
    super(handle, dtype, shape);
  }
}

/**
 * @param data exactly the elements of the shape; ops may write to it
 * @throws {NativeError} shape_mismatch
 */
export function borrow(scope: Scope, data: Lendable, shape: readonly number[]): Tensor {
  const dtype: DType =
    data instanceof Float32Array
      ? 'f32'
      : data instanceof Int32Array
        ? 'i32'
        : data instanceof Uint8Array
          ? 'u8'
          : 'bf16';
  return scope.adopt(new Borrowed(addon.borrow(data, DTYPES.indexOf(dtype), shape), dtype, shape, data));
}
