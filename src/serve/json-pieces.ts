// Answers that are large (log-probabilities of thousands of tokens, lists of stored answers) are written a part at a
// time: whole they would hold every stream for as long.
import type { ApiRequest } from './api.js';
import { pause } from './turns.js';

/** UTF-16 units of a part. */
const PART = 1 << 14;
/** Larger ones leave in parts too. */
const WHOLE = 1 << 18;
/** A client that takes nothing of it for so long is given up, ms. */
const STALL_MS = 30_000;

/** A list whose entries are made when they are written. It is what JSON.stringify makes of it, too. */
export class LazyList {
  constructor(readonly entries: () => Iterable<unknown>) {}
  static of<T>(list: readonly T[], entry: (of: T) => unknown): LazyList {
    return new LazyList(function* () {
      for (const of of list) yield entry(of);
    });
  }
  toJSON(): unknown {
    return [...this.entries()];
  }
}
/** Shorter lists are made at once. */
export const LONG = 32;
/** What is said of each of a list. */
export const listOf = <T>(list: readonly T[], entry: (of: T) => unknown): readonly unknown[] | LazyList =>
  list.length > LONG ? LazyList.of(list, entry) : list.map(entry);
/** JSON that is there as text. */
export class JsonText {
  constructor(readonly text: string) {}
  toJSON(): unknown {
    return JSON.parse(this.text);
  }
}

/** Whether its JSON is to be made a part at a time. */
export function isLarge(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  if (value instanceof LazyList || value instanceof JsonText) return true;
  if (Array.isArray(value)) return value.length > LONG || value.some(isLarge);
  return Object.values(value).some(isLarge);
}
/** As structuredClone has it of JSON; what is not made yet is shared. */
export function copyOf<T>(value: T): T {
  if (typeof value !== 'object' || value === null || value instanceof LazyList || value instanceof JsonText)
    return value;
  if (Array.isArray(value)) return value.map(copyOf) as T;
  return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, copyOf(v)])) as T;
}

function* written(value: unknown): Generator<string, void, void> {
  if (value instanceof JsonText) yield value.text;
  else if (Array.isArray(value) || value instanceof LazyList) {
    let before = '[';
    for (const entry of Array.isArray(value) ? value : value.entries()) {
      yield before;
      // Entries are small, but for lists of what is large itself.
      if (value instanceof LazyList) yield JSON.stringify(entry);
      else yield* written(entry);
      before = ',';
    }
    yield before === '[' ? '[]' : ']';
  } else if (typeof value === 'object' && value !== null) {
    let before = '{';
    for (const [key, member] of Object.entries(value)) {
      if (member === undefined) continue;
      yield `${before}${JSON.stringify(key)}:`;
      yield* written(member);
      before = ',';
    }
    yield before === '{' ? '{}' : '}';
  } else yield JSON.stringify(value) ?? 'null';
}
/** Joins small pieces. */
function* parts(value: unknown): Generator<string, void, void> {
  let part = '';
  for (const piece of written(value)) {
    part += piece;
    if (part.length < PART) continue;
    yield part;
    part = '';
  }
  yield part;
}

/** JSON of a value, a part at a time, with others' turns between. */
export async function* jsonParts(value: unknown): AsyncGenerator<string, void, void> {
  for (const part of parts(value)) {
    yield part;
    await pause();
  }
}
export async function jsonOfLarge(value: unknown): Promise<string> {
  let text = '';
  for await (const part of jsonParts(value)) text += part;
  return text;
}

const encoder = new TextEncoder();
/** An answer of status 200 that may be large. */
export async function answerJson(c: ApiRequest, value: unknown): Promise<Response> {
  const text = await jsonOfLarge(value);
  const headers = { 'content-type': 'application/json' };
  if (text.length <= WHOLE) return c.body(text, 200, headers);
  let at = 0,
    stall: NodeJS.Timeout | undefined;
  const body = new ReadableStream<Uint8Array>({
    pull(controller) {
      clearTimeout(stall);
      if (at >= text.length) {
        controller.close();
        return;
      }
      let to = Math.min(text.length, at + WHOLE);
      // Not between the halves of a character.
      if (to < text.length && (text.charCodeAt(to) & 0xfc00) === 0xdc00) to++;
      controller.enqueue(encoder.encode(text.slice(at, to)));
      at = to;
      stall = setTimeout(() => controller.error(new DOMException('the client takes nothing', 'AbortError')), STALL_MS);
    },
    cancel: () => clearTimeout(stall),
  });
  return c.body(body, 200, headers);
}
