// Bodies that nobody meant: an answer or an error of the API's own shape, never a fault of the server.
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { scriptedApp, scriptedEngine, tokensOf } from './scripted.js';
import { AnthropicError, OpenAiError } from './shapes.js';

/** More of them once in a while: TEMPER_HOSTILE_RUNS=10000. */
const RUNS = Number(process.env.TEMPER_HOSTILE_RUNS ?? 1000);
type Json = unknown;
const parameters = {
  type: 'object',
  properties: { at: { type: 'string', enum: ['a', 'b'], description: 'where' }, n: { type: ['integer', 'null'] } },
  required: ['at'],
};
const BODIES: Readonly<Record<string, Json>> = {
  '/v1/chat/completions': {
    model: 'm',
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
    stream: false,
  },
  '/v1/responses': {
    model: 'm',
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
  },
  '/v1/messages': {
    model: 'm',
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
  '/v1/completions': { model: 'm', prompt: [1, 2, 3], max_tokens: 5, top_p: 0.5 },
};

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

it('is an answer, or an error in the shape of the API', async () => {
  const { app, log, admission } = (() => {
    const says = tokensOf('<|channel|>final<|message|>ok<|return|>');
    const scripted = scriptedApp(scriptedEngine(() => says).engine);
    return scripted;
  })();
  const statuses = new Map<number, number>();
  const change = fc.tuple(fc.nat(), anything);
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...Object.keys(BODIES)),
      fc.array(change, { maxLength: 3 }),
      async (path, changes) => {
        let body = BODIES[path];
        for (const [n, to] of changes) {
          const all = places(body);
          body = changed(body, all[n % all.length] ?? [], to);
        }
        const response = await app.request(path, {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify(body) ?? '',
        });
        const text = await response.text();
        statuses.set(response.status, (statuses.get(response.status) ?? 0) + 1);
        expect(log).toEqual([]);
        expect(response.status).toBeLessThan(500);
        if (response.status === 200) return;
        const shape = path === '/v1/messages' ? AnthropicError : OpenAiError;
        expect(shape.parse(JSON.parse(text)).error.message).not.toMatch(/undefined|\[object/);
      },
    ),
    { numRuns: RUNS },
  );
  expect(admission.running).toBe(0);
  // It swept both: bodies that are read, and bodies that are not.
  expect(statuses.get(200)).toBeGreaterThan(RUNS / 25);
  expect(statuses.get(400)).toBeGreaterThan(RUNS / 5);
});
