// Conversations as ShareGPT, Vicuna, LLaMA-Factory and Axolotl keep them: {"conversations": [{"from": "human",
// "value": "…"}, {"from": "gpt", "value": "…"}]}, with function_call and observation for tools.
import { z } from 'zod';
import { DataError } from '../../base/errors.js';
import { parseJson } from '../../base/json.js';
import { type ChatRow, chatRow } from '../../harmony/chat.js';
import type { ChatMessage } from '../../harmony/chat-row.js';
import { type AsChat, viaChat } from './via-chat.js';

const { thinking, reasoning, reasoning_content, weight } = chatRow.shape.messages.element.shape;
const { tools, reasoning_effort } = chatRow.shape;
const Turn = z.strictObject({
  from: z
    .string()
    .nullish()
    .describe(
      'system, human (user), gpt (assistant, chatgpt, model), function_call, observation (tool, function_response)',
    ),
  role: z.string().nullish().describe('the same as from'),
  value: z.string().nullish().describe('text; of function_call: {"name", "arguments"} as JSON text, or a list of them'),
  content: z.string().nullish().describe('the same as value'),
  thinking,
  reasoning,
  reasoning_content,
  weight,
  train: z.boolean().nullish().describe('gpt: false keeps the turn as history, as weight 0'),
  name: z.string().nullish().describe('observation: the function that answered'),
});
const Turns = z.array(Turn).min(1);
const Row = z.strictObject({
  conversations: Turns.optional().describe('the turns; every gpt and function_call turn is trained'),
  conversation: Turns.optional().describe('the same'),
  system: z.string().nullish().describe('system prompt, where it is no turn'),
  tools,
  reasoning_effort,
  id: z.union([z.string(), z.number()]).nullish().describe('not used'),
});
type Row = z.infer<typeof Row>;
type Turn = z.infer<typeof Turn>;

const ROLES: Readonly<Record<string, ChatMessage['role'] | 'function_call'>> = {
  system: 'system',
  developer: 'developer',
  human: 'user',
  user: 'user',
  prompter: 'user',
  gpt: 'assistant',
  assistant: 'assistant',
  chatgpt: 'assistant',
  bot: 'assistant',
  model: 'assistant',
  bing: 'assistant',
  bard: 'assistant',
  function_call: 'function_call',
  'function-call': 'function_call',
  tool_call: 'function_call',
  observation: 'tool',
  tool: 'tool',
  tool_response: 'tool',
  function_response: 'tool',
  'function-response': 'tool',
};

const fail = (message: string): never => {
  throw new DataError('bad_sharegpt', message);
};

/** One of two names for a thing. */
function either(turn: Turn, a: 'from' | 'value', b: 'role' | 'content', where: string): string {
  const [x, y] = [turn[a], turn[b]];
  if (typeof x === 'string' && typeof y === 'string' && x !== y)
    fail(`${where}: ${a} and ${b} differ; give one of them`);
  return x ?? y ?? fail(`${where}: has neither ${a} nor ${b}`);
}

/** The calls that a turn's JSON text says. */
function callsOf(text: string, where: string): NonNullable<ChatMessage['tool_calls']> {
  let value: unknown;
  try {
    value = parseJson(text);
  } catch (e) {
    fail(`${where}: a function_call that is not JSON: ${(e as Error).message.slice(0, 100)}`);
  }
  const calls = Array.isArray(value) ? value : [value];
  if (calls.length === 0) fail(`${where}: a function_call without a call`);
  return calls.map((call: unknown) => {
    const { name, arguments: args, parameters, ...more } = (call ?? {}) as Record<string, unknown>;
    const given = args ?? parameters ?? {};
    if (typeof name !== 'string' || Object.keys(more).length > 0 || (typeof given !== 'string' && !isObject(given)))
      return fail(`${where}: a function_call wants {"name": "…", "arguments": {…}} as its text`);
    return { function: { name, arguments: given as string | Record<string, unknown> } };
  });
}
const isObject = (v: unknown): boolean => typeof v === 'object' && v !== null && !Array.isArray(v);

function asChat(row: Row): AsChat {
  const field = row.conversations ? 'conversations' : 'conversation';
  const turns = row.conversations ?? row.conversation;
  if (!turns || (row.conversations && row.conversation)) return fail('wanted conversations, once');
  const messages: ChatRow['messages'] = [];
  const names: string[] = [];
  const add = (m: ChatMessage, name: string): void => {
    messages.push(m);
    names.push(name);
  };
  if (row.system) add({ role: 'system', content: row.system }, 'system');
  for (const [i, turn] of turns.entries()) {
    const where = `${field}[${i}]`;
    const from = either(turn, 'from', 'role', where);
    const role = ROLES[from.toLowerCase()];
    if (!role || !Object.hasOwn(ROLES, from.toLowerCase()))
      throw new DataError(
        'unknown_role',
        `${where}: from ${JSON.stringify(from)} is not known; wanted system, human, gpt, function_call or observation`,
        { role: from },
      );
    const text = either(turn, 'value', 'content', where);
    const { name, train } = turn;
    if (/<\/?tool_(call|response)>/.test(text))
      fail(`${where}: calls are written into the text as <tool_call>; give them as turns from function_call`);
    const untrained = train === false || turn.weight === 0 ? { weight: 0 as const } : {};
    const { thinking: a, reasoning: b, reasoning_content: c } = turn;
    const thoughts = { thinking: a, reasoning: b, reasoning_content: c };
    if (role !== 'function_call') {
      add({ role, content: text, ...thoughts, ...(name ? { name } : {}), ...untrained }, where);
      continue;
    }
    const calls = callsOf(text, where);
    const before = messages.at(-1);
    // A text that a call follows at once is said before it, in the same message.
    if (before?.role === 'assistant' && !before.tool_calls && before.weight === untrained.weight && !a && !b && !c)
      messages[messages.length - 1] = { ...before, tool_calls: calls };
    else add({ role: 'assistant', ...thoughts, tool_calls: calls, ...untrained }, where);
  }
  return { row: { messages, tools: row.tools, reasoning_effort: row.reasoning_effort }, names };
}

export const sharegpt = viaChat<Row>(
  {
    name: 'sharegpt',
    row: Row,
    recognise: (r) => (['conversations', 'conversation'] as const).find((k) => Array.isArray(r[k])) ?? null,
  },
  asChat,
);
