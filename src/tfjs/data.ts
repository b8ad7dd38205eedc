// tf.data → rows of a file, which a recipe names: tfjs's datasets feed training.
import type { Tensor as TfTensor } from '@tensorflow/tfjs-core';
import { DataError } from '../base/errors.js';
import { OutputFile } from '../base/files.js';

/** A tf.data.Dataset, as far as it is read. */
export interface TfDataset<T> {
  forEachAsync(work: (element: T) => void): Promise<void>;
}
const isTensor = (value: unknown): value is TfTensor =>
  typeof value === 'object' && value !== null && 'dataId' in value && 'arraySync' in value;

/** An element as plain values, its tensors disposed of. */
function plain(value: unknown, path: string): unknown {
  if (isTensor(value)) {
    try {
      return value.arraySync();
    } finally {
      value.dispose();
    }
  }
  if (ArrayBuffer.isView(value) && !(value instanceof DataView)) return Array.from(value as unknown as number[]);
  if (Array.isArray(value)) return value.map((v, i) => plain(v, `${path}[${i}]`));
  if (typeof value === 'object' && value !== null)
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, plain(v, path ? `${path}.${k}` : k)]));
  if (typeof value === 'number' && !Number.isFinite(value))
    throw new DataError('bad_row', `${path || 'the element'} is ${value}; rows hold finite numbers`);
  return value;
}

/**
 * Writes the elements of a dataset as rows of JSON lines, one at a time, whole or not at all: `{tokens, weights}` for
 * format tokens, `{messages}` for chat, and so on. Tensors become lists; they are disposed of. `temper data check` says
 * what is wrong with the rows.
 * @param path of the file; recipes name it under data.train
 * @returns rows written
 * @throws {DataError} bad_row: an element is no object · output_unwritable and what else writing may throw
 */
export async function writeRows<T>(
  dataset: TfDataset<T>,
  path: string,
  { signal }: { readonly signal?: AbortSignal } = {},
): Promise<number> {
  const file = await OutputFile.open(path, signal);
  let rows = 0;
  try {
    await dataset.forEachAsync((element) => {
      signal?.throwIfAborted();
      const row = plain(element, '');
      if (typeof row !== 'object' || row === null || Array.isArray(row))
        throw new DataError(
          'bad_row',
          `${path}: element ${rows + 1} of the dataset is no object; map it to a row first`,
        );
      file.writeSync(`${JSON.stringify(row)}\n`);
      rows++;
    });
    file.commit();
  } finally {
    file.discard(); // after a commit it does nothing
  }
  return rows;
}
