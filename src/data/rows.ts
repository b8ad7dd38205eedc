// Rows of what a recipe or a command names as data: from the files it stands for, one after the other, each row with
// its place, and what a format's schema makes of it.
import { createHash } from 'node:crypto';
import type { z } from 'zod';
import { DataError, TemperError } from '../base/errors.js';
import { hasLoneSurrogate, withoutNulls, withParsedConversations } from '../base/json.js';
import { dataFiles } from './files.js';
import { type Format, RECIPE_SETTINGS, type SettingNames } from './format.js';
import { rowHint } from './hints.js';
import type { Note } from './notes.js';
import { isIn, type Part } from './part.js';
import { placeName } from './source.js';
import { sourceOf } from './sources/index.js';

/** Where a row stands, as data and as messages name it. */
export interface RowPlace {
  readonly file: string;
  readonly line: number;
  readonly name: string;
}
export interface PlacedRow {
  readonly place: RowPlace;
  readonly value: unknown;
  readonly error: DataError | null;
  /** Its bytes, where it is text. */
  readonly raw?: Buffer | undefined;
  /** Its text holds neither escapes nor U+FFFD: what they would bring in need not be looked for. */
  readonly isClean: boolean;
}
export interface RowsOf {
  readonly path: string;
  readonly part?: Part | undefined;
  readonly limit?: number | undefined;
}

/**
 * Rows in order: of the part that is wanted, at most `limit` of them. The sha256 of the file at the end; of several,
 * that over theirs.
 */
export async function* rowsOf(
  { path, part, limit = Infinity }: RowsOf,
  signal?: AbortSignal,
): AsyncGenerator<PlacedRow, string, void> {
  const digests: string[] = [];
  let given = 0;
  for (const file of dataFiles(path)) {
    const source = await sourceOf(file);
    const reading = source.read(file, signal);
    for await (const batch of reading.batches) {
      signal?.throwIfAborted();
      // All of a file is read, that its digest can be told.
      if (given >= limit) continue;
      for (const { line, value, error, raw, isClean } of batch) {
        if (part && (error ? part.take === 'eval' : !isIn(value, part))) continue;
        if (given++ >= limit) break;
        const place = { file, line, name: placeName(source, file, line) };
        yield { place, value, error: error ?? null, raw, isClean: isClean === true };
      }
    }
    digests.push(reading.digest());
  }
  return digests.length === 1 ? (digests[0] as string) : createHash('sha256').update(digests.join('\n')).digest('hex');
}

/** The branch of a union that got furthest: the one that was meant. */
function innermost(issue: z.core.$ZodIssue): z.core.$ZodIssue {
  if (issue.code !== 'invalid_union') return issue;
  const depth = (branch: readonly z.core.$ZodIssue[]): number => Math.max(...branch.map((i) => i.path.length));
  const best = [...issue.errors].sort((a, b) => depth(b) - depth(a))[0]?.[0];
  return best && best.path.length > 0 ? innermost({ ...best, path: [...issue.path, ...best.path] }) : issue;
}

function rowIssue(issues: readonly z.core.$ZodIssue[], settings: SettingNames): string {
  const all = issues.map(innermost);
  const unknown = all.flatMap((i) => (i.code === 'unrecognized_keys' ? i.keys.map((k) => [...i.path, k]) : []));
  if (unknown.length > 0) {
    const names = [...new Set(unknown.map((path) => path.filter((p) => typeof p !== 'number').join('.')))];
    const shown = unknown.map((path) => path.join('.'));
    return (
      `unknown field${shown.length > 1 ? 's' : ''} ${shown.slice(0, 8).join(', ')}` +
      `${shown.length > 8 ? ', …' : ''}; to leave ${names.length > 1 ? 'them' : 'it'} out: ` +
      `${settings.ignore}${settings.ignore.startsWith('-') ? names.join(',') : `[${names.join(', ')}]`}`
    );
  }
  const issue = all[0];
  return issue ? `${issue.path.join('.') || 'the row'}: ${issue.message}` : 'unreadable';
}

/** The value without the fields to ignore. */
export function withoutFields(value: unknown, ignore: readonly string[] | undefined): unknown {
  if (!ignore || ignore.length === 0) return value;
  return without(
    value,
    ignore.map((n) => n.split('.')),
  );
}
function without(value: unknown, names: readonly (readonly string[])[]): unknown {
  if (names.length === 0 || value === null || typeof value !== 'object') return value;
  if (Array.isArray(value)) return value.map((v) => without(v, names));
  return Object.fromEntries(
    Object.entries(value).flatMap(([k, v]): [string, unknown][] => {
      const inside = names.filter(([first]) => first === k).map(([, ...rest]) => rest);
      return inside.some((rest) => rest.length === 0) ? [] : [[k, without(v, inside)]];
    }),
  );
}

export interface RowContext {
  readonly ignore?: readonly string[] | undefined;
  readonly settings?: SettingNames | undefined;
  readonly note?: ((note: Note) => void) | undefined;
}

/** What the format's schema makes of a row. @throws {DataError} lone_surrogate, bad_row, with the row's place */
export function parsedRow({ place, value, isClean }: PlacedRow, format: Format, context: RowContext): unknown {
  const { file, line, name } = place;
  const read = withParsedConversations(value, () => context.note?.('json_text'));
  if (!isClean && hasLoneSurrogate(read))
    throw new DataError(
      'lone_surrogate',
      `${name}: a text holds half of a surrogate pair (\\ud800…\\udfff), which no UTF-8 has; ` +
        'repair the row or leave it out',
      { file, line },
    );
  const wanted = withoutFields(read, context.ignore);
  if (format.isPlain?.(wanted)) return wanted;
  const plain = withoutNulls(wanted, (path) => {
    if (path[0] === 'tools' || path.includes('arguments')) context.note?.('null_argument');
  });
  const parsed = format.row.safeParse(plain);
  if (parsed.success) return parsed.data;
  const issues = rowIssue(parsed.error.issues, context.settings ?? RECIPE_SETTINGS);
  throw new DataError('bad_row', `${name}: not a ${format.name} row: ${rowHint(plain, format.name) ?? issues}`, {
    file,
    line,
  });
}

/** An error of a format with the place of the row. */
export const placed = (e: unknown, { file, line, name }: RowPlace): unknown =>
  e instanceof TemperError && e.details.line === undefined
    ? new DataError(e.code, `${name}: ${e.message}`, { ...e.details, file, line }, { cause: e })
    : e;
