// Reads a recipe: YAML → edits of --set → schema → absolute paths. Every complaint names file, line and column.
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { basename, dirname, isAbsolute, relative, resolve } from 'node:path';
import { type Document, isMap, isScalar, LineCounter, parse, parseDocument, stringify } from 'yaml';
import type { z } from 'zod';
import { ConfigError } from '../base/errors.js';
import { PATH_FIELDS, Recipe } from './schema.js';

export interface LoadedRecipe {
  /** All defaults filled in, all paths absolute. */
  readonly recipe: Recipe;
  readonly file: string;
  /** File name without its ending: the default name of the run. */
  readonly name: string;
}

export interface LoadOptions {
  /**
   * Edits `a.b=c`; the value is read as YAML, list items by index (`data.train.0.path=x`). Relative paths stay relative
   * to the recipe.
   */
  readonly set?: readonly string[];
  /** Data, base and tokenizer must exist (default true). */
  readonly checkPaths?: boolean;
}

type Path = readonly (string | number)[];

/** Where things stand in the YAML text; edits of --set have no line and are named as such. */
class Positions {
  constructor(
    readonly file: string,
    readonly doc: Document.Parsed,
    readonly lines: LineCounter,
    readonly edits: ReadonlyMap<string, string>,
  ) {}

  /** `file:line:column` of the deepest node on `path` that is there; with `key`, of that key in the map. */
  at(path: Path, key?: string): string {
    const full = (key === undefined ? path : [...path, key]).join('.');
    for (const [edited, text] of this.edits)
      if (full === edited || full.startsWith(`${edited}.`)) return `--set ${text}`;
    for (let depth = path.length; depth >= 0; depth--) {
      const node = depth === 0 ? this.doc.contents : this.doc.getIn(path.slice(0, depth), true);
      const wanted = depth === path.length ? key : path[depth];
      if (isMap(node) && wanted !== undefined) {
        const pair = node.items.find((p) => isScalar(p.key) && String(p.key.value) === String(wanted));
        if (pair && isScalar(pair.key) && pair.key.range) return this.#name(pair.key.range[0]);
      }
      const range = (node as { range?: [number, number, number] | null } | null | undefined)?.range;
      if (range) {
        // A value on the line of its key is best pointed at by the key.
        if (depth > 0 && depth === path.length && key === undefined) {
          const parent = this.doc.getIn(path.slice(0, -1), true) ?? this.doc.contents;
          if (isMap(parent)) return this.at(path.slice(0, -1), String(path[path.length - 1]));
        }
        return this.#name(range[0]);
      }
    }
    return `${this.file}:1:1`;
  }
  #name(offset: number): string {
    const { line, col } = this.lines.linePos(offset);
    return `${this.file}:${line}:${col}`;
  }
}

/** The branch of a union the author meant: the one that got furthest. */
function innermost(issue: z.core.$ZodIssue): z.core.$ZodIssue {
  if (issue.code !== 'invalid_union' || issue.errors.length === 0) return issue;
  const depth = (branch: z.core.$ZodIssue[]): number =>
    Math.max(...branch.map((i) => i.path.length + (i.code === 'invalid_type' ? 0 : 1)));
  const best = issue.errors.reduce((a, b) => (depth(b) > depth(a) ? b : a))[0];
  return best ? innermost({ ...best, path: [...issue.path, ...best.path] }) : issue;
}

const dotted = (path: Path): string => path.join('.');

function describe(issue: z.core.$ZodIssue, positions: Positions): ConfigError {
  const i = innermost(issue);
  const path = i.path as Path;
  if (i.code === 'unrecognized_keys') {
    const key = i.keys[0] ?? '';
    return new ConfigError(
      'unknown_key',
      `${positions.at(path, key)}: unknown key ${dotted([...path, key])}; see docs/recipe.md for the fields`,
      { file: positions.file, key: dotted([...path, key]) },
    );
  }
  const got = i.code === 'custom' ? '' : `: ${i.message.replace(/^Invalid (input|option): /, '')}`;
  const text = i.code === 'custom' ? `${dotted(path)} ${i.message}` : `${dotted(path) || 'recipe'} is not valid${got}`;
  return new ConfigError('bad_recipe', `${positions.at(path)}: ${text}`, { file: positions.file, path: dotted(path) });
}

function applyEdit(root: unknown, text: string): string {
  const eq = text.indexOf('=');
  const path = text.slice(0, Math.max(0, eq)).trim();
  if (eq < 1 || !path) throw new ConfigError('bad_edit', `--set ${text}: got no key, wanted a.b=value`);
  let value: unknown;
  try {
    value = parse(text.slice(eq + 1));
  } catch (e) {
    throw new ConfigError('bad_edit', `--set ${text}: the value is not YAML: ${(e as Error).message.split('\n')[0]}`);
  }
  const keys = path.split('.');
  let at = root as Record<string, unknown>;
  for (const key of keys.slice(0, -1)) {
    if (key === '__proto__' || !Object.hasOwn(at, key))
      Object.defineProperty(at, key, { value: {}, enumerable: true, writable: true, configurable: true });
    const next = at[key];
    if (next === null) at[key] = {};
    else if (typeof next !== 'object')
      throw new ConfigError(
        'bad_edit',
        `--set ${text}: ${key} is ${JSON.stringify(next)}, it has no field ${keys.at(-1)}`,
      );
    at = at[key] as Record<string, unknown>;
  }
  Object.defineProperty(at, keys.at(-1) ?? '', { value, enumerable: true, writable: true, configurable: true });
  return path;
}

/** Concrete paths of the recipe that match a pattern. */
function expand(value: unknown, pattern: readonly string[], at: Path = []): Path[] {
  const [head, ...rest] = pattern;
  if (head === undefined) return typeof value === 'string' ? [at] : [];
  if (typeof value !== 'object' || value === null) return [];
  const keys = head === '*' ? Object.keys(value) : [head];
  return keys.flatMap((k) =>
    expand((value as Record<string, unknown>)[k], rest, [...at, Array.isArray(value) ? Number(k) : k]),
  );
}

function mapPaths(recipe: Recipe, change: (value: string, path: Path, mustExist: boolean) => string): Recipe {
  const copy = structuredClone(recipe);
  for (const [pattern, mustExist] of PATH_FIELDS) {
    for (const path of expand(copy, pattern)) {
      const holder = path
        .slice(0, -1)
        .reduce<Record<string, unknown>>(
          (o, k) => o[k] as Record<string, unknown>,
          copy as unknown as Record<string, unknown>,
        );
      const last = String(path[path.length - 1]);
      holder[last] = change(String(holder[last]), path, mustExist);
    }
  }
  return copy;
}

/** Reads recipe text as if it lay in `file`. @throws {ConfigError} with file:line:column */
export function parseRecipe(text: string, file: string, options: LoadOptions = {}): LoadedRecipe {
  const lines = new LineCounter();
  const doc = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const bad = doc.errors[0];
  if (bad) {
    const { line, col } = lines.linePos(bad.pos[0]);
    throw new ConfigError('bad_yaml', `${file}:${line}:${col}: not YAML: ${bad.message.split('\n')[0]}`, {
      file,
      line,
      column: col,
    });
  }
  let value: unknown;
  try {
    value = doc.toJS({ maxAliasCount: 100 }) ?? {};
  } catch (e) {
    throw new ConfigError(
      'bad_yaml',
      `${file}:1:1: not YAML that can be read: ${(e as Error).message.split('\n')[0]}`,
      { file },
    );
  }
  const edits = new Map<string, string>();
  if (typeof value === 'object') for (const edit of options.set ?? []) edits.set(applyEdit(value, edit), edit);
  const positions = new Positions(file, doc, lines, edits);

  const parsed = Recipe.safeParse(value);
  if (!parsed.success) throw describe(parsed.error.issues[0] as z.core.$ZodIssue, positions);
  if (parsed.data.train.method === 'pretrain' && (value as Record<string, unknown>).adapter !== undefined)
    throw new ConfigError(
      'bad_recipe',
      `${positions.at(['adapter'])}: adapter is for methods sft and dpo; pretrain trains all weights`,
      { file, path: 'adapter' },
    );

  const recipe = mapPaths(parsed.data, (given, path, mustExist) => {
    const full = isAbsolute(given) ? given : resolve(dirname(file), given);
    if (mustExist && options.checkPaths !== false && !existsSync(full))
      throw new ConfigError(
        'path_not_found',
        `${positions.at(path)}: ${dotted(path)} is ${given}, no such file or folder (looked at ${full})`,
        { file, path: dotted(path), got: full },
      );
    return full;
  });
  return { recipe, file, name: basename(file).replace(/\.ya?ml$/i, '') };
}

/** @throws {ConfigError} the file cannot be read, is not YAML, or is not a recipe */
export function loadRecipe(path: string, options: LoadOptions = {}): LoadedRecipe {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (e) {
    throw new ConfigError(
      'recipe_unreadable',
      `${path}: cannot read the recipe: ${(e as NodeJS.ErrnoException).code ?? String(e)}`,
      { file: path },
      { cause: e },
    );
  }
  return parseRecipe(text, resolve(path), options);
}

/** The resolved recipe as YAML whose relative paths hold in `folder`; reading it back gives the same recipe. */
export function writeResolved(recipe: Recipe, folder: string): string {
  const { adapter, ...rest } = mapPaths(recipe, (p) => relative(folder, p) || '.');
  return stringify(recipe.train.method === 'pretrain' ? rest : { ...rest, adapter }, { lineWidth: 120 });
}

/** sha256 over the resolved recipe; where its files lie does not enter, what they hold is digested apart. */
export function recipeDigest(recipe: Recipe): string {
  const sorted = (v: unknown): unknown =>
    Array.isArray(v)
      ? v.map(sorted)
      : v && typeof v === 'object'
        ? Object.fromEntries(
            Object.entries(v)
              .filter(([, x]) => x !== undefined)
              .sort(([a], [b]) => (a < b ? -1 : 1))
              .map(([k, x]) => [k, sorted(x)]),
          )
        : v;
  // Where memory goes changes no bit of the result: a run that ran out of it may be resumed with other settings. What
  // `device` came to is compared by itself (runs/run-folder.ts).
  const {
    memoryLimit: _limit,
    train: { offloadActivations: _offload, ...train },
    ...rest
  } = { ...recipe, device: 'auto' };
  return createHash('sha256')
    .update(JSON.stringify(sorted(mapPaths({ ...rest, train }, (p) => basename(p)))))
    .digest('hex');
}
