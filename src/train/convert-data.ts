// Rows of any files as one file: JSON lines, also in gzip, or Parquet. The output is there whole or not at all, and no
// more than a group of rows is held.
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { ConfigError, DataError } from '../base/errors.js';
import { OutputFile } from '../base/files.js';
import { jsonText } from '../base/json.js';
import { checkOutputs } from '../base/outputs.js';
import { type DataFile, type LoadContext, type RowSettings, rowsAs } from '../data/examples.js';
import { dataFiles } from '../data/files.js';
import { FLAG_SETTINGS } from '../data/format.js';
import { writeParquet } from '../data/parquet-writer.js';
import { merged, type Shape, shapeOf } from '../data/shape.js';
import { loadTokenizer } from '../harmony/tokenizer.js';
import type { Tokenizer } from '../harmony/types.js';

/** What rows are written as; absent: as they stand. */
export type ConvertTo = 'chat' | 'tokens';
export interface ConvertRequest {
  readonly paths: readonly string[];
  readonly out: string;
  /** Row format of the files; default auto. */
  readonly format?: string;
  readonly to?: ConvertTo;
  /** For `tokens`. */
  readonly tokenizer?: string;
  readonly maxTokens?: number;
  readonly onLong?: RowSettings['onLong'];
  readonly ignore?: readonly string[];
  readonly markup?: RowSettings['markup'];
  /** Most rows of each file. */
  readonly limit?: number;
}
export interface Converted {
  readonly out: string;
  readonly rows: number;
  readonly files: readonly { readonly path: string; readonly format: string; readonly sha256: string }[];
}

type Summary = Converted['files'][number];
interface Work {
  readonly files: readonly DataFile[];
  readonly context: LoadContext;
  readonly to: ConvertTo | undefined;
  readonly emit: (event: { readonly rows: number }) => void;
  close(): void;
}

/** Values of all rows, file after file; what the files were at the end. */
async function* rowsOf(work: Work): AsyncGenerator<object, readonly Summary[], void> {
  const summaries: Summary[] = [];
  let rows = 0;
  for (const file of work.files) {
    const stream = rowsAs(file, work.context, work.to);
    try {
      for (;;) {
        const next = await stream.next();
        if (next.done) {
          summaries.push(next.value);
          break;
        }
        if (++rows % 4096 === 0) work.emit({ rows });
        yield next.value;
      }
    } finally {
      await stream.return(undefined as never);
    }
  }
  return summaries;
}

async function writeLines(work: Work, out: string): Promise<{ rows: number; files: readonly Summary[] }> {
  const file = await OutputFile.open(out, work.context.signal);
  let rows = 0;
  let files: readonly Summary[] = [];
  async function* pieces(): AsyncGenerator<Buffer, void, void> {
    const source = rowsOf(work);
    let lines: string[] = [];
    let size = 0;
    try {
      for (;;) {
        const next = await source.next();
        if (next.done) {
          files = next.value;
          break;
        }
        const line = `${jsonText(next.value)}\n`;
        lines.push(line);
        rows++;
        size += line.length;
        if (size < 2 ** 18) continue;
        yield Buffer.from(lines.join(''));
        [lines, size] = [[], 0];
      }
    } finally {
      await source.return([]);
    }
    yield Buffer.from(lines.join(''));
  }
  const write = async (source: AsyncIterable<Buffer>): Promise<void> => {
    for await (const piece of source) await file.write(piece, work.context.signal);
  };
  try {
    if (/\.gz$/i.test(out)) await pipeline(Readable.from(pieces()), createGzip(), write);
    else await write(pieces());
    file.commit();
  } finally {
    file.discard();
  }
  return { rows, files };
}

async function writeTable(work: Work, out: string): Promise<{ rows: number; files: readonly Summary[] }> {
  // A table says before its first row what its columns are: the rows are read twice.
  let shape: Shape = { kind: 'none' };
  const first = rowsOf(work);
  let next = await first.next();
  for (; !next.done; next = await first.next()) shape = merged(shape, shapeOf(next.value));
  const before = next.value;
  const second = rowsOf(work);
  let files: readonly Summary[] = [];
  async function* again(): AsyncGenerator<object, void, void> {
    files = yield* second;
    const changed = files.find((f, i) => f.sha256 !== before[i]?.sha256);
    if (changed)
      throw new DataError('file_changed', `${changed.path}: it changed while it was read; run it again`, {
        file: changed.path,
      });
  }
  const rows = await writeParquet(out, shape, again(), work.context.signal);
  return { rows, files };
}

const ENDINGS = /\.(parquet|jsonl|ndjson|jsonl\.gz|ndjson\.gz)$/i;

function workOf(request: ConvertRequest, hooks: Hooks): Work {
  const { tokenizer: at, to } = request;
  if (to === 'tokens' && at === undefined)
    throw new ConfigError('bad_option', '--to tokens needs a tokenizer; give --tokenizer DIR');
  let loaded: Tokenizer | undefined;
  const get = at === undefined ? null : (): Tokenizer => (loaded ??= loadTokenizer(at));
  return {
    files: request.paths.map((path) => ({
      path,
      format: request.format ?? 'auto',
      ...(request.limit === undefined ? {} : { limit: request.limit }),
    })),
    context: {
      tokenizer: get,
      vocabSize: at === undefined ? 2 ** 31 : (get?.().vocabSize ?? 0),
      maxTokens: request.maxTokens ?? 2 ** 24,
      onLong: request.onLong,
      ignore: request.ignore,
      markup: request.markup,
      settings: FLAG_SETTINGS,
      loss: { analysis: 1, commentary: 1, final: 1 },
      ...(hooks.signal ? { signal: hooks.signal } : {}),
    },
    to,
    emit: hooks.emit ?? (() => {}),
    close: () => loaded?.close(),
  };
}

interface Hooks {
  readonly signal?: AbortSignal;
  readonly emit?: (event: { readonly rows: number }) => void;
}

/** @throws {ConfigError} bad_option, output_unwritable, output_clash · {DataError} a bad row · the signal's reason */
export async function convertRows(request: ConvertRequest, hooks: Hooks = {}): Promise<Converted> {
  hooks.signal?.throwIfAborted();
  const { out, paths } = request;
  const ending = ENDINGS.exec(out)?.[1];
  if (ending === undefined)
    throw new ConfigError(
      'bad_option',
      `--out ${out}: ends in no kind that is written; wanted .parquet, .jsonl or .jsonl.gz`,
    );
  checkOutputs({ '--out': out }, { files: paths.flatMap((path) => [...dataFiles(path)]) });
  const work = workOf(request, hooks);
  try {
    const done = /parquet$/i.test(ending) ? await writeTable(work, out) : await writeLines(work, out);
    return { out, ...done };
  } finally {
    work.close();
  }
}
