// A conversation that is rendered already, as apply_chat_template writes it: {"text": "<|start|>system<|message|>…"}.
// Control tokens written in the text become control tokens, all else is kept to the letter. Trained is what the
// assistant must write, as for `chat` (trainingExamples in src/harmony/render.ts).
import { z } from 'zod';
import { DataError } from '../../base/errors.js';
import { readHeader } from '../../harmony/header.js';
import { beginning, controlIds } from '../../harmony/render.js';
import type { Message, Tokenizer } from '../../harmony/types.js';
import { CHANNELS } from '../example.js';
import type { Format } from '../format.js';
import { RENDERED } from '../markup.js';

const Row = z.strictObject({
  text: z.string().min(1).describe('a whole conversation, control tokens by name, ended by <|return|> or <|call|>'),
});
const TOKENS = /(<\|(?:start|end|message|channel|constrain|return|call|endoftext)\|>)/;

const fail = (message: string): never => {
  throw new DataError('bad_harmony', message);
};

/** One message as pieces of text and control tokens in turn, from <|start|> to what ends it. */
interface Piece {
  readonly header: Omit<Message, 'content'>;
  /** Pieces of `<|start|>` and the author, which the model writes only where it goes on by itself. */
  readonly author: number;
  readonly pieces: readonly string[];
  readonly end: string;
}

/** @throws {DataError} bad_harmony: not messages from start to end */
function messagesOf(text: string): Piece[] {
  const parts = text.split(TOKENS).filter((p) => p !== '');
  const out: Piece[] = [];
  for (let at = 0; at < parts.length; ) {
    const where = `text, message ${out.length}`;
    if (parts[at] !== '<|start|>')
      fail(`${where}: begins with ${JSON.stringify(parts[at]?.slice(0, 40))}, wanted <|start|>`);
    const body = parts.indexOf('<|message|>', at);
    const next = parts.indexOf('<|start|>', at + 1);
    if (body < 0 || (next >= 0 && next < body)) fail(`${where}: a header without <|message|>`);
    const named = { role: '', channel: null as string | null, constrain: null as string | null };
    let part: 'role' | 'channel' | 'constrain' = 'role';
    for (const p of parts.slice(at + 1, body)) {
      if (p === '<|channel|>' || p === '<|constrain|>') {
        part = p === '<|channel|>' ? 'channel' : 'constrain';
        named[part] = '';
      } else if (TOKENS.test(p)) fail(`${where}: ${p} in a header`);
      else named[part] = (named[part] ?? '') + p;
    }
    if (named.role.trim() === '') fail(`${where}: no role after <|start|>`);
    let end = body + 1;
    if (!TOKENS.test(parts[end] ?? '')) end++;
    const mark = parts[end] ?? '';
    if (!['<|end|>', '<|call|>', '<|return|>'].includes(mark))
      fail(`${where}: ${mark === '' ? 'is cut off' : `goes on with ${mark}`}, wanted <|end|>, <|call|> or <|return|>`);
    const header = readHeader(named, 'start', []);
    // The recipient after a role is the model's to write, the role is not.
    const to = parts[at + 1]?.indexOf(' to=') ?? -1;
    const author = to > 0 ? [parts[at + 1]!.slice(0, to), parts[at + 1]!.slice(to)] : [parts[at + 1]!];
    if (
      header.role === 'assistant' &&
      header.channel !== undefined &&
      !CHANNELS.slice(1).includes(header.channel as never)
    )
      fail(`${where}: channel ${JSON.stringify(header.channel)}, wanted analysis, commentary or final`);
    out.push({ header, author: 2, pieces: ['<|start|>', ...author, ...parts.slice(at + 2, end + 1)], end: mark });
    at = end + 1;
  }
  return out;
}

interface Writer {
  readonly tokens: number[];
  readonly weights: number[];
  readonly channels: number[];
}

function write(
  out: Writer,
  message: Piece,
  { tokenizer, weight, goesOn, most }: { tokenizer: Tokenizer; weight: number; goesOn: boolean; most: number },
): void {
  const { header, pieces, end } = message;
  const channel = header.channel === 'analysis' || header.channel === 'commentary' ? header.channel : 'final';
  for (const [i, piece] of pieces.entries()) {
    const id = TOKENS.test(piece) ? tokenizer.special[piece] : undefined;
    const ids = id === undefined ? tokenizer.encode(beginning(piece, most, tokenizer)) : [id];
    const last = i === pieces.length - 1;
    // An earlier final ends in <|end|> in history; the model must write <|return|> there.
    const trained = (i >= message.author || goesOn) && !(last && channel === 'final' && end === '<|end|>') ? weight : 0;
    for (const token of ids) {
      out.tokens.push(token);
      out.weights.push(trained);
      out.channels.push(trained > 0 ? CHANNELS.indexOf(channel) : 0);
    }
  }
}

export const harmony: Format<z.infer<typeof Row>> = {
  name: 'harmony',
  row: Row,
  recognise: (r) => (typeof r.text === 'string' && RENDERED.test(r.text) ? 'text with control tokens' : null),
  check(row) {
    if (!TOKENS.test(row.text)) fail('text: has no control token; plain text is format text');
    messagesOf(row.text);
  },
  toExamples(row, context) {
    const tokenizer = context.tokenizer();
    controlIds(tokenizer); // all of them are there
    if (!TOKENS.test(row.text)) fail('text: has no control token; plain text is format text');
    const messages = messagesOf(row.text);
    const out: Writer = { tokens: [], weights: [], channels: [] };
    let goesOn = false;
    for (const m of messages) {
      const { channel } = m.header;
      const known = channel === 'analysis' || channel === 'commentary' ? channel : 'final';
      const weight = m.header.role === 'assistant' ? context.loss[known] : 0;
      if (out.tokens.length <= context.maxTokens) write(out, m, { tokenizer, weight, goesOn, most: context.maxTokens });
      goesOn = m.header.role === 'assistant' && m.end === '<|end|>' && known !== 'final';
    }
    return [
      {
        tokens: Int32Array.from(out.tokens),
        weights: Float32Array.from(out.weights),
        channels: Uint8Array.from(out.channels),
      },
    ];
  },
};
