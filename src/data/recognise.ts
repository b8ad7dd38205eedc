// Format `auto`: the first rows say which format they are of, by their fields. What fits two, or none, is an error.
import { DataError } from '../base/errors.js';
import { withoutNulls, withParsedConversations } from '../base/json.js';
import type { Format } from './format.js';
import { FORMATS } from './formats/index.js';
import { rowHint } from './hints.js';
import { type RowsOf, rowsOf, withoutFields } from './rows.js';

export const AUTO = 'auto';
/** Rows that are looked at. */
const FIRST = 16;
/** Those that cannot be read included. */
const MOST = 1000;

export interface Recognised {
  readonly format: Format;
  /** Why, as in "its first 16 rows have messages". */
  readonly because: string;
}
interface Seen {
  readonly format: Format;
  readonly fields: string;
  readonly row: string;
}

type Fields = Readonly<Record<string, unknown>>;
const isFields = (v: unknown): v is Fields => typeof v === 'object' && v !== null && !Array.isArray(v);

/** Formats that the row fits; where it fits none by its schema, those whose fields it has. */
function candidates(row: Fields, name: string): Seen[] {
  const shown = FORMATS.flatMap((format): Seen[] => {
    const fields = format.recognise?.(row);
    return fields ? [{ format, fields, row: name }] : [];
  });
  const fitting = shown.filter((s) => s.format.row.safeParse(row).success);
  return fitting.length > 0 ? fitting : shown;
}

const said = (s: Seen): string => `${s.format.name} (${s.fields})`;

/**
 * @returns null: no row among the first that could be read
 * @throws {DataError} format_ambiguous, format_unknown
 */
export async function recognised(
  file: RowsOf & { readonly ignore?: readonly string[] | undefined },
  signal?: AbortSignal,
): Promise<Recognised | null> {
  let found: Seen | undefined;
  let [rows, looked] = [0, 0];
  for await (const { place, value, error } of rowsOf(file, signal)) {
    if (rows === FIRST || ++looked > MOST) break;
    const plain = error ? null : withoutNulls(withoutFields(withParsedConversations(value), file.ignore));
    if (!isFields(plain)) continue;
    rows++;
    const seen = candidates(plain, place.name);
    const [one, other] = seen;
    const at = { file: place.file, line: place.line };
    if (one && other)
      throw new DataError(
        'format_ambiguous',
        `${place.name}: may be a row of ${seen.map(said).join(' or of ')}; give the format, or leave the fields of ` +
          'the other out (ignore)',
        at,
      );
    if (!one) {
      const fields = Object.keys(plain).slice(0, 12).join(', ') || 'none';
      throw new DataError(
        'format_unknown',
        `${place.name}: no format has such a row (fields: ${fields})` +
          `${ending(rowHint(plain, AUTO))}; formats: ${FORMATS.map((f) => f.name).join(', ')}, see docs/rows.md`,
        at,
      );
    }
    if (found && found.format !== one.format)
      throw new DataError(
        'format_ambiguous',
        `${place.name}: a row of ${said(one)}, ${found.row} is one of ${said(found)}; put them into files of their own`,
        at,
      );
    found ??= one;
  }
  if (!found) return null;
  const because = rows === 1 ? `its first row has ${found.fields}` : `its first ${rows} rows have ${found.fields}`;
  return { format: found.format, because };
}
const ending = (hint: string | null): string => (hint ? `; ${hint}` : '');
