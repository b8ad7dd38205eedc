// Matrix products of a device may be cut into tiles of several sizes, none of which changes a bit; which is fastest
// depends on the card. Where somebody measured it (`temper doctor --tune`, src/bench/tune.ts), a file in the cache
// folder says so, and a process that opens the device uses it. A file of another card, driver or build is never used.
import { join } from 'node:path';
import { cacheFolder } from '../base/cache.js';
import { sha256 } from '../base/digest.js';
import { DataError, TemperError } from '../base/errors.js';
import { writeFileAtomic } from '../base/files.js';
import { makeFolders } from '../base/folders.js';
import { readInput } from '../base/inputs.js';
import { decodeJson } from '../base/json-file.js';
import { addon } from './addon.js';

/** What was measured: products are as fast elsewhere only where all of it is the same. */
export interface TileOrigin {
  readonly card: string;
  /** As in "8.9". */
  readonly capability: string;
  readonly multiprocessors: number;
  /** As in "13.0". */
  readonly driver: string;
  /** Of the backend's library: what tells one build from another. */
  readonly build: string;
}
/** One class of products, as the backend calls it. */
export interface TileChoice {
  readonly product: string;
  /** The tile that the library's rule gives it. */
  readonly before: string;
  readonly tile: string;
  /** Time by the rule ÷ time with the tile, of the ops in which the class was measured. */
  readonly speedup: number;
}
export interface TileTable {
  readonly origin: TileOrigin;
  /** ISO 8601. */
  readonly made: string;
  readonly seconds: number;
  /** Classes that were measured; of those that are not in `choices` the rule is as good. */
  readonly classes: number;
  readonly choices: readonly TileChoice[];
}

const FORMAT = 'temper-tiles-1';
const MOST_CHOICES = 4096;

/** Where the table of a card is kept; null: the cache is turned off (src/base/cache.ts). */
export function tileFile(origin: TileOrigin): string | null {
  const folder = cacheFolder('tiles');
  if (folder === null) return null;
  const card = origin.card
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, '-')
    .slice(0, 48);
  const name = [card, `sm_${origin.capability.replace('.', '')}`, `driver-${origin.driver}`, identity(origin)];
  return join(folder, `${name.join('-')}.json`);
}
const identity = (o: TileOrigin): string =>
  sha256([o.card, o.capability, o.multiprocessors, o.driver, o.build].join('\n')).slice(0, 16);

const MAKE = 'make it again with `temper doctor --tune`';
const isText = (v: unknown): v is string => typeof v === 'string' && v !== '' && v.length <= 200;
const isNumber = (v: unknown): v is number => typeof v === 'number' && Number.isFinite(v) && v >= 0;
const isChoice = (v: unknown): v is TileChoice =>
  typeof v === 'object' &&
  v !== null &&
  'product' in v &&
  isText(v.product) &&
  'before' in v &&
  isText(v.before) &&
  'tile' in v &&
  isText(v.tile) &&
  'speedup' in v &&
  isNumber(v.speedup);

/** @returns what is wrong with it, in words, or the table */
function tableOf(value: unknown, origin: TileOrigin): TileTable | string {
  if (typeof value !== 'object' || value === null || !('format' in value) || value.format !== FORMAT)
    return 'is no table of tiles';
  const { format: _format, check, ...rest } = value as { format: string; check?: unknown } & Partial<TileTable>;
  if (check !== sha256(JSON.stringify(rest))) return 'does not match its own digest';
  const { made, seconds, classes, choices } = rest;
  if (rest.origin === undefined || identity(rest.origin) !== identity(origin))
    return 'is that of another card, driver or build';
  if (
    !isText(made) ||
    !isNumber(seconds) ||
    !isNumber(classes) ||
    !Array.isArray(choices) ||
    choices.length > MOST_CHOICES ||
    !choices.every(isChoice)
  )
    return 'is no table of tiles';
  return { origin, made, seconds, classes, choices };
}

/**
 * The table that is kept for a card; null: there is none.
 * @throws {DataError} bad_tiles · what readInput refuses
 */
export function readTiles(origin: TileOrigin): TileTable | null {
  const file = tileFile(origin);
  if (file === null) return null;
  let bytes: Buffer;
  try {
    bytes = readInput(file, 'record');
  } catch (e) {
    if (e instanceof Error && 'code' in e && (e.code === 'ENOENT' || e.code === 'ENOTDIR')) return null;
    if (e instanceof TemperError) throw e;
    throw badTiles(file, `cannot be read (${(e as Error).message})`, e);
  }
  let value: unknown;
  try {
    value = decodeJson(bytes);
  } catch (e) {
    throw badTiles(file, `is not JSON (${(e as Error).message})`, e);
  }
  const table = tableOf(value, origin);
  if (typeof table === 'string') throw badTiles(file, table);
  return table;
}
const badTiles = (file: string, what: string, cause?: unknown): DataError =>
  new DataError('bad_tiles', `${file}: ${what} and is not used; ${MAKE}`, { file }, { cause });

/**
 * Keeps a table: the whole file or, where that fails, the one that was there.
 * @returns its path; null: the cache is turned off
 * @throws {ConfigError} output_unwritable · {CheckpointError} disk_full
 */
export function keepTiles(table: TileTable): string | null {
  const file = tileFile(table.origin);
  if (file === null) return null;
  makeFolders(join(file, '..'));
  writeFileAtomic(file, `${JSON.stringify({ format: FORMAT, ...table, check: sha256(JSON.stringify(table)) })}\n`);
  return file;
}

/** Tiles of the open device; none: it has no choice. */
export const tileNames = (): readonly string[] => addon.tileNames().split(' ').filter(Boolean);
/** Products of that class take that tile from here on ('': the rule's). @throws {NativeError} bad_argument */
export const takeTile = (product: string, tile: string): void => addon.setTile(product, tile);
/** All products go by the rule. */
export const forgetTiles = (): void => addon.setTile('*', '');
/** The classes that were multiplied since the last call, and the tile that each took last. */
export const tiledProducts = (): readonly { readonly product: string; readonly tile: string }[] =>
  addon
    .tiledProducts()
    .split('\n')
    .filter(Boolean)
    .map((line) => {
      const [product = '', tile = ''] = line.split('\t');
      return { product, tile };
    });

/** A device that was just opened takes what is kept for it; what cannot be used is told, and the rule stays. */
export function useKeptTiles(origin: TileOrigin): void {
  if (tileNames().length === 0) return;
  try {
    for (const { product, tile } of readTiles(origin)?.choices ?? []) takeTile(product, tile);
  } catch (e) {
    forgetTiles();
    if (!(e instanceof TemperError)) throw e;
    const said =
      e.code === 'bad_argument' ? badTiles(tileFile(origin) ?? '', `names what is not there: ${e.message}`) : e;
    process.emitWarning(said.message, 'TemperWarning', said.code);
  }
}
