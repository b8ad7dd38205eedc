// Edits of --set: `a.b=c` puts a value in its place, `a.b=null` takes out what may not be null.
import { parse } from 'yaml';
import { ConfigError } from '../base/errors.js';
import { innermost } from './problems.js';
import { Recipe } from './schema.js';

type Holder = Record<string, unknown>;

function parsedValue(text: string, edit: string): unknown {
  try {
    return parse(text);
  } catch (e) {
    throw new ConfigError('bad_edit', `--set ${edit}: the value is not YAML: ${(e as Error).message.split('\n')[0]}`);
  }
}

/** The map or list that holds the last key of an edit; sections that are not there are made. */
function holderOf(root: Holder, keys: readonly string[], edit: string): Holder {
  let at = root;
  for (const [i, key] of keys.slice(0, -1).entries()) {
    if (key === '__proto__' || !Object.hasOwn(at, key))
      Object.defineProperty(at, key, { value: {}, enumerable: true, writable: true, configurable: true });
    const next = at[key];
    if (next === null) at[key] = {};
    else if (typeof next !== 'object')
      throw new ConfigError(
        'bad_edit',
        `--set ${edit}: ${key} is ${JSON.stringify(next)}, it has no field ${keys[i + 1]}`,
      );
    at = at[key] as Holder;
  }
  return at;
}

/** What null means there: a value (train.clipGradNorm: no clipping), nothing a field can be, or no field at all. */
function meaningOfNull(root: Holder, keys: readonly string[]): 'value' | 'absent' | 'unknown' {
  const parent = keys.slice(0, -1).join('.');
  for (const issue of Recipe.safeParse(root).error?.issues ?? []) {
    const i = innermost(issue);
    if (i.code === 'unrecognized_keys' && i.path.join('.') === parent && i.keys.includes(keys.at(-1) ?? ''))
      return 'unknown';
    if (i.path.join('.') === keys.join('.')) return 'absent';
  }
  return 'value';
}

/** @returns the path that was edited, dotted. @throws {ConfigError} bad_edit */
export function applyEdit(root: Holder, edit: string): string {
  const eq = edit.indexOf('=');
  const path = edit.slice(0, Math.max(0, eq)).trim();
  if (eq < 1 || !path)
    throw new ConfigError('bad_edit', `--set ${edit}: got no key, wanted a.b=value, or a.b=null to take a field out`);
  const value = parsedValue(edit.slice(eq + 1), edit);
  const keys = path.split('.');
  const holder = holderOf(root, keys, edit);
  const last = keys.at(-1) ?? '';
  const there = Object.hasOwn(holder, last);
  Object.defineProperty(holder, last, { value, enumerable: true, writable: true, configurable: true });
  if (value !== null) return path;
  const meaning = meaningOfNull(root, keys);
  // An unknown key that the file has may be taken out; one that only the edit has is a slip of the pen.
  if (meaning === 'value' || (meaning === 'unknown' && !there)) return path;
  if (Array.isArray(holder)) holder.splice(Number(last), 1);
  else delete holder[last];
  return path;
}
