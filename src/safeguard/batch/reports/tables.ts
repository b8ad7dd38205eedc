// Verdicts as tables: CSV that no spreadsheet takes for formulas, and Parquet.
import { OutputFile } from '../../../base/files.js';
import { writeParquet } from '../../../data/parquet-writer.js';
import type { Shape } from '../../../data/shape.js';
import type { VerdictRow } from '../../agreement.js';
import { fileOf, type ReportSource, verdictsOf } from './source.js';

type Value = string | number | null;
/** The columns, their kinds, and what they say of a verdict. */
const COLUMNS: readonly (readonly [
  name: string,
  kind: 'text' | 'integer',
  of: (v: VerdictRow, source: ReportSource) => Value,
])[] = [
  ['id', 'text', (v) => v.id],
  ['file', 'text', fileOf],
  ['line', 'integer', (v) => v.line],
  ['policy', 'text', (v) => v.policy],
  ['channel', 'text', (v) => v.channel],
  ['outcome', 'text', (v) => v.outcome],
  ['rule', 'text', (v) => v.rule],
  ['cause', 'text', (v) => v.cause],
  ['expect', 'text', (v) => (v.expect === undefined ? null : (v.expect ?? 'none'))],
  ['latency_ms', 'integer', (v) => Math.round(v.latencyMs)],
  ['policy_digest', 'text', (v) => v.digests.policy],
  ['content_digest', 'text', (v) => v.digests.content],
  ['judge_digest', 'text', (v) => v.digests.judge],
];

/**
 * A cell of text: quoted, and with an apostrophe before what a spreadsheet would compute (OWASP, CSV injection), its
 * full-width forms included.
 */
const textCell = (text: string): string =>
  `"${/^\s*[=+\-@\t\r\uff1d\uff0b\uff0d\uff20]/.test(text) ? "'" : ''}${text.replaceAll('"', '""')}"`;
const cellOf = (value: Value): string =>
  value === null ? '' : typeof value === 'number' ? String(value) : textCell(value.toWellFormed());

export async function writeCsv(out: string, source: ReportSource): Promise<void> {
  const file = await OutputFile.open(out, source.signal);
  try {
    await file.write(`${COLUMNS.map(([name]) => name).join(',')}\r\n`);
    for await (const batch of verdictsOf(source))
      await file.write(
        batch.map((v) => `${COLUMNS.map(([, , of]) => cellOf(of(v, source))).join(',')}\r\n`).join(''),
        source.signal,
      );
    file.commit();
  } finally {
    file.discard();
  }
}

export async function writeVerdictParquet(out: string, source: ReportSource): Promise<void> {
  const shape: Shape = { kind: 'struct', fields: new Map(COLUMNS.map(([name, kind]) => [name, { kind }])) };
  async function* rows(): AsyncGenerator<object> {
    for await (const batch of verdictsOf(source))
      for (const v of batch) yield Object.fromEntries(COLUMNS.map(([name, , of]) => [name, of(v, source)]));
  }
  await writeParquet(out, shape, rows(), source.signal);
}
