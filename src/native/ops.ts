// The ops, typed. What each computes and takes: native/include/temper/ops.def, from which ops.generated.ts is made.
import { NativeError } from '../base/errors.js';
import { lazy } from '../base/lazy.js';
import { addon, mapNativeError } from './addon.js';
import { OP_ARGUMENTS, type Ops, type Precision } from './ops.generated.js';
import type { Tensor } from './tensor.js';

export type { ExpertLayout, Ops, Precision, RowBits } from './ops.generated.js';
export const PRECISION = { f32: 0, bf16: 1 } as const satisfies Record<string, Precision>;

type OpName = keyof Ops;
type Argument = Tensor | number | null;

function bind(name: OpName, id: number): (...a: Argument[]) => void {
  const block = addon.args;
  const names = OP_ARGUMENTS[name];
  return (...a) => {
    if (a.length !== names.length)
      throw new NativeError(
        'bad_argument',
        `${name}: got ${a.length} arguments, wanted ${names.length}: ${names.join(', ')}`,
        { op: name },
      );
    for (let i = 0; i < names.length; i++) {
      const v = a[i];
      block[i] = v === null || v === undefined ? 0 : typeof v === 'number' ? v : v.handle;
    }
    try {
      addon.call(id);
    } catch (e) {
      throw mapNativeError(e, name);
    }
  };
}

function bindAll(): Ops {
  const names = Object.keys(OP_ARGUMENTS) as OpName[];
  const table = (of: readonly string[], arity: readonly number[]): string =>
    of.map((n, i) => `${n}/${arity[i]}`).join();
  const wanted = names.map((n) => OP_ARGUMENTS[n].length);
  if (table(names, wanted) !== table(addon.opNames, addon.opArity))
    throw new NativeError(
      'addon_version',
      'the native addon was built from another op table than this package; build it again with ' +
        '`npx temper build-native`',
    );
  return Object.fromEntries(names.map((name, id) => [name, bind(name, id)])) as unknown as Ops;
}

/**
 * Every op of the table, by its name there.
 * @throws {NativeError} at the first use of any: addon_missing, addon_version
 */
export const ops: Ops = lazy(bindAll);
