// Pairs of answers to one prompt, the better one and the worse one: {"prompt": …, "chosen": …, "rejected": …}, each
// text or messages as in `chat`. Without a prompt, chosen and rejected are whole conversations that differ in their
// last message. Only the answers are trained.
import { z } from 'zod';
import { DataError } from '../../base/errors.js';
import { jsonText } from '../../base/json.js';
import { type ChatRow, chatRow } from '../../harmony/chat.js';
import { type Renderable, trainingExamples } from '../../harmony/render.js';
import type { Format, FormatContext, RowExample } from '../format.js';
import { conversationOf, weighted } from './chat.js';

const { messages, tools, reasoning_effort } = chatRow.shape;
const Side = z.union([z.string(), messages]);
const Row = z.strictObject({
  prompt: Side.optional().describe('text of a user, or messages as in `chat`; absent: in chosen and rejected'),
  chosen: Side.describe('the better answer: text, or messages as in `chat`'),
  rejected: Side.describe('the worse answer, the same'),
  tools,
  reasoning_effort,
});
type Row = z.infer<typeof Row>;
type Messages = ChatRow['messages'];

/** The conversation up to and with one answer. */
function withAnswer(row: Row, side: 'chosen' | 'rejected'): ChatRow {
  const answer: Messages = typeof row[side] === 'string' ? [{ role: 'assistant', content: row[side] }] : row[side];
  const prompt: Messages =
    typeof row.prompt === 'string' ? [{ role: 'user', content: row.prompt }] : (row.prompt ?? answer.slice(0, -1));
  const own = row.prompt === undefined ? answer.slice(-1) : answer;
  if (own.length !== 1 || own[0]?.role !== 'assistant')
    throw new DataError(
      'bad_preference',
      `${side}: got ${own.map((m) => m.role).join(', ') || 'nothing'} after the prompt, wanted one assistant message`,
    );
  if (prompt.length === 0)
    throw new DataError('bad_preference', `${side}: has no prompt; give "prompt", or the messages before the answer`);
  return { messages: [...prompt, ...own], tools: row.tools, reasoning_effort: row.reasoning_effort };
}

function example(row: ChatRow, context: FormatContext): RowExample {
  const conversation = conversationOf(row, context);
  const answerFrom = conversation.messages.findLastIndex((m) => m.role !== 'assistant') + 1;
  let last: Renderable | undefined;
  for (const one of trainingExamples(conversation, context.tokenizer(), context.maxTokens)) last = one;
  if (!last) throw new DataError('bad_preference', 'the answer is empty');
  // Earlier turns may share the last one's example: they are the prompt here.
  return weighted(last, conversation, context, answerFrom);
}

/** Both conversations. @throws {DataError} bad_preference: not one prompt, or nothing to prefer */
function sides(row: Row): readonly [ChatRow, ChatRow] {
  const [chosen, rejected] = [withAnswer(row, 'chosen'), withAnswer(row, 'rejected')];
  if (jsonText(chosen.messages.slice(0, -1)) !== jsonText(rejected.messages.slice(0, -1)))
    throw new DataError('bad_preference', 'chosen and rejected differ before their last message: not one prompt');
  if (jsonText(chosen) === jsonText(rejected))
    throw new DataError('bad_preference', 'chosen and rejected are the same: nothing to prefer');
  return [chosen, rejected];
}

export const preference: Format<Row> = {
  name: 'preference',
  row: Row,
  examplesPerSample: 2,
  recognise: (r) => ('chosen' in r && 'rejected' in r ? 'chosen and rejected' : null),
  check(row, context) {
    for (const one of sides(row)) conversationOf(one, context);
  },
  toExamples(row, context) {
    return sides(row).map((side) => example(side, context));
  },
};
