// A prompt and what follows it, as TRL has them: {"prompt": …, "completion": …}, both messages as in `chat`, or both
// text. Of messages the answers of the completion are trained. Text is continued as it stands, with no conversation
// around it: prompt, completion, <|return|>; the completion and its end are trained.
import { z } from 'zod';
import { DataError } from '../../base/errors.js';
import { type ChatRow, chatRow } from '../../harmony/chat.js';
import { beginning } from '../../harmony/render.js';
import { CHANNELS } from '../example.js';
import type { Format, FormatContext, RowExample } from '../format.js';
import { checkPlainText } from '../markup.js';
import { viaChat } from './via-chat.js';

const { messages, tools, reasoning_effort } = chatRow.shape;
const Side = z.union([z.string(), messages]);
const Row = z.strictObject({
  prompt: Side.describe('text, or messages as in `chat`; not trained'),
  completion: Side.describe('what follows: text, or messages whose answers are trained'),
  tools,
  reasoning_effort,
});
type Row = z.infer<typeof Row>;

const fail = (message: string): never => {
  throw new DataError('bad_completion', message);
};

/** @throws {DataError} bad_completion */
function textsOf(row: Row): { readonly prompt: string; readonly completion: string } | null {
  const { prompt, completion } = row;
  if (typeof prompt !== typeof completion)
    fail('prompt and completion: one is text, the other messages; give both alike');
  if (typeof prompt !== 'string' || typeof completion !== 'string') return null;
  if (completion === '') fail('completion: is empty, nothing would be trained');
  if ((row.tools?.length ?? 0) > 0 || row.reasoning_effort)
    fail('tools and reasoning_effort have no meaning beside text; give prompt and completion as messages');
  return { prompt, completion };
}

function chatOf(row: Row): { readonly row: ChatRow; readonly names: readonly string[] } {
  const prompt = row.prompt as ChatRow['messages'];
  const completion = row.completion as ChatRow['messages'];
  if (!completion.some((m) => m.role === 'assistant' && m.weight !== 0)) fail('completion: has no answer to train');
  return {
    row: {
      messages: [...prompt.map((m) => (m.role === 'assistant' ? { ...m, weight: 0 as const } : m)), ...completion],
      tools: row.tools,
      reasoning_effort: row.reasoning_effort,
    },
    names: [...prompt.map((_, i) => `prompt[${i}]`), ...completion.map((_, i) => `completion[${i}]`)],
  };
}
const conversation = viaChat<Row>({ name: 'completion', row: Row }, chatOf);

function textExample(texts: { prompt: string; completion: string }, context: FormatContext): RowExample {
  const tokenizer = context.tokenizer();
  const end = tokenizer.special['<|return|>'];
  if (end === undefined)
    throw new DataError(
      'no_end_of_text',
      'the tokenizer has no <|return|>, which ends a completion; use the tokenizer.json released with gpt-oss',
    );
  const prompt = tokenizer.encode(beginning(texts.prompt, context.maxTokens, tokenizer));
  const completion = tokenizer.encode(beginning(texts.completion, context.maxTokens, tokenizer));
  const tokens = new Int32Array(prompt.length + completion.length + 1);
  tokens.set(prompt);
  tokens.set(completion, prompt.length);
  tokens[tokens.length - 1] = end;
  const final = CHANNELS.indexOf('final');
  return {
    tokens,
    weights: Float32Array.from(tokens, (_, i) => (i >= prompt.length ? context.loss.final : 0)),
    channels: Uint8Array.from(tokens, (_, i) => (i >= prompt.length ? final : 0)),
  };
}

export const completion: Format<Row> = {
  ...conversation,
  recognise: (r) => ('prompt' in r && 'completion' in r ? 'prompt and completion' : null),
  toExamples(row, context) {
    const texts = textsOf(row);
    if (!texts) return conversation.toExamples(row, context);
    checkPlainText(texts.completion, context, 'completion');
    context.note('completion_as_text');
    return [textExample(texts, context)];
  },
  check(row, context) {
    const texts = textsOf(row);
    if (!texts) {
      conversation.check?.(row, context);
      return;
    }
    checkPlainText(texts.completion, context, 'completion');
    context.note('completion_as_text');
  },
  toChat(row) {
    return textsOf(row) ? fail('prompt and completion are text, which is no conversation') : chatOf(row).row;
  },
  toPrompts: (row) => (textsOf(row) ? [] : (conversation.toPrompts?.(row) ?? [])),
};
