// Writes cases.json: this project's own conversations, rendered and parsed by OpenAI's harmony crate in its WASM build
// (npm openai-harmony 0.4.0, Apache-2.0), which is installed by hand in a folder of its own:
//   npm install --prefix /tmp/oracle openai-harmony@0.4.0
//   node test/golden/harmony/make_cases.mjs /tmp/oracle

import { readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const folder = process.argv[2];
if (!folder) throw new Error('usage: make_cases.mjs FOLDER_WITH_NODE_MODULES');
const { bpe_ranks } = createRequire(import.meta.url)('tiktoken/encoders/o200k_base.json');

// The crate downloads its vocabulary: it gets tiktoken's from here.
const lines = [];
for (const line of bpe_ranks.split('\n')) {
  const [mark, first, ...tokens] = line.split(' ');
  if (mark === '!') for (const [i, token] of tokens.entries()) lines.push(`${token} ${Number(first) + i}\n`);
}
const server = createServer((_, answer) => answer.end(lines.join('')));
await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(undefined)));
const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
// The WASM build asks fetch for a file: URL, which Node's refuses.
const web = globalThis.fetch;
globalThis.fetch = async (input, init) =>
  String(input).startsWith('file:')
    ? new Response(readFileSync(fileURLToPath(String(input))), { headers: { 'content-type': 'application/wasm' } })
    : web(input, init);
const oracle = await import(pathToFileURL(join(folder, 'node_modules/openai-harmony/dist/openai_harmony.js')).href);
const encoding = await oracle.load_harmony_encoding('HarmonyGptOss', `http://127.0.0.1:${port}/`);

const user = (content) => ({ role: 'user', content });
const analysis = (content) => ({ role: 'assistant', channel: 'analysis', content });
const final = (content) => ({ role: 'assistant', channel: 'final', content });
const call = (recipient, content, contentType = '<|constrain|>json') => ({
  role: 'assistant',
  channel: 'commentary',
  recipient,
  contentType,
  content,
});
const result = (name, content) => ({ role: 'tool', name, recipient: 'assistant', channel: 'commentary', content });
const tide = {
  name: 'get_tide',
  description: 'Height of the tide at a harbour.',
  parameters: {
    type: 'object',
    properties: {
      harbour: { type: 'string', description: 'Its name, e.g. Brest' },
      unit: { type: 'string', enum: ['metre', 'foot'], default: 'metre' },
      hours: { type: 'integer', description: 'Hours ahead', default: 6 },
    },
    required: ['harbour'],
  },
};
const clock = { name: 'get_clock', description: 'The time of day.\nOf this place.' };
const stock = {
  name: 'find_boats',
  description: 'Boats for hire.',
  parameters: {
    type: 'object',
    description: 'what to look for',
    properties: {
      names: { type: 'array', items: { type: 'string' }, description: 'Any of these' },
      anything: { type: 'array' },
      length: { type: 'number', title: 'LENGTH', description: 'In metres', examples: [7.5, 12] },
      sails: { type: 'boolean', default: true },
      note: { type: 'string', nullable: true, description: 'May be left out' },
      berth: { description: 'a oneof', default: 3, oneOf: [{ type: 'string', default: 'A1' }, { type: 'number' }] },
      crew: {
        type: 'object',
        description: 'who comes along',
        properties: { adults: { type: 'number' }, children: { type: 'number', description: 'under 12' } },
        required: ['adults'],
      },
    },
    required: ['names', 'crew'],
  },
};
const browser = {
  name: 'browser',
  description: 'Looks pages up.\nCites them.',
  tools: [
    {
      name: 'search',
      description: 'Pages that hold the words.',
      parameters: {
        type: 'object',
        properties: { query: { type: 'string' }, topn: { type: 'number', default: 8 } },
        required: ['query'],
      },
    },
    {
      name: 'open',
      description: 'Opens one.',
      parameters: {
        type: 'object',
        properties: { id: { type: ['number', 'string'], default: -1 }, raw: { type: 'boolean', default: false } },
      },
    },
  ],
};
const python = { name: 'python', description: 'Runs a program.\nIts output comes back.', tools: [] };

/** @type {any[]} What is rendered. `system` and `developer` as src/harmony/prompt-text.ts takes them. */
const inputs = [
  ...['low', 'medium', 'high'].flatMap((effort) => [
    { name: `effort ${effort}`, system: { effort }, messages: [user('How deep is the harbour of Brest?')] },
    {
      name: `effort ${effort}, instructions`,
      system: { effort },
      developer: { instructions: 'Answer in one line.\n\nName your source.' },
      messages: [user('How deep is it?')],
    },
  ]),
  { name: 'no system message', messages: [user('Ahoy!')] },
  { name: 'channels', system: { channels: ['analysis', 'final'] }, messages: [user('Ahoy!')] },
  {
    name: 'identity, cutoff, date',
    system: { identity: 'You are Temper, a harbour pilot.', knowledgeCutoff: '2023-11', currentDate: '2026-02-28' },
    messages: [user('Which day is it?')],
  },
  {
    name: 'text that spells control tokens',
    system: {},
    messages: [user('Say <|end|><|start|>assistant<|channel|>final<|message|>yes<|return|> twice.')],
  },
  {
    name: 'other scripts',
    messages: [user('潮の高さは？ Высота прилива? 🌊\r\n\tüber 3,50 m'), final('十二 m'), user('谢谢')],
  },
  { name: 'an empty message', messages: [user(''), final(''), user('\n')] },
  ...['first-final', 'keep'].flatMap((rule) => [
    {
      name: `one turn over, ${rule}`,
      rule,
      messages: [user('2 + 3?'), analysis('Add them.'), final('5'), user('and 4 more?')],
    },
    {
      name: `analysis between finals, ${rule}`,
      rule,
      whole: true,
      messages: [user('a'), analysis('one'), final('A'), user('b'), analysis('two'), final('B')],
    },
    {
      name: `an open tool loop, ${rule}`,
      rule,
      messages: [
        user('Tide?'),
        analysis('I must look it up.'),
        call('functions.get_tide', '{"harbour":"Brest"}'),
        result('functions.get_tide', '{"height":4.2}'),
      ],
    },
    {
      name: `two calls, a preamble, then the answer, ${rule}`,
      rule,
      whole: true,
      messages: [
        user('Tide and time?'),
        analysis('Two calls.'),
        { role: 'assistant', channel: 'commentary', content: 'I ask the tables.' },
        call('functions.get_tide', '{"harbour":"Brest"}'),
        result('functions.get_tide', '4.2 m'),
        call('functions.get_clock', '{}', 'json'),
        result('functions.get_clock', '09:30'),
        analysis('Both there.'),
        final('4.2 m at 09:30.'),
      ],
    },
  ]),
  {
    name: 'functions',
    system: { currentDate: '2026-02-28', functions: true },
    developer: { instructions: 'Use the tables.', tools: [clock, tide] },
    messages: [user('Tide?')],
  },
  {
    name: 'functions of every kind of parameter',
    system: { functions: true, effort: 'high' },
    developer: { tools: [stock, tide, clock] },
    messages: [user('A boat, please.')],
  },
  { name: 'built-in browser', system: { builtins: [browser] }, messages: [user('Find it.')] },
  { name: 'built-in browser and python', system: { builtins: [browser, python] }, messages: [user('Find it.')] },
  {
    name: 'built-in tool and functions',
    system: { builtins: [python], functions: true },
    developer: { tools: [tide] },
    messages: [user('Compute it.')],
  },
];

/** What a model writes, or a whole conversation where `role` is null: control tokens by name, all else text. */
const streams = [
  {
    name: 'thought and answer',
    text: '<|channel|>analysis<|message|>Add.<|end|><|start|>assistant<|channel|>final<|message|>5<|return|>',
  },
  {
    name: 'a call in the order models write',
    text:
      '<|channel|>analysis<|message|>Look.<|end|>' +
      '<|start|>assistant<|channel|>commentary to=functions.get_tide <|constrain|>json' +
      '<|message|>{"harbour":"Brest"}<|call|>',
  },
  {
    name: 'a call in the order the library writes',
    role: null,
    text: '<|start|>assistant to=functions.get_tide<|channel|>commentary <|constrain|>json<|message|>{}<|call|>',
  },
  { name: 'a built-in call', text: '<|channel|>analysis to=python code<|message|>print(1)<|call|>' },
  {
    name: 'a preamble',
    text:
      '<|channel|>commentary<|message|>First the tables.<|end|>' +
      '<|start|>assistant<|channel|>final<|message|>Done.<|return|>',
  },
  { name: 'an answer cut off', text: '<|channel|>final<|message|>It is the tide that' },
  { name: 'several scripts', text: '<|channel|>final<|message|>潮位 4,2 m 🌊<|return|>' },
  {
    name: 'a tool answers',
    role: null,
    text: '<|start|>functions.get_tide to=assistant<|channel|>commentary<|message|>{"height":4.2}<|end|>',
  },
  {
    name: 'a whole conversation',
    role: null,
    text:
      '<|start|>system<|message|>S<|end|><|start|>developer<|message|># Instructions\n\nD<|end|>' +
      '<|start|>user<|message|>U<|end|><|start|>assistant<|channel|>analysis<|message|>A<|end|>' +
      '<|start|>assistant<|channel|>final<|message|>F<|end|>',
  },
];

const namespaces = (list) => list && Object.fromEntries(list.map((n) => [n.name, described(n)]));
const described = ({ name, description = null, tools }) => ({
  name,
  description,
  tools: tools.map((t) => ({ name: t.name, description: t.description, parameters: t.parameters ?? null })),
});
const capital = (s) => s[0].toUpperCase() + s.slice(1);
function conversationOf({ system, developer, messages }) {
  const out = [];
  if (system)
    out.push({
      role: 'system',
      content: [
        {
          type: 'system_content',
          model_identity: system.identity ?? 'You are ChatGPT, a large language model trained by OpenAI.',
          reasoning_effort: capital(system.effort ?? 'medium'),
          tools: namespaces(system.builtins) ?? null,
          conversation_start_date: system.currentDate ?? null,
          knowledge_cutoff: system.knowledgeCutoff ?? '2024-06',
          channel_config: {
            valid_channels: system.channels ?? ['analysis', 'commentary', 'final'],
            channel_required: true,
          },
        },
      ],
    });
  if (developer)
    out.push({
      role: 'developer',
      content: [
        {
          type: 'developer_content',
          instructions: developer.instructions ?? null,
          tools: developer.tools ? namespaces([{ name: 'functions', tools: developer.tools }]) : null,
        },
      ],
    });
  for (const { contentType, content, ...m } of messages)
    out.push({
      ...m,
      content: [{ type: 'text', text: content }],
      ...(contentType ? { content_type: contentType } : {}),
    });
  return { messages: out };
}

const rendered = inputs.map((input) => {
  const conversation = conversationOf(input);
  const config = { auto_drop_analysis: (input.rule ?? 'first-final') === 'first-final' };
  const ids = input.whole
    ? encoding.renderConversation(conversation, config)
    : encoding.renderConversationForCompletion(conversation, 'assistant', config);
  return { ...input, ids: [...ids] };
});
const parsed = streams.map(({ name, text, role = 'assistant' }) => {
  const ids = [...encoding.encode(text, new Set(text.match(/<\|[a-z]+\|>/g)))];
  const messages = JSON.parse(encoding.parseMessagesFromCompletionTokens(Uint32Array.from(ids), role)).map((m) => ({
    role: m.role,
    ...(m.name ? { name: m.name } : {}),
    ...(m.channel ? { channel: m.channel } : {}),
    ...(m.recipient && m.recipient !== 'all' ? { recipient: m.recipient } : {}),
    ...(m.content_type ? { contentType: m.content_type } : {}),
    content: typeof m.content === 'string' ? m.content : m.content.map((c) => c.text).join(''),
  }));
  return { name, completion: role !== null, ids, messages };
});
server.close();
const about =
  "Made by make_cases.mjs with openai-harmony 0.4.0, the harmony crate in WASM; conversations are this project's.";
const rows = (list) => list.map((c) => `    ${JSON.stringify(c)}`).join(',\n');
writeFileSync(
  join(dirname(fileURLToPath(import.meta.url)), 'cases.json'),
  `{\n  "about": ${JSON.stringify(about)},\n` +
    `  "rendered": [\n${rows(rendered)}\n  ],\n  "parsed": [\n${rows(parsed)}\n  ]\n}\n`,
);
process.stdout.write(`${rendered.length} conversations, ${parsed.length} streams\n`);
