// The messages of an Arrow file or stream in order, each with its body, nothing of it believed: a length that leaves
// the file is an error, and the parts of a file are read once.
import type { FileHandle } from 'node:fs/promises';
import { FlatTable, lengthAt } from './flatbuffer.js';

export const MAGIC = Buffer.from('ARROW1');
const CONTINUATION = 0xffffffff;
/** Bytes of a message's metadata, and of a body: one is held at a time. */
const MAX_METADATA = 64 * 2 ** 20;
export const MAX_BODY = 512 * 2 ** 20;

/** Header types of a message. */
export const HEADER = { schema: 1, dictionary: 2, batch: 3 } as const;

export interface Message {
  readonly kind: number;
  /** Metadata version, from 0; 4 is V5. */
  readonly version: number;
  readonly header: FlatTable;
  readonly bodyAt: number;
  readonly bodyBytes: number;
}

export class Reader {
  constructor(
    readonly handle: FileHandle,
    readonly size: number,
  ) {}
  async bytes(at: number, length: number): Promise<Buffer> {
    if (at < 0 || length < 0 || at + length > this.size)
      throw new Error('a part of it lies past its end, it was cut off');
    const out = Buffer.alloc(length);
    for (let got = 0; got < length; ) {
      const { bytesRead } = await this.handle.read(out, got, length - got, at + got);
      if (bytesRead === 0) throw new Error('it became shorter while it was read');
      got += bytesRead;
    }
    return out;
  }

  /** The message at a place; null: the mark that ends a stream. @param most bytes of its metadata and length */
  async message(at: number, most = MAX_METADATA): Promise<Message | null> {
    const head = await this.bytes(at, Math.min(8, this.size - at));
    if (head.length < 4) throw new Error('the stream does not end in its end mark, it was cut off');
    const continued = head.readUInt32LE(0) === CONTINUATION;
    if (continued && head.length < 8) throw new Error('the stream does not end in its end mark, it was cut off');
    const length = head.readInt32LE(continued ? 4 : 0);
    if (length === 0) return null;
    if (length < 0 || length > most) throw new Error(`a message has ${length} bytes of metadata`);
    const from = at + (continued ? 8 : 4);
    const table = FlatTable.root(await this.bytes(from, length));
    const header = table.table(2);
    if (!header) throw new Error('a message says nothing');
    const bodyBytes = table.length(3);
    if (from + length + bodyBytes > this.size) throw new Error('a body lies past its end, it was cut off');
    return { kind: table.u8(1), version: table.i16(0), header, bodyAt: from + length, bodyBytes };
  }
}

/** @throws {Error} a stream without end */
export async function* streamMessages(reader: Reader): AsyncGenerator<Message, void, void> {
  for (let at = 0; ; ) {
    const message = await reader.message(at);
    if (!message) return;
    yield message;
    at = message.bodyAt + message.bodyBytes;
  }
}

/** The schema of its footer, then dictionaries and batches by their places there. */
export async function* fileMessages(reader: Reader): AsyncGenerator<Message | FlatTable, void, void> {
  const tail = await reader.bytes(Math.max(0, reader.size - 10), 10);
  if (!MAGIC.equals(tail.subarray(4))) throw new Error('it does not end as an Arrow file does, it was cut off');
  const bytes = tail.readInt32LE(0);
  if (bytes <= 0 || bytes > MAX_METADATA) throw new Error(`its footer has ${bytes} bytes`);
  const footer = FlatTable.root(await reader.bytes(reader.size - 10 - bytes, bytes));
  const schema = footer.table(1);
  if (!schema) throw new Error('its footer has no schema');
  yield schema;
  let read = 0;
  for (const field of [2, 3])
    for (const place of footer.vector(field, 24)) {
      const at = lengthAt(footer.view, place);
      const message = await reader.message(at);
      if (!message) throw new Error('a batch of its footer is not there');
      // Each part once: a footer of many places that are one would be rows without end.
      read += message.bodyAt + message.bodyBytes - at;
      if (read > reader.size) throw new Error('its batches are more than the file');
      if (message.kind !== (field === 2 ? HEADER.dictionary : HEADER.batch))
        throw new Error('a batch of its footer is something else');
      yield message;
    }
}
