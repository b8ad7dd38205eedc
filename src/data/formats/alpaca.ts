// Instructions with their answers, as Alpaca and LLaMA-Factory keep them: {"instruction": "…", "input": "…",
// "output": "…"}.
import { z } from 'zod';
import { chatRow } from '../../harmony/chat.js';
import type { ChatMessage } from '../../harmony/chat-row.js';
import { type AsChat, viaChat } from './via-chat.js';

const { tools, reasoning_effort } = chatRow.shape;
const { thinking, reasoning, reasoning_content } = chatRow.shape.messages.element.shape;
const Row = z.strictObject({
  instruction: z.string().describe('what the user asks'),
  input: z.string().nullish().describe('what it is about: the next line of the same message'),
  output: z.string().describe('the answer, trained'),
  system: z.string().nullish().describe('system prompt'),
  history: z
    .array(z.array(z.string()).length(2))
    .nullish()
    .describe('turns before, each a question and its answer; the answers are trained too'),
  thinking,
  reasoning,
  reasoning_content,
  tools,
  reasoning_effort,
  text: z.string().nullish().describe('the row in the template of another trainer; not used'),
  id: z.union([z.string(), z.number()]).nullish().describe('not used'),
});
type Row = z.infer<typeof Row>;

function asChat(row: Row): AsChat {
  const messages: ChatMessage[] = [];
  const names: string[] = [];
  const add = (m: ChatMessage, name: string): void => {
    messages.push(m);
    names.push(name);
  };
  if (row.system) add({ role: 'system', content: row.system }, 'system');
  for (const [i, [question, answer]] of (row.history ?? []).entries()) {
    add({ role: 'user', content: question ?? '' }, `history[${i}][0]`);
    add({ role: 'assistant', content: answer ?? '' }, `history[${i}][1]`);
  }
  const asked = row.input?.trim() ? `${row.instruction}\n${row.input}` : row.instruction;
  add({ role: 'user', content: asked }, 'instruction');
  const { thinking: a, reasoning: b, reasoning_content: c } = row;
  add({ role: 'assistant', content: row.output, thinking: a, reasoning: b, reasoning_content: c }, 'output');
  return {
    row: { messages: messages as AsChat['row']['messages'], tools: row.tools, reasoning_effort: row.reasoning_effort },
    names,
  };
}

export const alpaca = viaChat<Row>(
  {
    name: 'alpaca',
    row: Row,
    recognise: (r) =>
      typeof r.instruction === 'string' && typeof r.output === 'string' ? 'instruction and output' : null,
  },
  asChat,
);
