// What a path of data names: one file, the files of a pattern, or those of a folder: shards beside one another, a
// dataset that `datasets` saved (state.json) or keeps in its cache (dataset_info.json).
import { readdirSync, realpathSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { DataError } from '../base/errors.js';
import { byName, matching } from '../base/globs.js';
import { readJsonFile } from '../base/json-file.js';

const DATA = /\.(jsonl|ndjson|json|parquet|arrow|arrows|feather)(\.(gz|zst))?$/i;
/** Read by their columns alone. */
const TABLES = /\.[ct]sv(\.(gz|zst))?$/i;
/** Files of such an ending that hold no rows. */
const BESIDE =
  /^(dataset_infos?|dataset_dict|state|metadata|config|README.*|croissant|schema)\.json$|^cache-.*\.arrow$/i;
/** Splits by the names that they go by, at the beginning of a file's name, between dashes, or as a folder's. */
const SPLITS: Readonly<Record<string, string>> = {
  train: 'train',
  training: 'train',
  test: 'test',
  testing: 'test',
  eval: 'validation',
  evaluation: 'validation',
  valid: 'validation',
  validation: 'validation',
  val: 'validation',
  dev: 'validation',
};
const SHARD = /-(\d{5})-of-(\d{5})\.[^/]*$/;
const MAX_DEPTH = 16;

const fail = (code: 'no_data_files' | 'data_splits' | 'file_missing', folder: string, message: string): never => {
  throw new DataError(code, `${folder}: ${message}`, { file: folder });
};

const known = (word: string): string | undefined => (Object.hasOwn(SPLITS, word) ? SPLITS[word] : undefined);
/**
 * The split that a file is of. `datasets` writes NAME-SPLIT and shards SPLIT-00000-of-00002, where SPLIT may be
 * `train_sft`: the end of the name comes before what else it says, which may be the dataset's (my-test-train).
 * @param named splits that dataset_info.json lists
 */
function splitOf(path: string, named: readonly string[] = []): string | undefined {
  const isShard = SHARD.test(path);
  const stem = basename(path).replace(SHARD, '').replace(DATA, '').toLowerCase();
  const listed = named.filter((s) => stem === s.toLowerCase() || stem.endsWith(`-${s.toLowerCase()}`));
  if (listed.length > 0) return listed.reduce((a, b) => (a.length >= b.length ? a : b));
  const end = stem.split(/[.-]/).at(-1) ?? '';
  if (known(end)) return known(end);
  if (isShard && known(end.split('_')[0] ?? '')) return end;
  for (const word of path.toLowerCase().split(/[/._-]+/)) if (known(word)) return known(word);
  return undefined;
}
/** Splits that `datasets` writes down beside its files; none: it did not. */
function namedSplits(folder: string, names: readonly string[]): string[] {
  if (!names.includes('dataset_info.json')) return [];
  const { splits } = readJson(join(folder, 'dataset_info.json')) as { readonly splits?: unknown };
  return typeof splits === 'object' && splits !== null ? Object.keys(splits) : [];
}

/**
 * All files of data below a folder, as paths in it.
 * @param above folders that it lies in, as a link may lead back to one · @throws {DataError} no_data_files: too deep
 */
function filesBelow(folder: string, isData: (name: string) => boolean, inside = '', above: string[] = []): string[] {
  const here = realpathSync(join(folder, inside));
  if (above.includes(here)) return [];
  if (above.length > MAX_DEPTH)
    fail('no_data_files', join(folder, inside), `lies more than ${MAX_DEPTH} folders deep; give it by itself`);
  return readdirSync(here, { withFileTypes: true })
    .filter((e) => !e.name.startsWith('.'))
    .flatMap((e): string[] => {
      const path = join(inside, e.name);
      const isFolder = e.isSymbolicLink()
        ? statSync(join(folder, path), { throwIfNoEntry: false })?.isDirectory()
        : e.isDirectory();
      if (isFolder) return filesBelow(folder, isData, path, [...above, here]);
      return isData(e.name) && !BESIDE.test(e.name) ? [path] : [];
    });
}

interface State {
  readonly _data_files?: readonly { readonly filename?: unknown }[];
  /** Of old versions: files that say which of the rows are meant. */
  readonly _indices_data_files?: unknown;
}
/** The files that save_to_disk names, in its order; null: it is no such folder. */
function savedFiles(folder: string, names: readonly string[]): string[] | null {
  if (names.includes('dataset_dict.json')) {
    const said = readJson(join(folder, 'dataset_dict.json')) as { readonly splits?: readonly string[] };
    const splits = Array.isArray(said.splits) ? said.splits : [];
    fail(
      'data_splits',
      folder,
      `holds the splits ${splits.join(', ')}; give one of them: ${join(folder, splits[0] ?? 'train')}`,
    );
  }
  if (!names.includes('state.json')) return null;
  const { _data_files: listed, _indices_data_files: picked } = readJson(join(folder, 'state.json')) as State;
  if (!Array.isArray(listed)) return null;
  if (Array.isArray(picked) && picked.length > 0)
    throw new DataError(
      'file_kind',
      `${folder}: an index says which of its rows are meant, as old versions of datasets wrote it; save it again ` +
        'with load_from_disk(…).save_to_disk(…) of today',
      { file: folder },
    );
  return (listed as NonNullable<State['_data_files']>).map(({ filename }) => {
    if (typeof filename !== 'string' || filename !== basename(filename) || !names.includes(filename))
      return fail(
        'file_missing',
        folder,
        `state.json names ${JSON.stringify(filename)}, which is not there; copy it again`,
      );
    return filename;
  });
}
function readJson(path: string): object {
  const bad = (what: string): DataError =>
    new DataError('file_kind', `${path}: ${what}; copy it again`, { file: path });
  const value = readJsonFile(path, 'record', {
    next: 'copy it again',
    missing: (message) => new DataError('unreadable', message, { file: path }),
    bad,
  });
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw bad('is no JSON object');
  return value;
}

/** Shards that a name counts must all be there. */
function checkShards(folder: string, files: readonly string[]): void {
  const sets = new Map<string, { readonly wanted: number; readonly seen: Set<number> }>();
  for (const file of files) {
    const found = SHARD.exec(file);
    if (!found) continue;
    const key = `${file.slice(0, found.index)}-of-${found[2]}`;
    const set = sets.get(key) ?? { wanted: Number(found[2]), seen: new Set<number>() };
    sets.set(key, set);
    set.seen.add(Number(found[1]));
  }
  for (const [key, { wanted, seen }] of sets)
    if (seen.size !== wanted)
      fail('file_missing', folder, `has ${seen.size} of the ${wanted} shards ${key}; copy the others as well`);
}

/** Of the files beside one that is called after its split, or lies in a folder that is. */
const patternOf = (file: string): string =>
  file.replace(/(train(?:ing)?)[^/]*(\/.*)?$/i, (_, word: string, inside?: string) =>
    inside === undefined ? `${word}*` : `${word}/*`,
  );

function folderFiles(folder: string, tables: boolean): string[] {
  const names = readdirSync(folder);
  const saved = savedFiles(folder, names);
  if (saved) return saved.map((f) => join(folder, f));
  const files = filesBelow(folder, (name) => DATA.test(name) || (tables && TABLES.test(name))).sort(byName);
  if (files.length === 0)
    fail(
      'no_data_files',
      folder,
      `a folder without rows; wanted .jsonl, .json, .parquet${tables ? ', .arrow or .csv' : ' or .arrow'} files in it`,
    );
  const named = namedSplits(folder, names);
  const of = new Map(files.map((f) => [f, splitOf(f, named) ?? 'unnamed']));
  const splits = [...new Set(of.values())];
  if (splits.length > 1) {
    const wanted = splits.find((s) => s.startsWith('train')) ?? splits[0];
    const [first = '', ...more] = files.filter((f) => of.get(f) === wanted);
    const pattern = SHARD.test(first) ? first.replace(SHARD, '-*') : more.length === 0 ? first : patternOf(first);
    fail(
      'data_splits',
      folder,
      `holds files of several splits (${splits.join(', ')}); say which with a pattern such as ` +
        `${join(folder, pattern)}`,
    );
  }
  checkShards(folder, files);
  return files.map((f) => join(folder, f));
}

/**
 * The files that a path names, in the order in which they are read.
 * @param tables of a folder, CSV files too: rows are read by their columns
 * @throws {DataError} no_data_files, data_splits, file_missing · what the file system says
 */
export function dataFiles(path: string, tables = false): readonly string[] {
  const found = matching(path);
  if (found) {
    if (found.length === 0) fail('no_data_files', path, 'no file is called so; is the pattern right?');
    checkShards(path, found);
    return found;
  }
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ? folderFiles(path, tables) : [path];
}
