// What the assistant wrote in a message of a row, as clients dump conversations: answers, refusals, reasoning, tool
// calls, annotations. What others sent is passed over.
import { z } from 'zod';
import type { Message } from '../../harmony/types.js';

const TextPart = z.union([
  z.strictObject({
    type: z.enum(['text', 'output_text', 'input_text']),
    text: z.string(),
    annotations: z.array(z.unknown()).nullish(),
    logprobs: z.array(z.unknown()).nullish(),
  }),
  z.strictObject({ type: z.literal('refusal'), refusal: z.string() }),
]);
/** Fields of any message, null where a client writes "absent". */
const fields = {
  channel: z.string().nullish(),
  thinking: z.string().nullish(),
  reasoning: z.string().nullish(),
  reasoning_content: z.string().nullish(),
  refusal: z.string().nullish(),
  tool_calls: z.array(z.looseObject({})).nullish(),
  name: z.string().nullish(),
  tool_call_id: z.string().nullish(),
  annotations: z.array(z.unknown()).nullish(),
  function_call: z.looseObject({}).nullish(),
  audio: z.null({ error: 'sound cannot be judged' }).optional(),
  weight: z.number().nullish(),
};
export const RowMessage = z.discriminatedUnion('role', [
  z.strictObject({
    ...fields,
    role: z.literal('assistant'),
    content: z.union([z.string(), z.array(TextPart)]).nullish(),
  }),
  // Of others nothing is judged, pictures and sound included.
  z.strictObject({
    ...fields,
    role: z.enum(['system', 'developer', 'user', 'tool']),
    content: z.union([z.string(), z.array(z.looseObject({ type: z.string() }))]).nullish(),
  }),
]);

/** A tool call as servers write them; one of any other shape is judged as the JSON that it is. */
const ToolCall = z.strictObject({
  id: z
    .string()
    .regex(/^[A-Za-z0-9_-]{1,64}$/)
    .nullish(),
  type: z.literal('function').nullish(),
  index: z.int().nullish(),
  function: z.strictObject({ name: z.string(), arguments: z.string() }),
});

type Part = z.infer<typeof TextPart>;
const textOfPart = (part: Part): string => (part.type === 'refusal' ? part.refusal : part.text);
const annotationsOf = (part: Part): readonly unknown[] => (part.type === 'refusal' ? [] : (part.annotations ?? []));

/** What the assistant wrote in a message of a row, as harmony has it: analysis, answer, refusal, tool calls. */
export function written(m: z.infer<typeof RowMessage>): Message[] {
  if (m.role !== 'assistant') return [];
  const name = typeof m.name === 'string' ? { name: m.name } : {};
  const say = (channel: string, content: string | null | undefined): Message[] =>
    content ? [{ role: 'assistant', channel, content, ...name }] : [];
  return [
    ...[m.thinking, m.reasoning, m.reasoning_content].flatMap((text) => say('analysis', text)),
    ...say(m.channel ?? 'final', typeof m.content === 'string' ? m.content : m.content?.map(textOfPart).join('')),
    ...say('final', m.refusal),
    // Titles and addresses that the answer carries, and a call of the old form.
    ...[...(m.annotations ?? []), ...(Array.isArray(m.content) ? m.content.flatMap(annotationsOf) : [])].flatMap(
      (value) => say('annotations', JSON.stringify(value)),
    ),
    ...(m.function_call ? say('commentary', JSON.stringify(m.function_call)) : []),
    ...(m.tool_calls ?? []).flatMap((value): Message[] => {
      const call = ToolCall.safeParse(value).data?.function;
      return call
        ? [{ role: 'assistant', channel: 'commentary', recipient: `functions.${call.name}`, content: call.arguments }]
        : say('commentary', JSON.stringify(value));
    }),
  ];
}
