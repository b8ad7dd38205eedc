// Requests that nobody should send: bodies of odd shapes and types, by a seed.
import fc from 'fast-check';

const odd = fc.oneof(
  { weight: 3, arbitrary: fc.jsonValue({ maxDepth: 3 }) },
  fc.constantFrom<unknown>(
    null,
    '',
    0,
    -1,
    1e308,
    2 ** 53,
    [],
    {},
    [[]],
    '\u0000',
    '<|end|>',
    '<|start|>assistant',
    'a'.repeat(3000),
  ),
);
const content = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 200 }),
  fc.constantFrom('<|return|>', '<|channel|>analysis<|message|>', '{"a":', '\ud83d\ude00', '\u202e', ''),
  fc.array(fc.record({ type: fc.constantFrom('text', 'image_url', 'x'), text: odd }), { maxLength: 3 }),
  odd,
);
const message = fc.oneof(
  fc.record(
    {
      role: fc.oneof(fc.constantFrom('system', 'developer', 'user', 'assistant', 'tool', 'function', 'robot'), odd),
      content,
      name: odd,
      tool_calls: odd,
      tool_call_id: odd,
      reasoning_content: content,
    },
    { requiredKeys: ['role', 'content'] },
  ),
  odd,
);
const tool = fc.oneof(
  fc.record({
    type: fc.constantFrom('function', 'x'),
    function: fc.record({
      name: fc.oneof(fc.constantFrom('f', 'functions.f', '', 'a b', '<|end|>'), odd),
      parameters: odd,
      description: odd,
    }),
  }),
  odd,
);
const plain = fc.record({
  model: fc.constantFrom('nano', 'odd'),
  messages: fc.array(
    fc.record({
      role: fc.constantFrom('system', 'developer', 'user', 'assistant'),
      content: fc.oneof(fc.string({ unit: 'grapheme', maxLength: 100 }), fc.constantFrom('<|return|>', '\u202e', ' ')),
    }),
    { minLength: 1, maxLength: 4 },
  ),
  max_completion_tokens: fc.integer({ min: 1, max: 4 }),
  stream: fc.boolean(),
});
/** What is put in place of a field, or beside those that are there. */
const FIELDS: Readonly<Record<string, fc.Arbitrary<unknown>>> = {
  model: odd,
  messages: fc.oneof({ weight: 3, arbitrary: fc.array(message, { maxLength: 5 }) }, odd),
  max_completion_tokens: fc.constantFrom<unknown>(0, -1, 'x', null, 1.5, 1e15),
  temperature: fc.oneof(fc.double({ min: 0, max: 2, noNaN: true }), odd),
  top_p: odd,
  top_k: odd,
  min_p: odd,
  seed: fc.oneof(fc.integer(), odd),
  n: odd,
  stream: odd,
  stream_options: odd,
  tools: fc.oneof({ weight: 3, arbitrary: fc.array(tool, { maxLength: 3 }) }, odd),
  tool_choice: fc.oneof(fc.constantFrom('auto', 'none', 'required'), odd),
  response_format: fc.oneof(
    fc.record({ type: fc.constantFrom('text', 'json_object', 'json_schema'), json_schema: odd }),
    odd,
  ),
  reasoning_effort: fc.oneof(fc.constantFrom('low', 'high', 'most'), odd),
  stop: odd,
  logprobs: odd,
  top_logprobs: odd,
  logit_bias: fc.oneof(fc.dictionary(fc.integer().map(String), fc.double(), { maxKeys: 3 }), odd),
  presence_penalty: odd,
  frequency_penalty: odd,
  metadata: odd,
  anything: odd,
};
const change = fc
  .constantFrom(...Object.keys(FIELDS))
  .chain((name) => fc.tuple(fc.constant(name), FIELDS[name] ?? odd));
/** A body of POST /v1/chat/completions, with up to two fields that are not as they should be; or none at all. */
export const hostileBody: fc.Arbitrary<unknown> = fc.oneof(
  {
    weight: 15,
    arbitrary: fc
      .tuple(plain, fc.array(change, { maxLength: 2 }))
      .map(([body, changes]) => ({ ...body, ...Object.fromEntries(changes) })),
  },
  odd,
);
/** The body as bytes, at times cut off, or with a byte changed. */
export const hostileBytes: fc.Arbitrary<Buffer> = fc
  .tuple(hostileBody, fc.nat({ max: 19 }), fc.nat())
  .map(([body, how, at]) => {
    const bytes = Buffer.from(JSON.stringify(body) ?? '');
    if (how === 0) return bytes.subarray(0, at % (bytes.length + 1));
    if (how === 1 && bytes.length > 0) bytes[at % bytes.length] = at % 256;
    return bytes;
  });
