// Which rows a recipe trains on, and which it holds out.
import type { Recipe } from './schema.js';

type Data = Recipe['data'];
type DataFile = Data['train'][number];
export type FileOfRecipe = DataFile & {
  readonly part?: { readonly take: 'train' | 'eval'; readonly share: number; readonly seed: number };
};

const withPart = ({ split }: Data, take: 'train' | 'eval', file: DataFile): FileOfRecipe =>
  split ? { ...file, part: { take, share: split.eval, seed: split.seed } } : file;

export const trainFiles = (data: Data): FileOfRecipe[] => data.train.map((file) => withPart(data, 'train', file));

/** Those of data.eval, then what data.split holds out of data.train, all of it and each row once. */
export const heldOutFiles = (data: Data): FileOfRecipe[] => [
  ...data.eval,
  ...(data.split
    ? data.train.map(({ weight: _w, limit: _l, shuffle: _s, ...file }) => withPart(data, 'eval', file))
    : []),
];
