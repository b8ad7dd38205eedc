// Dataset files as a whole: all their examples, mixed as the recipe says.
import { ConfigError, DataError } from '../base/errors.js';
import type { Example, Prompt } from './example.js';
import { ExampleStore } from './example-store.js';
import {
  contextFor,
  type DataFile,
  type FileSummary,
  formatOf,
  hasTrained,
  type LoadContext,
  streamExamples,
} from './examples.js';
import type { Format } from './format.js';
import { FORMATS } from './formats/index.js';
import { epochOrder } from './order.js';
import { AUTO } from './recognise.js';
import { parsedRow, placed, rowsOf } from './rows.js';

export {
  type DataFile,
  type FileSummary,
  type LoadContext,
  type OnLong,
  type RowSettings,
  rowSettings,
} from './examples.js';

export interface Dataset {
  /** Only samples all of whose examples have a token to train. */
  readonly examples: ExampleStore;
  readonly files: readonly FileSummary[];
}

/** @throws {ConfigError} format_unfit: pairs where single examples are wanted, or the other way round */
function checkFits(file: DataFile, format: string, per: 1 | 2): void {
  const of = FORMATS.find((f) => f.name === format)?.examplesPerSample ?? 1;
  if (of !== per)
    throw new ConfigError(
      'format_unfit',
      `${file.path}: rows of format ${format} are ${of === 2 ? 'pairs' : 'single examples'}, ` +
        `wanted ${per === 2 ? 'pairs (format preference)' : 'single examples; pairs are for train.method dpo or orpo'}`,
      { file: file.path, format },
    );
}

/** The samples of a file that have tokens to train in all of their examples, each with the row it is of. */
async function* samplesOf(file: DataFile, context: LoadContext): AsyncGenerator<readonly Example[], FileSummary, void> {
  const per = context.examplesPerSample ?? 1;
  const format =
    file.format === AUTO
      ? (await formatOf({ ...file, ignore: context.ignore }, context.signal)).format.name
      : file.format;
  checkFits(file, format, per);
  const stream = streamExamples(file, context);
  let sample: Example[] = [];
  try {
    for (;;) {
      const next = await stream.next();
      if (next.done) return next.value;
      sample.push(next.value);
      if (sample.length < per) continue;
      if (sample.every((e) => hasTrained(e.weights))) yield sample;
      sample = [];
    }
  } finally {
    await stream.return(undefined as never);
  }
}

/** Which samples of a file are taken, in which order, each as often as its weight says. @param rowOf row of a sample */
function chosen(file: DataFile, rowOf: readonly number[]): number[] {
  const { weight = 1, limit = Infinity, shuffle } = file;
  const rows = new Map<number, number[]>();
  for (const [sample, row] of rowOf.entries()) rows.set(row, [...(rows.get(row) ?? []), sample]);
  const groups = [...rows.values()];
  const order = shuffle === undefined ? groups.map((_, i) => i) : [...epochOrder(groups.length, shuffle, 0)];
  const samples = order.slice(0, limit).flatMap((i) => groups[i] ?? []);
  const whole = Math.floor(weight);
  const rest = Math.round((weight - whole) * samples.length);
  const part = new Set(epochOrder(samples.length, shuffle ?? 0, 1).subarray(0, rest));
  return [...Array.from({ length: whole }, () => samples).flat(), ...samples.filter((_, i) => part.has(i))];
}

function nothingThere(files: readonly DataFile[], summaries: readonly FileSummary[]): string {
  const part = files.find((f) => f.part)?.part;
  if (summaries.some((s) => s.rows > 0))
    return (
      'no row has a token to train (an assistant message on a channel whose data.loss is above 0); check with temper ' +
      'data check'
    );
  if (!part) return 'has no rows';
  return (
    `data.split ${part.take === 'eval' ? 'holds out none of the rows' : 'leaves no row to train on'} (share ` +
    `${part.share}, seed ${part.seed}); change them, or give held-out rows as data.eval`
  );
}

/** Reads all files. @throws {DataError} a bad row, or nothing to train in any of them */
export async function loadDataset(files: readonly DataFile[], context: LoadContext): Promise<Dataset> {
  const examples = new ExampleStore();
  const summaries: FileSummary[] = [];
  const per = context.examplesPerSample ?? 1;
  for (const file of files) {
    const isWhole = (file.weight ?? 1) === 1 && file.shuffle === undefined;
    const store = isWhole ? examples : new ExampleStore();
    const rowOf: number[] = [];
    let [row, last] = [-1, ''];
    const samples = samplesOf(file, context);
    for (;;) {
      const next = await samples.next();
      if (next.done) {
        summaries.push(next.value);
        break;
      }
      const { source } = next.value[0] as Example;
      const place = `${source.line}:${source.file}`;
      if (place !== last) row++;
      last = place;
      if (!isWhole) rowOf.push(row);
      for (const e of next.value) store.add(e);
    }
    if (isWhole) continue;
    for (const i of chosen(file, rowOf)) for (let k = 0; k < per; k++) examples.add(store.at(per * i + k) as Example);
  }
  if (examples.length === 0)
    throw new DataError(
      'nothing_to_train',
      `${files.map((f) => f.path).join(', ')}: ${nothingThere(files, summaries)}`,
      { files: files.map((f) => f.path) },
    );
  return { examples, files: summaries };
}

/** Whether all of the last example of a row, which holds its last answer, is read under `context`. */
function fitsWhole(row: unknown, format: Format, context: LoadContext): boolean {
  const most = Math.min(context.maxTokens, (context.positions ?? Infinity) + 1);
  let length = 0;
  for (const one of format.toExamples(
    row,
    contextFor(context, () => {}),
  ))
    length = one.length ?? one.tokens.length;
  return length <= most;
}

/**
 * Questions with known answers, for exact match; files whose format holds none give none.
 * @param context of a recipe: rows that it would cut or drop (data.onLong) are left out, as their answer is not the
 * row's; markup that it refuses is refused
 * @param onLong told of each row that is left out
 */
export async function loadPrompts(
  files: readonly DataFile[],
  signal?: AbortSignal,
  context?: LoadContext,
  onLong: () => void = () => {},
): Promise<Prompt[]> {
  const prompts: Prompt[] = [];
  for (const file of files) {
    const { limit, shuffle } = file;
    const ignore = file.ignore ?? context?.ignore;
    const { format } = await formatOf({ ...file, ignore }, signal);
    const { toPrompts } = format;
    if (!toPrompts) continue;
    const rows: Prompt[][] = [];
    for await (const row of rowsOf({ ...file, limit: shuffle === undefined ? limit : undefined }, signal)) {
      if (row.error) throw row.error;
      const { place } = row;
      const value = parsedRow(row, format, { ignore });
      try {
        const asked = toPrompts(value);
        if (context && asked.length > 0 && !fitsWhole(value, format, context)) {
          onLong();
          continue;
        }
        rows.push(asked.map((p) => ({ ...p, source: { file: place.file, line: place.line } })));
      } catch (e) {
        throw placed(e, place);
      }
    }
    // As `chosen` takes them.
    const order = shuffle === undefined ? rows.keys() : epochOrder(rows.length, shuffle, 0).slice(0, limit);
    for (const i of order) prompts.push(...(rows[i] ?? []));
  }
  return prompts;
}
