// Reads a recipe: YAML → edits of --set → schema → absolute paths. Every complaint names file, line and column.

import { createHash } from 'node:crypto';
import { existsSync, readdirSync } from 'node:fs';
import { basename, dirname, isAbsolute, join, relative, resolve } from 'node:path';
import { LineCounter, parseDocument, stringify } from 'yaml';
import { ConfigError } from '../base/errors.js';
import { isThere } from '../base/globs.js';
import { hubHint } from '../base/hub-hint.js';
import { readInputText } from '../base/inputs.js';
import { packageRoot } from '../base/machine.js';
import { asReadError } from '../base/system-error.js';
import { cachedPath, referenceOf } from '../hub/cached.js';
import { isReference, parseReference, repoText } from '../hub/reference.js';
import { applyEdit } from './edits.js';
import { dotted, type Path, Positions } from './positions.js';
import { nearest, type Problem, problemsError, schemaProblems } from './problems.js';
import { recipeName } from './recipe-name.js';
import { PATH_FIELDS, Recipe } from './schema.js';

export interface LoadedRecipe {
  /** All defaults filled in, all paths absolute. */
  readonly recipe: Recipe;
  /** What the recipe itself says of its adapter, defaults left out. */
  readonly adapterGiven: readonly DecidedByFrom[];
  /** The hf:// references in it, as they are written, with the fields they stand in. */
  readonly references: readonly { readonly field: string; readonly given: string }[];
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
  /** Commits by hf:// reference, as a run has pinned them; absent: what a branch or tag was when it was last pulled. */
  readonly pins?: Readonly<Record<string, string>> | undefined;
  /** The recipe lies in a run folder, written there by a version that may have been an older one. */
  readonly ofRun?: boolean;
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

/** What the recipe's path fields say. */
const pathsOf = (recipe: Recipe): { readonly field: string; readonly given: string }[] =>
  PATH_FIELDS.flatMap(([pattern]) => expand(recipe, pattern)).map((path) => ({
    field: dotted(path),
    given: String(path.reduce<unknown>((o, k) => (o as Record<string, unknown>)[k], recipe)),
  }));

function mapPaths(recipe: Recipe, change: (value: string) => string): Recipe {
  const copy = structuredClone(recipe);
  for (const [pattern] of PATH_FIELDS) {
    for (const path of expand(copy, pattern)) {
      const holder = path
        .slice(0, -1)
        .reduce<Record<string, unknown>>(
          (o, k) => o[k] as Record<string, unknown>,
          copy as unknown as Record<string, unknown>,
        );
      const last = String(path[path.length - 1]);
      holder[last] = change(String(holder[last]));
    }
  }
  return copy;
}

/** Fields that adapter.from decides; they are not written out beside it. */
const DECIDED_BY_FROM = ['rank', 'alpha', 'targets', 'layers', 'rsLora'] as const;
export type DecidedByFrom = (typeof DECIDED_BY_FROM)[number];
function decidedByFrom(value: unknown): readonly DecidedByFrom[] {
  const given = (value as { readonly adapter?: Readonly<Record<string, unknown>> | null }).adapter;
  return DECIDED_BY_FROM.filter((key) => given?.[key] != null);
}

/** Reads recipe text as if it lay in `file`. @throws {ConfigError} all that is wrong, each with file:line:column */
export function parseRecipe(text: string, file: string, options: LoadOptions = {}): LoadedRecipe {
  const lines = new LineCounter();
  const doc = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const bad = doc.errors[0];
  if (bad) {
    const { line, col } = lines.linePos(bad.pos[0]);
    const rows = /\.(?:jsonl?|ndjson|parquet|arrow|csv)$/i.test(file);
    throw new ConfigError(
      'bad_yaml',
      `${file}:${line}:${col}: not YAML: ${bad.message.split('\n')[0]}` +
        (rows ? '; are these rows? A recipe (docs/recipe.md) names them as data.train' : ''),
      { file, line, column: col },
    );
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
  if (typeof value === 'object')
    for (const edit of options.set ?? []) edits.set(applyEdit(value as Record<string, unknown>, edit), edit);
  const positions = new Positions(file, doc, lines, edits);

  const parsed = Recipe.safeParse(value);
  const problems = [
    ...schemaProblems(parsed.error?.issues ?? [], value, positions),
    ...adapterProblems(value, positions, options.ofRun === true),
    ...(options.checkPaths === false ? [] : pathProblems(value, file, positions, options.pins)),
  ];
  if (!parsed.success || problems.length > 0) throw problemsError(file, problems);
  const recipe = mapPaths(parsed.data, (given) => absolute(file, given, options.pins));
  const references = pathsOf(parsed.data).filter(({ given }) => isReference(given));
  return {
    recipe,
    references,
    adapterGiven: decidedByFrom(value),
    file,
    name: recipeName(file),
  };
}

/** An hf:// reference whose commit is not known stays what it is. */
function absolute(file: string, given: string, pins: LoadOptions['pins']): string {
  if (isReference(given)) return cachedPath(given, pins) ?? given;
  return isAbsolute(given) ? given : resolve(dirname(file), given);
}

/** Why a reference cannot be used, and what to do about it, as the end of a sentence. */
export function notCached(given: string, local: string): string {
  const at = parseReference(given);
  if (local === given) return `was never pulled; pull it with \`temper pull ${repoText(at)}@${at.revision} DIR\``;
  const pinned = parseReference(referenceOf(local) ?? given);
  const folder = pinned.path === '' ? local : local.slice(0, -pinned.path.length - 1);
  return `is not in the cache; bring it back with \`temper pull ${repoText(pinned)}@${pinned.revision} ${folder}\``;
}

/** What is said about an adapter where none is trained. */
function adapterProblems(value: unknown, positions: Positions, ofRun: boolean): readonly Problem[] {
  const { train, adapter, export: forms } = (value ?? {}) as Record<string, unknown>;
  if ((train as { readonly method?: unknown } | null | undefined)?.method !== 'pretrain') return [];
  const wrong = (path: string): Problem => ({
    code: 'bad_recipe',
    message: `${positions.at([path])}: ${path} is for methods sft, dpo and orpo; pretrain trains all weights`,
    path,
  });
  // Runs of before wrote the default into their recipe.
  const exports = Array.isArray(forms) && forms.length > 0 && !ofRun;
  return [...(adapter === undefined ? [] : [wrong('adapter')]), ...(exports ? [wrong('export')] : [])];
}

/** Files and folders that are not there. */
const pathProblems = (
  value: unknown,
  file: string,
  positions: Positions,
  pins: LoadOptions['pins'],
): readonly Problem[] =>
  PATH_FIELDS.flatMap(([pattern, mustExist]) => (mustExist ? expand(value, pattern) : [])).flatMap((path) => {
    const given = String(path.reduce<unknown>((o, k) => (o as Record<string, unknown>)[k], value));
    const full = absolute(file, given, pins);
    if (isThere(full)) return [];
    if (isReference(given)) {
      const missing = `${positions.at(path)}: ${dotted(path)} is ${given}, which ${notCached(given, full)}`;
      return [{ code: 'path_not_found', message: missing, path: dotted(path) }];
    }
    const hint = path[0] === 'data' ? '' : hubHint(given, full);
    const message =
      `${positions.at(path)}: ${dotted(path)} is ${given}, no such file or folder (looked at ${full})` + hint;
    return [{ code: 'path_not_found', message, path: dotted(path) }];
  });

/** What to do about a recipe that cannot be read, as the end of a sentence. */
function nextStep(path: string, code: string): string {
  const folder = code === 'EISDIR' ? path : dirname(path);
  if (code === 'EISDIR' && existsSync(join(path, 'run.json')))
    return `it is the folder of a run; its recipe is ${join(path, 'recipe.yaml')}`;
  const found = existsSync(folder) ? readdirSync(folder).filter((n) => /\.ya?ml$/i.test(n)) : [];
  const meant = nearest(basename(path).replace(/\.ya?ml$/i, ''), found, (n) => n.replace(/\.ya?ml$/i, ''));
  if (code !== 'EISDIR' && meant) return `did you mean ${join(folder, meant)}?`;
  if (found.length > 0 && found.length <= 12) return `recipes in ${folder}: ${found.join(', ')}`;
  return `a recipe is a YAML file (docs/recipe.md); those that ship are in ${join(packageRoot, 'recipes')}`;
}

/** @throws {ConfigError} the file cannot be read, is not YAML, or is not a recipe */
export function loadRecipe(path: string, options: LoadOptions = {}): LoadedRecipe {
  let text: string;
  try {
    text = readInputText(path, 'recipe');
  } catch (e) {
    const code = (e as NodeJS.ErrnoException).code ?? '';
    throw asReadError(e, path, nextStep(path, code), (message) => {
      const what = code === 'ENOENT' ? `${path}: no such recipe; ${nextStep(path, code)}` : message;
      return new ConfigError('recipe_unreadable', what, { file: path });
    });
  }
  return parseRecipe(text, resolve(path), options);
}

/** The resolved recipe as YAML whose relative paths hold in `folder`; reading it back gives the same recipe. */
export function writeResolved(recipe: Recipe, folder: string): string {
  const { adapter, export: forms, ...rest } = mapPaths(recipe, (p) => referenceOf(p) ?? (relative(folder, p) || '.'));
  const own =
    adapter.from === undefined
      ? adapter
      : Object.fromEntries(
          Object.entries(adapter).filter(([k]) => !(DECIDED_BY_FROM as readonly string[]).includes(k)),
        );
  return stringify(recipe.train.method === 'pretrain' ? rest : { ...rest, adapter: own, export: forms }, {
    lineWidth: 120,
  });
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
  // Where memory goes, and when the reference is computed, changes no bit of the result: a run that ran out of it may
  // be resumed with other settings. What `device` came to is compared by itself (runs/run-folder.ts).
  // How it is judged afterwards changes nothing about it.
  const {
    memoryLimit: _limit,
    gate: _gate,
    train: { offloadActivations: _offload, recompute: _recompute, precomputeReference: _precompute, ...train },
    ...rest
  } = { ...recipe, device: 'auto' };
  return createHash('sha256')
    .update(JSON.stringify(sorted(mapPaths({ ...rest, train }, (p) => basename(p)))))
    .digest('hex');
}
