// What reports are made of: a complete file of verdicts, read as often as a report needs, never held as a whole.
// Reports repeat neither judged text nor the judge's words, which may quote it; ids and names are data, cut and
// escaped.
import { relative, resolve } from 'node:path';
import type { VerdictRow } from '../../agreement.js';
import { channelLabel } from '../../contract.js';
import { lineBatches } from '../lines.js';

export interface ReportSource {
  /** The file of verdicts; a part's last line is passed over. */
  readonly file: string;
  /** Where rows are of that have no file of their own. */
  readonly input: string;
  readonly version: string;
  readonly signal?: AbortSignal | undefined;
}

export async function* verdictsOf({ file, signal }: ReportSource): AsyncGenerator<readonly VerdictRow[], void, void> {
  for await (const lines of lineBatches(file, { signal }))
    yield lines.flatMap(({ bytes, error }) => {
      if (error) throw error;
      if (!bytes || bytes.length === 0) return [];
      const value = JSON.parse(bytes.toString('utf8')) as VerdictRow | { readonly part: unknown };
      return 'part' in value ? [] : [value];
    });
}

const MOST_ID = 80;
/** The id of a row, as far as it names it. */
export const shortId = ({ id }: VerdictRow): string => {
  const text = id.toWellFormed();
  return text.length > MOST_ID ? `${text.slice(0, MOST_ID)}…`.toWellFormed() : text;
};
/** How a verdict's channel is called; '' where a row has none. */
export const channelOf = (v: VerdictRow): string => (v.channel === '' ? '' : channelLabel(v.channel));
/** What is wrong, as an id: a rule of a policy, or why there is no verdict. */
export const findingOf = (v: VerdictRow): string =>
  v.outcome === 'block' ? `${v.policy}/${v.rule ?? 'block'}` : `unjudged/${v.cause ?? 'unknown'}`;
/** The same as a sentence. */
export const sentenceOf = (v: VerdictRow): string => {
  const where = `Row ${shortId(v)}${v.channel === '' ? '' : `, channel ${channelOf(v)}`}`;
  return v.outcome === 'block'
    ? `${where}: breaks rule ${v.rule ?? '?'} of policy ${v.policy}.`
    : `${where}: not judged (${v.cause ?? 'unknown'}).`;
};
/** The path of a row's file, from here where it is below. */
export function fileOf(v: VerdictRow, { input }: ReportSource): string {
  const path = (v.file ?? input).toWellFormed();
  const near = relative('', resolve(path));
  return near === '' || near.startsWith('..') ? path : near;
}
