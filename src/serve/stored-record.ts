// The form that an answer is kept in: a response is one JSON text, a chat completion three lines, so that to list many
// nobody reads what they say. It stays in the pieces that it was made in: to put megabytes together holds the thread.
import { JsonBytes, jsonOf } from './json-pieces.js';
import type { StoredAnswer, StoredChat, StoredResponse } from './response-store.js';

const LINE = Buffer.from('\n');

/** JSON has no line breaks of its own. */
export async function recordOf(answer: StoredAnswer): Promise<JsonBytes> {
  if (!('completion' in answer)) return jsonOf(answer);
  const { completion, messages, ...head } = answer;
  return new JsonBytes([Buffer.from(JSON.stringify(head)), LINE, ...completion.pieces, LINE, ...messages.pieces]);
}
function linesOf({ pieces }: JsonBytes): readonly JsonBytes[] {
  const lines: Uint8Array[][] = [[]];
  for (const piece of pieces) {
    let from = 0;
    for (let to = piece.indexOf(10); to >= 0; to = piece.indexOf(10, from)) {
      lines.at(-1)?.push(piece.subarray(from, to));
      lines.push([]);
      from = to + 1;
    }
    lines.at(-1)?.push(piece.subarray(from));
  }
  return lines.map((of) => new JsonBytes(of.filter(({ length }) => length > 0)));
}
const isObject = (v: unknown): v is Record<string, unknown> => typeof v === 'object' && v !== null && !Array.isArray(v);
const endsWith = ({ pieces }: JsonBytes, end: string): boolean => pieces.at(-1)?.at(-1) === end.charCodeAt(0);

/**
 * @param parse as the record's place is trusted; default: this server wrote it
 * @throws what is no such record, or was cut short
 */
export function answerOf(record: JsonBytes, parse = (text: string): unknown => JSON.parse(text)): StoredAnswer {
  const [head, completion, messages, ...more] = linesOf(record);
  const first = parse(head?.text ?? '');
  if (isObject(first) && typeof first.id === 'string' && (first.owner === null || typeof first.owner === 'string')) {
    const { model, metadata, response, input, history } = first;
    if (!completion && isObject(response) && Array.isArray(input) && Array.isArray(history))
      return first as unknown as StoredResponse;
    // What these say is read by who asks for it, if at all.
    const whole = completion && messages && more.length === 0 && endsWith(completion, '}') && endsWith(messages, ']');
    if (whole && typeof model === 'string' && isObject(metadata))
      return { ...(first as unknown as Omit<StoredChat, 'completion' | 'messages'>), completion, messages };
  }
  throw new SyntaxError('no record of an answer');
}
