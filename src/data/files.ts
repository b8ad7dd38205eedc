// What a path of data names: one file, the files of a pattern, or those of a folder: shards beside one another, a
// dataset that `datasets` saved (state.json) or keeps in its cache (dataset_info.json).
import { readdirSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { DataError } from '../base/errors.js';
import { byName, matching } from '../base/globs.js';
import { readJsonFile } from '../base/json-file.js';

const DATA = /\.(jsonl|ndjson|json|parquet|arrow|arrows|feather)(\.(gz|zst))?$/i;
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
const MAX_DEPTH = 4;

const fail = (code: 'no_data_files' | 'data_splits' | 'file_missing', folder: string, message: string): never => {
  throw new DataError(code, `${folder}: ${message}`, { file: folder });
};

const splitOf = (path: string): string | undefined => {
  const words = path.toLowerCase().split(/[/._-]+/);
  const found = words.find((w) => Object.hasOwn(SPLITS, w));
  return found === undefined ? undefined : SPLITS[found];
};

/** All files of data below a folder, as paths in it. */
function filesBelow(folder: string, inside = '', depth = 0): string[] {
  return readdirSync(join(folder, inside), { withFileTypes: true })
    .filter((e) => !e.name.startsWith('.'))
    .flatMap((e): string[] => {
      const path = join(inside, e.name);
      const isFolder = e.isSymbolicLink()
        ? statSync(join(folder, path), { throwIfNoEntry: false })?.isDirectory()
        : e.isDirectory();
      if (isFolder) return depth < MAX_DEPTH ? filesBelow(folder, path, depth + 1) : [];
      return DATA.test(e.name) && !BESIDE.test(e.name) ? [path] : [];
    });
}

interface State {
  readonly _data_files?: readonly { readonly filename?: unknown }[];
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
  const listed = (readJson(join(folder, 'state.json')) as State)._data_files;
  if (!Array.isArray(listed)) return null;
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

function folderFiles(folder: string): string[] {
  const names = readdirSync(folder);
  const saved = savedFiles(folder, names);
  if (saved) return saved.map((f) => join(folder, f));
  const files = filesBelow(folder).sort(byName);
  if (files.length === 0)
    fail('no_data_files', folder, 'a folder without rows; wanted .jsonl, .json, .parquet or .arrow files in it');
  const splits = [...new Set(files.map((f) => splitOf(f) ?? 'unnamed'))];
  if (splits.length > 1) {
    const first = files.find((f) => splitOf(f) === 'train') ?? files[0] ?? '';
    const pattern = first.replace(SHARD, '-*').replace(/(train(?:ing)?)(?!-\*).*$/i, '$1*');
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
 * @throws {DataError} no_data_files, data_splits, file_missing · what the file system says
 */
export function dataFiles(path: string): readonly string[] {
  const found = matching(path);
  if (found) {
    if (found.length === 0) fail('no_data_files', path, 'no file is called so; is the pattern right?');
    checkShards(path, found);
    return found;
  }
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ? folderFiles(path) : [path];
}
