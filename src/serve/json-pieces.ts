// Answers that are large (log-probabilities of thousands of tokens, lists of stored answers) are written a part at a
// time: whole they would hold every stream for as long.
import type { ApiRequest } from './api.js';
import { isLate, pause } from './turns.js';

/** UTF-16 units of a part. */
const PART = 1 << 14;
/** After so many of them, or of pieces, the clock is looked at: what they are made of may be much work. */
const LOOK = 1 << 10,
  LOOK_PIECES = 16;
/** Bytes that are written at once; larger answers leave in parts too. */
const WHOLE = 1 << 16;
/** A client that takes nothing of it for so long is given up, ms. */
const STALL_MS = 30_000;

/** A list whose entries are made when they are written. It is what JSON.stringify makes of it, too. */
export class LazyList {
  constructor(
    readonly entries: () => Iterable<unknown>,
    /** Each of its entries is written at once. */
    readonly small = true,
  ) {}
  static of<T>(list: readonly T[], entry: (of: T, index: number) => unknown, small = true): LazyList {
    return new LazyList(function* () {
      let index = 0;
      for (const of of list) yield entry(of, index++);
    }, small);
  }
  toJSON(): unknown {
    return [...this.entries()];
  }
}
/** Shorter lists are made at once. */
export const LONG = 32;
/** What is said of each of a list. @param each things that an entry has */
export const listOf = <T>(list: readonly T[], entry: (of: T) => unknown, each = 1): readonly unknown[] | LazyList =>
  list.length * each > LONG ? LazyList.of(list, entry) : list.map((of) => entry(of));
/** JSON that is there, as UTF-8. */
export class JsonBytes {
  readonly length: number;
  constructor(readonly pieces: readonly Uint8Array[]) {
    this.length = pieces.reduce((sum, { length }) => sum + length, 0);
  }
  /** In one piece. */
  get whole(): Buffer {
    const [only] = this.pieces;
    return this.pieces.length === 1 && only
      ? Buffer.from(only.buffer, only.byteOffset, only.length)
      : Buffer.concat(this.pieces, this.length);
  }
  get text(): string {
    return this.whole.toString();
  }
  /** What it says. */
  toJSON(): unknown {
    return JSON.parse(this.text);
  }
}

/** Whether its JSON is to be made a part at a time. */
export function isLarge(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  if (value instanceof LazyList || value instanceof JsonBytes) return true;
  const members = Array.isArray(value) ? value : Object.values(value);
  return members.length > LONG || members.some(isLarge);
}
/** As structuredClone has it of JSON; what is not made yet is shared. */
export function copyOf<T>(value: T): T {
  if (typeof value !== 'object' || value === null || value instanceof LazyList || value instanceof JsonBytes)
    return value;
  if (Array.isArray(value)) return value.map(copyOf) as T;
  return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, copyOf(v)])) as T;
}

type Written = Generator<string | Uint8Array, void, void>;
function* written(value: unknown): Written {
  if (value instanceof JsonBytes) yield* value.pieces;
  else if (value instanceof LazyList) yield* writtenList(value.entries(), value.small);
  else if (!isLarge(value)) yield JSON.stringify(value) ?? 'null';
  else if (Array.isArray(value)) yield* writtenList(value, false);
  else {
    let before = '{';
    for (const [key, member] of Object.entries(value as object)) {
      if (member === undefined) continue;
      yield `${before}${JSON.stringify(key)}:`;
      yield* written(member);
      before = ',';
    }
    yield before === '{' ? '{}' : '}';
  }
}
function* writtenList(entries: Iterable<unknown>, small: boolean): Written {
  let before = '[';
  for (const entry of entries) {
    yield before;
    if (small) yield JSON.stringify(entry);
    else yield* written(entry);
    before = ',';
  }
  yield before === '[' ? '[]' : ']';
}
const decoder = new TextDecoder();
/** When to look at the clock, while a part grows by pieces. */
class Look {
  #pieces = 0;
  #from = 0;
  /** @param length of the part, with the piece */
  isDue(length: number): boolean {
    return ++this.#pieces >= LOOK_PIECES || length - this.#from >= LOOK;
  }
  /** @param length of the part that goes on */
  async look(length: number): Promise<void> {
    this.#pieces = 0;
    this.#from = length;
    if (isLate()) await pause();
  }
}
/**
 * JSON of a value, a part at a time, with others' turns between: small pieces are joined, and what is there as bytes is
 * read as text.
 */
export async function* jsonParts(value: unknown): AsyncGenerator<string, void, void> {
  const clock = new Look();
  let part = '';
  for (const piece of written(value)) {
    part += typeof piece === 'string' ? piece : decoder.decode(piece);
    if (!clock.isDue(part.length)) continue;
    if (part.length >= PART) {
      yield part;
      part = '';
    }
    await clock.look(part.length);
  }
  yield part;
}
/** The whole of it: as bytes, since a text of many pieces would be put together at once when it is first looked at. */
export async function jsonOf(value: unknown): Promise<JsonBytes> {
  if (value instanceof JsonBytes) return value;
  const clock = new Look(),
    pieces: Uint8Array[] = [];
  let part = '';
  const flush = (): void => {
    if (part !== '') pieces.push(Buffer.from(part));
    part = '';
  };
  for (const piece of written(value)) {
    if (typeof piece === 'string') {
      part += piece;
      if (!clock.isDue(part.length)) continue;
      if (part.length >= PART) flush();
    } else {
      flush();
      pieces.push(piece);
    }
    await clock.look(part.length);
  }
  flush();
  return new JsonBytes(pieces);
}

/** An answer of status 200 that may be large. */
export async function answerJson(c: ApiRequest, value: unknown): Promise<Response> {
  const json = await jsonOf(value);
  const headers = { 'content-type': 'application/json', 'content-length': String(json.length) };
  if (json.length <= WHOLE) return c.body(json.whole as Uint8Array<ArrayBuffer>, 200, headers);
  const left = windows(json);
  let stall: NodeJS.Timeout | undefined;
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      clearTimeout(stall);
      await pause();
      const { done, value: next } = left.next();
      if (done) {
        controller.close();
        return;
      }
      controller.enqueue(next);
      stall = setTimeout(() => controller.error(new DOMException('the client takes nothing', 'AbortError')), STALL_MS);
    },
    cancel: () => clearTimeout(stall),
  });
  return c.body(body, 200, headers);
}
/** No piece is larger than what is written at once. */
function* windows({ pieces }: JsonBytes): Generator<Uint8Array, void, void> {
  for (const piece of pieces)
    for (let at = 0; at < piece.length; at += WHOLE) yield piece.subarray(at, Math.min(piece.length, at + WHOLE));
}
