// Chat rows: where each field goes, and what is refused.
import { describe, expect, test } from 'vitest';
import { DataError } from '../../src/base/errors.js';
import { type ChatRow, chatRow, toConversation } from '../../src/harmony/chat.js';
import { schemaType, untold } from '../../src/harmony/tool-types.js';

const none = { system: null };
const row = (messages: unknown[], more: object = {}): ChatRow => chatRow.parse({ messages, ...more });
const codeOf = (messages: unknown[], more: object = {}): string => {
  try {
    toConversation(row(messages, more), none);
  } catch (e) {
    if (e instanceof DataError) return e.code;
    throw e;
  }
  return 'fine';
};
const tools = [
  {
    type: 'function',
    function: {
      name: 'weather',
      description: 'Says the weather.',
      parameters: {
        type: 'object',
        properties: { place: { type: 'string', description: 'Where' }, days: { type: 'integer', default: 1 } },
        required: ['place'],
      },
    },
  },
];

test('a row with everything', () => {
  const { messages } = toConversation(
    row(
      [
        { role: 'system', content: 'Be brief.' },
        { role: 'developer', content: 'Be kind.' },
        {
          role: 'user',
          content: [
            { type: 'text', text: 'Rain in ' },
            { type: 'text', text: 'Kyoto?' },
          ],
        },
        {
          role: 'assistant',
          reasoning_content: 'Ask the tool.',
          content: 'One moment.',
          tool_calls: [
            { id: 'c1', type: 'function', function: { name: 'weather', arguments: { place: 'Kyoto' } } },
            { id: 'c2', function: { name: 'weather', arguments: '{"place": "Nara"}' } },
          ],
        },
        { role: 'tool', tool_call_id: 'c1', content: 'dry' },
        { role: 'tool', tool_call_id: 'c2', content: 'wet' },
        { role: 'assistant', reasoning: 'Dry, wet.', content: 'Dry in Kyoto.' },
        { role: 'user', content: 'Thanks' },
        { role: 'assistant', content: 'Welcome.' },
      ],
      { tools, reasoning_effort: 'low' },
    ),
  );
  expect(messages.map((m) => [m.role, m.channel ?? '', m.recipient ?? m.name ?? '', m.content]).slice(2)).toEqual([
    ['user', '', '', 'Rain in Kyoto?'],
    ['assistant', 'analysis', '', 'Ask the tool.'],
    ['assistant', 'commentary', '', 'One moment.'],
    ['assistant', 'commentary', 'functions.weather', '{"place":"Kyoto"}'],
    ['assistant', 'commentary', 'functions.weather', '{"place": "Nara"}'],
    ['tool', 'commentary', 'assistant', 'dry'],
    ['tool', 'commentary', 'assistant', 'wet'],
    ['assistant', 'analysis', '', 'Dry, wet.'],
    ['assistant', 'final', '', 'Dry in Kyoto.'],
    ['user', '', '', 'Thanks'],
    ['assistant', 'final', '', 'Welcome.'],
  ]);
  expect(messages[0]!.content).toContain('Reasoning: low');
  expect(messages[0]!.content).toContain("Calls to these tools must go to the commentary channel: 'functions'.");
  expect(messages[1]!.content).toBe(
    '# Instructions\n\nBe brief.\n\nBe kind.\n\n# Tools\n\n## functions\n\nnamespace ' +
      'functions {\n\n// Says the weather.\ntype weather = (_: {\n// Where\nplace: ' +
      'string,\ndays?: number, // default: 1\n}) => any;\n\n} // namespace functions',
  );
});

test(
  'the system message can be left out or changed; a response format stands at the end of ' + 'the developer message',
  () => {
    const r = row([{ role: 'user', content: 'x' }], {
      response_format: {
        type: 'json_schema',
        json_schema: { name: 'reply', description: 'The reply', schema: { type: 'object' } },
      },
    });
    const [developer] = toConversation(r, none).messages;
    expect(developer).toEqual({
      role: 'developer',
      content: '# Response Formats\n\n## reply\n\n// The reply\n{"type":"object"}',
    });
    expect(
      toConversation(row([{ role: 'user', content: 'x' }]), {
        system: { identity: 'You are a desk.', currentDate: '2026-01-02' },
      }).messages[0]!.content,
    ).toMatch(/^You are a desk\.\nKnowledge cutoff: 2024-06\nCurrent date: 2026-01-02\n\nReasoning: medium/);
  },
);

test('instructions in the middle stay in their place', () => {
  expect(
    toConversation(
      row([
        { role: 'user', content: 'a' },
        { role: 'system', content: 'Now in French.' },
        { role: 'user', content: 'b' },
      ]),
      none,
    ).messages.map((m) => m.role),
  ).toEqual(['user', 'developer', 'user']);
});

describe('refuses', () => {
  const ask = { role: 'user', content: 'x' };
  test.each<[string, string, unknown[], object?]>([
    ['an unknown role', 'unknown_role', [ask, { role: 'assistent', content: 'x' }]],
    ['a user message without content', 'empty_message', [{ role: 'user' }]],
    ['an assistant message without anything', 'empty_message', [ask, { role: 'assistant', content: null }]],
    ['an empty system message', 'empty_message', [{ role: 'system', content: '' }, ask]],
    ['a picture', 'bad_content', [{ role: 'user', content: [{ type: 'image_url' }] }]],
    [
      'two reasonings that differ',
      'reasoning_conflict',
      [ask, { role: 'assistant', thinking: 'a', reasoning: 'b', content: 'c' }],
    ],
    ['a thinking user', 'misplaced_field', [{ ...ask, thinking: 'x' }]],
    ['a thinking system message', 'misplaced_field', [{ role: 'system', content: 'x', thinking: 'x' }, ask]],
    ['a tool message before any call', 'unknown_tool_call', [ask, { role: 'tool', content: 'x' }]],
    [
      'a tool message for another call',
      'unknown_tool_call',
      [
        ask,
        { role: 'assistant', tool_calls: [{ id: 'a', function: { name: 'f', arguments: '{}' } }] },
        { role: 'tool', tool_call_id: 'b', content: 'x' },
      ],
    ],
    [
      'a function name with a space',
      'bad_tool_name',
      [ask, { role: 'assistant', tool_calls: [{ function: { name: 'f <|message|>', arguments: '{}' } }] }],
    ],
    [
      "a declared tool's bad name",
      'bad_tool_name',
      [ask],
      { tools: [{ type: 'function', function: { name: 'a b' } }] },
    ],
  ])('%s', (_, code, messages, more) => expect(codeOf(messages, more)).toBe(code));

  test('unknown fields and wrong types', () => {
    for (const bad of [
      { messages: [] },
      { messages: [{ ...ask, tone: 'x' }] },
      { messages: [ask], temperature: 1 },
      { messages: [{ role: 7 }] },
      { messages: [ask], reasoning_effort: 'max' },
    ])
      expect(chatRow.safeParse(bad).success).toBe(false);
  });
});

test('types of schemas', () => {
  const type = (s: object): string => schemaType(s as Record<string, unknown>, '');
  expect(type({ type: 'array', items: { type: 'integer' } })).toBe('number[]');
  expect(type({ type: 'array' })).toBe('Array<any>');
  expect(type({ type: ['string', 'null'] })).toBe('string | null');
  expect(type({ type: 'string', enum: ['a', 'b'] })).toBe('"a" | "b"');
  expect(type({})).toBe('any');
  expect(
    type({
      type: 'object',
      properties: { p: { type: 'object', properties: { q: { type: 'boolean', default: true } }, required: ['q'] } },
    }),
  ).toBe('{\np?: {\n    q: boolean, // default: true\n    },\n}');
  expect(
    type({
      oneOf: [
        { type: 'string', default: 'x' },
        { type: 'number', nullable: true, description: 'n' },
      ],
    }),
  ).toBe('\n | string // default: "x"\n | number | null // n');
});

test('what the notation has no word for is any, as OpenAI’s library writes it, and told', () => {
  const properties = {
    guest: { $ref: '#/$defs/Guest' },
    guests: { type: 'array', items: { $ref: '#/$defs/Guest' } },
    note: { anyOf: [{ type: 'string' }, { type: 'null' }] },
    rank: { type: 'integer', enum: [1, 2] },
    kind: { const: 'table' },
    all: { allOf: [{ type: 'string' }] },
    extra: { type: 'object', additionalProperties: { type: 'integer' } },
    size: { type: 'string', enum: ['S', 'M'] },
    free: {},
  };
  expect(schemaType({ type: 'object', properties }, '')).toBe(
    '{\nguest?: any,\nguests?: any[],\nnote?: any,\nrank?: number,\nkind?: any,\nall?: any,\nextra?: {\n    },\n' +
      'size?: "S" | "M",\nfree?: any,\n}',
  );
  expect(untold({ type: 'object', properties })).toEqual([
    'guest ($ref)',
    'guests.[] ($ref)',
    'note (anyOf)',
    'rank (enum)',
    'kind (const)',
    'all (allOf)',
    'extra (additionalProperties)',
  ]);
  const says = (parameters: object): string =>
    toConversation(
      row([{ role: 'user', content: 'x' }], { tools: [{ type: 'function', function: { name: 'f', parameters } }] }),
      none,
    ).messages[0]!.content;
  // A map takes arguments, though it names none.
  expect(says({ type: 'object', additionalProperties: { type: 'string' } })).toContain('type f = (_: {\n}) => any;');
  expect(says({ type: 'object', properties: {} })).toContain('type f = () => any;');
});
