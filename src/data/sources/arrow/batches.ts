// Record batches of an Arrow file or stream, one held at a time beside the dictionaries.
import type { FileHandle } from 'node:fs/promises';
import { DataError } from '../../../base/errors.js';
import { Budget } from '../cells.js';
import { unLz4Frame } from '../lz4.js';
import { unzstd, ZstdFrames } from '../zstd-frames.js';
import { BatchColumns, type BatchShape, type Column, Dictionary, put } from './columns.js';
import { FlatTable, lengthAt } from './flatbuffer.js';
import { fileMessages, HEADER, MAGIC, MAX_BODY, type Message, Reader, streamMessages } from './messages.js';
import { readSchema, type Schema } from './schema.js';

export interface Batch {
  readonly rows: number;
  at(row: number): unknown;
}

const tooLarge = (file: string, bytes: number): DataError =>
  new DataError(
    'row_group_too_large',
    `${file}: a record batch has ${bytes} bytes, at most ${MAX_BODY} are held at a time; write it with smaller ` +
      'batches (max_chunksize)',
    { file, bytes },
  );

/** Bytes of a compressed buffer: how many they become, then the frame; −1: they stand as they are. */
function unpacked(bytes: Buffer, codec: number, frames: ZstdFrames, take: (n: number) => void): Buffer {
  if (bytes.length === 0) return bytes;
  const size = Number(bytes.readBigInt64LE(0));
  const rest = bytes.subarray(8);
  if (size === -1) return rest;
  if (!(size >= 0 && size <= MAX_BODY)) throw new Error(`a compressed buffer says it has ${size} bytes`);
  take(size);
  return codec === 1 ? unzstd(frames.fresh(), rest, size) : unLz4Frame(rest, size);
}

class Batches {
  #schema: Schema | null = null;
  readonly #dictionaries = new Map<bigint, Dictionary>();
  #kept = 0;
  constructor(
    readonly file: string,
    readonly reader: Reader,
  ) {}

  schema(table: FlatTable): void {
    if (this.#schema) throw new Error('it has two schemas');
    this.#schema = readSchema(table);
  }

  async take(message: Message): Promise<Batch | null> {
    const schema = this.#schema;
    if (message.kind === HEADER.schema) {
      this.schema(message.header);
      return null;
    }
    if (!schema) throw new Error('it begins without a schema');
    if (message.bodyBytes > MAX_BODY) throw tooLarge(this.file, message.bodyBytes);
    if (message.kind === HEADER.dictionary) {
      await this.#dictionary(message, schema);
      return null;
    }
    if (message.kind !== HEADER.batch) throw new Error(`it holds a message of kind ${message.kind}, no table`);
    const { rows, columns } = await this.#columns(message, message.header, schema.fields);
    return { rows, at: (row) => rowOf(schema, columns, row) };
  }

  async #dictionary(message: Message, schema: Schema): Promise<void> {
    const id = message.header.i64(0);
    const field = schema.dictionaries.get(id);
    const data = message.header.table(1);
    if (!field || !data) throw new Error('it has a dictionary that no column uses');
    const { columns, bytes } = await this.#columns(message, data, [field]);
    this.#kept += bytes;
    if (this.#kept > MAX_BODY) throw tooLarge(this.file, this.#kept);
    const known = this.#dictionaries.get(id);
    const delta = message.header.u8(2) !== 0;
    const dictionary = delta && known ? known : new Dictionary();
    dictionary.add(columns[0] as Column);
    this.#dictionaries.set(id, dictionary);
  }

  async #columns(
    message: Message,
    batch: FlatTable,
    fields: Schema['fields'],
  ): Promise<{ readonly rows: number; readonly columns: readonly Column[]; readonly bytes: number }> {
    const body = await this.reader.bytes(message.bodyAt, message.bodyBytes);
    const { view } = batch;
    const compression = batch.table(3);
    const codec = compression ? compression.u8(0) : -1;
    if (codec > 1 || (compression && compression.u8(1) !== 0)) throw new Error('it is compressed in a way not known');
    const frames = await ZstdFrames.open();
    let bytes = body.length;
    const take = (n: number): void => {
      bytes += n;
      if (bytes > MAX_BODY) throw tooLarge(this.file, bytes);
    };
    const buffers = batch.vector(2, 16).map((place) => {
      const [at, length] = [lengthAt(view, place), lengthAt(view, place + 8)];
      if (at + length > body.length) throw new Error('a buffer leaves its batch');
      const given = body.subarray(at, at + length);
      return compression ? unpacked(given, codec, frames, take) : given;
    });
    const rows = batch.length(0);
    if (rows > 64 * this.reader.size) throw new Error(`it claims ${rows} rows in ${this.reader.size} bytes`);
    const shape: BatchShape = {
      rows,
      nodes: batch
        .vector(1, 16)
        .map((place) => ({ length: lengthAt(view, place), nulls: Number(view.getBigInt64(place + 8, true)) })),
      variadic: batch.vector(4, 8).map((place) => lengthAt(view, place)),
      unionsHaveValidity: message.version < 4,
    };
    const budget = new Budget(bytes + 8 * rows * Math.max(1, shape.nodes.length));
    const read = new BatchColumns(shape, buffers, this.#dictionaries, budget, 8 * bytes + 1024);
    return { rows, columns: read.columns(fields), bytes };
  }
}

function rowOf(schema: Schema, columns: readonly Column[], row: number): unknown {
  const out: Record<string, unknown> = {};
  for (const [k, field] of schema.fields.entries()) put(out, field.name, columns[k]?.at(row));
  return out;
}

/** @throws {Error} what is wrong with the file · {DataError} row_group_too_large */
export async function* recordBatches(file: string, handle: FileHandle): AsyncGenerator<Batch, void, void> {
  const reader = new Reader(handle, (await handle.stat()).size);
  const isFile = MAGIC.equals(await reader.bytes(0, Math.min(MAGIC.length, reader.size)));
  const batches = new Batches(file, reader);
  for await (const message of isFile ? fileMessages(reader) : streamMessages(reader)) {
    if (message instanceof FlatTable) batches.schema(message);
    else {
      const batch = await batches.take(message);
      if (batch) yield batch;
    }
  }
}
