// The public conformance files of Parquet and Arrow, where they lie beside the repository: each is read right or
// refused by name, none ends the process and none takes long.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { asyncBufferFromFile, parquetReadObjects } from 'hyparquet';
import { compressors } from 'hyparquet-compressors';
import { describe, expect, it } from 'vitest';
import { DataError } from '../../src/base/errors.js';
import { packageRoot } from '../../src/base/machine.js';
import { sourceOf } from '../../src/data/sources/index.js';
import { type JsonFile, rowsOfJson } from './arrow-json.js';
import { rowsDigest } from './canon.js';

const shared = process.env.TEMPER_SHARED_DATA ?? join(packageRoot, '../shared/data');
const filesOf = (folder: string, pattern: RegExp): string[] =>
  existsSync(join(shared, folder))
    ? readdirSync(join(shared, folder), { recursive: true, encoding: 'utf8' })
        .filter((f) => pattern.test(f))
        .sort()
        .map((f) => join(shared, folder, f))
    : [];
type Rows = Record<string, unknown>[];
async function read(file: string): Promise<Rows | DataError> {
  const rows: Rows = [];
  try {
    const source = await sourceOf(file);
    for await (const batch of source.read(file).batches) for (const r of batch) rows.push(r.value as never);
    return rows;
  } catch (e) {
    expect(e, file).toBeInstanceOf(DataError);
    expect(['bad_table', 'row_group_too_large', 'file_kind']).toContain((e as DataError).code);
    return e as DataError;
  }
}

/** What another reader gives, in our words: null is absent, times are texts, numbers that are exact are numbers. */
function plain(v: unknown): unknown {
  if (v === null || v === undefined) return undefined;
  if (typeof v === 'bigint') return Number.isSafeInteger(Number(v)) ? Number(v) : v;
  if (v instanceof Date) return v.toISOString();
  if (ArrayBuffer.isView(v)) return Array.from(v as unknown as Iterable<unknown>, (x) => plain(x) ?? null);
  if (Array.isArray(v)) return v.map((x) => plain(x) ?? null);
  if (typeof v !== 'object') return v;
  return Object.fromEntries(
    Object.entries(v)
      .map(([k, x]) => [k, plain(x)] as const)
      .filter(([, x]) => x !== undefined),
  );
}
/** Cells of a comma-separated file, below its head. */
const csv = (file: string): string[][] =>
  readFileSync(file, 'utf8')
    .trimEnd()
    .split('\n')
    .slice(1)
    .map((line) => [...line.matchAll(/(?:^|,)(?:"([^"]*)"|([^,]*))/g)].map((m) => m[1] ?? m[2] ?? ''));

/** Refused, and why it must be: damaged, encrypted, or of a size that is not held. */
const REFUSED: readonly (readonly [RegExp, RegExp])[] = [
  [/^ARROW-GH-41317/, /is not in a row group/],
  [/^ARROW-GH-41321/, /values have 254 bits/],
  [/^ARROW-GH-45185/, /more rows than its row group/],
  [/^ARROW-GH-47662/, /fewer values than it says/],
  [/^ARROW-RS-GH-6229-DICTHEADER/, /past its end/],
  [/^ARROW-RS-GH-6229-LEVELS/, /more values than it says/],
  [/^PARQUET-1481/, /has the type -7/],
  [/\.encrypted$/, /is encrypted/],
  [/corrupt-checksum/, /checksum/],
  [/^large_string_map\.brotli/, /a page has 1073741828 bytes/],
];
/** What the other reader has no right answer for: it refuses them, or rounds, or gives other kinds of value. */
const OWN = new RegExp(
  '^(binary_truncated|byte_stream_split_extended|geography|geospatial|crs-|int96_from|map_no_value|repeated_prim|' +
    'datapage_v2_empty|nation\\.dict)',
);

const parquet = filesOf('parquet', /\.parquet(\.encrypted)?$/);
describe.skipIf(parquet.length === 0)('Parquet: apache/parquet-testing, skipped where ../shared/data is absent', () => {
  const counts = { read: 0, refused: 0 };
  it.each(parquet.map((f) => [f.slice(shared.length + 1), f]))('%s', async (_, file) => {
    const name = basename(file);
    const rows = await read(file);
    const reason = REFUSED.find(([n]) => n.test(name))?.[1];
    if (rows instanceof DataError) {
      counts.refused++;
      expect(reason, rows.message).toBeDefined();
      expect(rows.message).toMatch(reason ?? /x/);
      return;
    }
    counts.read++;
    expect(reason).toBeUndefined();
    if (OWN.test(name)) return;
    const other = await parquetReadObjects({ file: await asyncBufferFromFile(file), compressors });
    expect(rows.map(plain)).toEqual(other.map(plain));
  });
  it('says how many were read and refused', () => {
    console.log(`Parquet conformance: ${counts.read} read, ${counts.refused} refused, of ${parquet.length}`);
    expect(counts.read).toBeGreaterThanOrEqual(70);
    expect(counts.read + counts.refused).toBe(parquet.length);
  });

  const at = (name: string): string => join(shared, 'parquet/data', name);
  it.each([
    'delta_byte_array',
    'delta_encoding_required_column',
    'delta_encoding_optional_column',
    'delta_binary_packed',
  ])('%s has the values of its own table', async (name) => {
    const rows = (await read(at(`${name}.parquet`))) as Rows;
    const wanted = csv(at(`${name}_expect.csv`));
    expect(rows).toHaveLength(wanted.length);
    // An empty cell may be an empty text or none.
    for (const [i, row] of wanted.entries())
      expect(
        Object.values(rows[i] ?? {})
          .map(String)
          .filter((c) => c !== ''),
        `row ${i}`,
      ).toEqual(row.filter((c) => c !== ''));
  });
  it('split and plain columns of one table agree', async () => {
    const rows = (await read(at('byte_stream_split_extended.gzip.parquet'))) as Rows;
    expect(rows).toHaveLength(200);
    for (const row of rows)
      for (const [k, v] of Object.entries(row))
        if (k.endsWith('_plain')) expect(row[k.replace('_plain', '_byte_stream_split')]).toEqual(v);
  });
  it('what the other reader rounds, refuses or makes something else of', async () => {
    expect(((await read(at('nation.dict-malformed.parquet'))) as Rows)[24]).toMatchObject({ nation_key: 24 });
    expect(await read(at('datapage_v2_empty_datapage.snappy.parquet'))).toEqual([{}]);
    expect(((await read(at('int96_from_spark.parquet'))) as Rows)[0]).toEqual({ a: '2024-01-01T20:34:56.123456Z' });
    const maps = (await read(at('map_no_value.parquet'))) as Rows;
    expect(maps[0]).toEqual({
      my_map: { 1: null, 2: null, 3: null },
      my_map_no_v: { 1: null, 2: null, 3: null },
      my_list: [1, 2, 3],
    });
    expect(((await read(at('repeated_primitive_no_list.parquet'))) as Rows)[0]).toEqual({
      Int32_list: [0, 1, 2, 3],
      String_list: ['foo', 'zero', 'one', 'two'],
      group_of_lists: { Int32_list_in_group: [0, 1, 2, 3], String_list_in_group: ['foo', 'zero', 'one', 'two'] },
    });
  });
});

const arrow = filesOf('arrow', /\.(stream|arrow_file)$/);
describe.skipIf(arrow.length === 0)('Arrow: apache/arrow-testing, skipped where ../shared/data is absent', () => {
  const counts = { read: 0, refused: 0 };
  it.each(arrow.map((f) => [f.slice(shared.length + 1), f]))('%s', async (_, file) => {
    const rows = await read(file);
    if (/duplicate_fieldnames/.test(file)) {
      counts.refused++;
      expect(rows).toBeInstanceOf(DataError);
      expect((rows as DataError).message).toMatch(/two (columns|fields) are called/);
      return;
    }
    if (rows instanceof DataError) throw rows;
    counts.read++;
    const json = gunzipSync(readFileSync(file.replace(/\.(stream|arrow_file)$/, '.json.gz')))
      .toString('utf8')
      .replaceAll(/: (-?\d{16,})/g, ': "$1"'); // JSON.parse would round them
    expect(rows).toEqual(rowsOfJson(JSON.parse(json) as JsonFile));
  });
  it('says how many were read and refused', () => {
    console.log(`Arrow conformance: ${counts.read} read, ${counts.refused} refused, of ${arrow.length}`);
    expect(counts.read).toBeGreaterThanOrEqual(70);
    expect(counts.read + counts.refused).toBe(arrow.length);
  });
});

type Oracle = Readonly<
  Record<string, { readonly rows: number; readonly sha256: string } | { readonly refused: string }>
>;
const oracle = JSON.parse(readFileSync(join(packageRoot, 'test/golden/conformance/rows.json'), 'utf8')) as Oracle;
/** What pyarrow gives otherwise, or nothing at all, and why. */
const NOT_AS_PYARROW: readonly (readonly [RegExp, string])[] = [
  [/int96_from_spark/, 'its last moment is beyond 64 bits of microseconds, and beyond the calendar'],
  [/map_no_value/, 'a map without values is one of nulls; pyarrow makes a list of it'],
];
describe.skipIf(parquet.length === 0)('each of them as pyarrow reads it, value by value', () => {
  let compared = 0;
  it.each([...parquet, ...arrow].map((f) => [f.slice(shared.length + 1), f]))('%s', async (name, file) => {
    const wanted = oracle[name];
    expect(wanted, 'make test/golden/conformance/rows.json again').toBeDefined();
    const rows = await read(file);
    if (!wanted || 'refused' in wanted || NOT_AS_PYARROW.some(([n]) => n.test(name)) || rows instanceof DataError)
      return;
    compared++;
    expect(rowsDigest(rows)).toEqual(wanted);
  });
  it('says how many', () => {
    console.log(`as pyarrow: ${compared} of ${Object.keys(oracle).length}`);
    expect(compared).toBeGreaterThanOrEqual(100);
  });
});
