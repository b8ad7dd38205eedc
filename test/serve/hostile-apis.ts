// Bodies of each API that are good but for one to three places.
import fc from 'fast-check';
import { AnthropicError, OpenAiError } from './shapes.js';

type Json = unknown;
const parameters = {
  type: 'object',
  properties: { at: { type: 'string', enum: ['a', 'b'], description: 'where' }, n: { type: ['integer', 'null'] } },
  required: ['at'],
};
const bodies = (model: string): Readonly<Record<string, Json>> => ({
  '/v1/chat/completions': {
    model,
    messages: [
      { role: 'system', content: 'Be brief.' },
      { role: 'user', content: [{ type: 'text', text: 'hi' }] },
      {
        role: 'assistant',
        reasoning: 'x',
        tool_calls: [{ id: 'c', type: 'function', function: { name: 'look', arguments: '{}' } }],
      },
      { role: 'tool', tool_call_id: 'c', content: '12' },
    ],
    tools: [{ type: 'function', function: { name: 'look', description: 'Looks.', parameters } }],
    temperature: 1,
    seed: 1,
    max_completion_tokens: 4,
  },
  '/v1/responses': {
    model,
    instructions: 'Be brief.',
    input: [
      { role: 'user', content: [{ type: 'input_text', text: 'hi' }] },
      { type: 'reasoning', id: 'r', summary: [], content: [{ type: 'reasoning_text', text: 'x' }] },
      { type: 'function_call', call_id: 'c', name: 'look', arguments: '{}' },
      { type: 'function_call_output', call_id: 'c', output: '12' },
    ],
    tools: [{ type: 'function', name: 'look', parameters, strict: true }],
    reasoning: { effort: 'low' },
    include: ['reasoning.encrypted_content'],
    metadata: { a: 'b' },
    store: false,
    max_output_tokens: 16,
    truncation: 'auto',
    top_logprobs: 1,
    background: false,
  },
  '/v1/messages': {
    model,
    max_tokens: 10,
    system: [{ type: 'text', text: 'Be brief.', cache_control: { type: 'ephemeral' } }],
    messages: [
      { role: 'user', content: 'hi' },
      {
        role: 'assistant',
        content: [
          { type: 'thinking', thinking: 'x', signature: 's' },
          { type: 'redacted_thinking', data: 'AAAA' },
          { type: 'tool_use', id: 'c', name: 'look', input: { at: 'a' } },
        ],
      },
      { role: 'user', content: [{ type: 'tool_result', tool_use_id: 'c', content: '12', is_error: false }] },
    ],
    tools: [{ name: 'look', input_schema: parameters }],
    thinking: { type: 'enabled', budget_tokens: 1024 },
  },
  '/v1/completions': {
    model,
    prompt: [[1, 2, 3], [4]],
    max_tokens: 5,
    top_p: 0.5,
    n: 2,
    best_of: 2,
    echo: true,
    logprobs: 1,
    frequency_penalty: 0.5,
  },
});

/** Places of a value, itself among them. */
function places(value: Json, path: readonly (string | number)[] = []): (readonly (string | number)[])[] {
  if (typeof value !== 'object' || value === null) return [path];
  return [
    path,
    ...Object.entries(value).flatMap(([k, v]) => places(v, [...path, Array.isArray(value) ? Number(k) : k])),
  ];
}
/** A copy with something else at a place; undefined: without it. */
function changed(value: Json, path: readonly (string | number)[], to: Json): Json {
  if (path.length === 0) return to;
  const [at, ...rest] = path as [string | number, ...(string | number)[]];
  const copy: Record<string | number, Json> = Array.isArray(value)
    ? ([...(value as Json[])] as unknown as Record<number, Json>)
    : { ...(value as object) };
  if (rest.length === 0 && to === undefined) {
    if (Array.isArray(copy)) copy.splice(Number(at), 1);
    else delete copy[at];
  } else copy[at] = changed((value as Record<string | number, Json>)[at], rest, to);
  return copy;
}
const anything = fc.oneof(
  fc.constantFrom<Json>(
    undefined,
    null,
    true,
    0,
    -1,
    1e9,
    2 ** 53,
    '',
    ' ',
    'x',
    '\u0000',
    '<|end|>',
    [],
    {},
    [[]],
    [null],
  ),
  fc.constantFrom<Json>('__proto__', { __proto__: 1 }, { type: 'object', properties: 5 }, { $ref: '#' }, { enum: {} }),
  fc.jsonValue({ maxDepth: 3 }),
);

const schema = { ...parameters, additionalProperties: false };
/** Fields that may stand beside those, with values that are good where they stand alone. */
const MORE: Readonly<Record<string, Readonly<Record<string, Json>>>> = {
  '/v1/chat/completions': {
    n: 2,
    logprobs: true,
    top_logprobs: 2,
    stop: ['o'],
    logit_bias: { 7: 5 },
    presence_penalty: 1,
    repetition_stop: 4,
    reasoning_effort: 'low',
    tool_choice: 'required',
    response_format: { type: 'json_schema', json_schema: { name: 'a', schema, strict: true } },
    stream_options: { include_usage: true },
  },
  '/v1/responses': {
    store: true,
    background: true,
    include: ['message.output_text.logprobs'],
    top_logprobs: 2,
    tool_choice: 'required',
    text: { format: { type: 'json_schema', name: 'a', schema, strict: true } },
    truncation: 'auto',
    previous_response_id: `resp_${'0'.repeat(32)}`,
  },
  '/v1/messages': {
    stop_sequences: ['o'],
    top_k: 5,
    tool_choice: { type: 'any' },
    output_config: { effort: 'low', format: { type: 'json_schema', schema } },
  },
  '/v1/completions': {
    prompt: ['Hello', 'Good day'],
    n: 2,
    best_of: 3,
    echo: true,
    logprobs: 2,
    stop: 'o',
    logit_bias: { 7: 5 },
    stream_options: { include_usage: true },
  },
};

/** A body of one of the APIs that answer, as it is sent. @param model a name that the server knows */
export function hostileRequest(model: string): fc.Arbitrary<{ readonly path: string; readonly body: string }> {
  const good = bodies(model);
  return fc
    .tuple(
      fc.constantFrom(...Object.keys(good)),
      fc.boolean(),
      fc.array(fc.nat(), { maxLength: 2 }),
      fc.array(fc.tuple(fc.nat(), anything), { maxLength: 3 }),
    )
    .map(([path, stream, more, changes]) => {
      const fields = Object.entries(MORE[path] ?? {});
      const beside = Object.fromEntries(more.map((n) => fields[n % fields.length] as [string, Json]));
      let body: Json = { ...(good[path] as object), stream, ...beside };
      for (const [n, to] of changes) {
        const all = places(body);
        body = changed(body, all[n % all.length] ?? [], to);
      }
      return { path, body: JSON.stringify(body) ?? '' };
    });
}

/** How a stream of an API ends that has been told to its end. */
const ENDS: Readonly<Record<string, RegExp>> = {
  '/v1/chat/completions': /^data: \[DONE\]$/,
  '/v1/completions': /^data: \[DONE\]$/,
  '/v1/responses': /^event: response\.(completed|incomplete|failed)$/m,
  '/v1/messages': /^event: (message_stop|error)$/m,
};
/** @returns what is wrong with an answer, or with an error's shape; null: nothing */
export function faultOf(path: string, status: number, type: string | null, text: string): string | null {
  if (status >= 500) return `status ${status}`;
  if (type?.startsWith('text/event-stream')) {
    const last = text.trimEnd().split('\n\n').at(-1) ?? '';
    return ENDS[path]?.test(last) && status === 200 ? null : `ends with ${last.slice(0, 200)}`;
  }
  try {
    const json = JSON.parse(text) as Record<string, unknown>;
    if (status === 200) return (json.error ?? null) === null ? null : 'an answer with an error';
    const { error } = (path === '/v1/messages' ? AnthropicError : OpenAiError).parse(json);
    return /undefined|\[object/.test(error.message) ? error.message : null;
  } catch (e) {
    return String(e);
  }
}
