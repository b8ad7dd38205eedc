// Rows as people have them: what is read, what is counted, what is refused, and by which name. One table per kind.
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { checkFile, type FileCheck } from '../../src/data/check.js';
import { FLAG_SETTINGS } from '../../src/data/format.js';
import { type LoadContext, loadDataset, loadPrompts } from '../../src/data/load.js';
import type { Note } from '../../src/data/notes.js';
import { loadTokenizer } from '../../src/harmony/tokenizer.js';

const dir = mkdtempSync(join(tmpdir(), 'temper-rows-'));
const tokenizer = loadTokenizer(join(packageRoot, 'models', 'nano'));
afterAll(() => tokenizer.close());
const context: LoadContext = {
  tokenizer: () => tokenizer,
  vocabSize: tokenizer.vocabSize,
  maxTokens: 2000,
  loss: { analysis: 1, commentary: 1, final: 1 },
};
let count = 0;
const written = (content: string | Buffer, name = 'rows.jsonl'): string => {
  const path = join(mkdtempSync(join(dir, `${count++}-`)), name);
  writeFileSync(path, content);
  return path;
};
type Over = Partial<LoadContext> & { readonly format?: string };
const check = (row: string | object, { format = 'chat', ...over }: Over = {}): Promise<FileCheck> =>
  checkFile(
    { path: written(`${typeof row === 'string' ? row : JSON.stringify(row)}\n`), format },
    { ...context, ...over },
    { samples: 1 },
  );
/** Samples as one text, what is trained in brackets. */
const shown = (c: FileCheck): string =>
  c.samples.flatMap((s) => s.stretches.map((x) => (x.trained ? `[${x.text}]` : x.text))).join('');
const q = { role: 'user', content: 'q' };
const a = { role: 'assistant', content: 'a' };
const call = (name: string, id?: string | null, args: unknown = '{}') => ({
  ...(id === undefined ? {} : { id }),
  function: { name, arguments: args },
});
const calls = (...list: object[]) => ({ role: 'assistant', content: null, tool_calls: list });
const tool = (content: string, more: object = {}) => ({ role: 'tool', content, ...more });

describe('a tool result belongs to', () => {
  it.each<[string, object[], string[] | string]>([
    ['the calls in their order', [calls(call('one'), call('two')), tool('1'), tool('2')], ['one', 'two']],
    ['calls of two messages', [calls(call('one')), calls(call('two')), tool('1'), tool('2')], ['one', 'two']],
    [
      'its id, in any order',
      [calls(call('one', 'x'), call('two', 'y')), tool('2', { tool_call_id: 'y' }), tool('1', { tool_call_id: 'x' })],
      ['two', 'one'],
    ],
    [
      'the call that is left',
      [calls(call('one', 'x'), call('two')), tool('1'), tool('x', { tool_call_id: 'x' })],
      ['two', 'one'],
    ],
    [
      'its name',
      [calls(call('one'), call('two')), tool('2', { name: 'two' }), tool('1', { name: 'functions.one' })],
      ['two', 'one'],
    ],
    ['one of two equal calls', [calls(call('one'), call('one')), tool('1')], ['one']],
    [
      'an id that is used again in a later turn',
      [
        calls(call('one', 'c')),
        tool('1', { tool_call_id: 'c' }),
        a,
        q,
        calls(call('two', 'c')),
        tool('2', { tool_call_id: 'c' }),
      ],
      ['one', 'two'],
    ],
    ['no one says which of two', [calls(call('one'), call('two')), tool('1')], 'tool_result_ambiguous'],
    ['more results than calls', [calls(call('one')), tool('1'), tool('2')], 'unknown_tool_call'],
    [
      'a call that was answered',
      [calls(call('one', 'x')), tool('1', { tool_call_id: 'x' }), tool('2', { tool_call_id: 'x' })],
      'tool_call_twice',
    ],
    [
      'two calls with one id',
      [calls(call('one', 'x'), call('two', 'x')), tool('1', { tool_call_id: 'x' })],
      'tool_call_twice',
    ],
    [
      'another function than its id',
      [calls(call('one', 'x')), tool('1', { tool_call_id: 'x', name: 'two' })],
      'tool_name_conflict',
    ],
    ['a name that was not called', [calls(call('one')), tool('1', { name: 'two' })], 'unknown_tool_call'],
    ['no call', [a, q, tool('1')], 'unknown_tool_call'],
  ])('%s', async (_, messages, wanted) => {
    const c = await check({ messages: [q, ...messages, a] });
    if (typeof wanted === 'string') expect(c.errors.map((e) => e.code)).toEqual([wanted]);
    else {
      expect(c.errors).toEqual([]);
      expect([...shown(c).matchAll(/<\|start\|>functions\.(\w+) to=assistant/g)].map((m) => m[1])).toEqual(wanted);
    }
  });
});

describe('arguments given as an object', () => {
  it.each<[string, string, string, Note[]]>([
    [
      'numbers and order',
      '{"n":9007199254740993,"r":1.0,"2":"b","1":"a"}',
      '{"n":9007199254740993,"r":1.0,"2":"b","1":"a"}',
      [],
    ],
    ['white space', '{ "a" : [ 1, 2 ] }', '{"a":[1,2]}', []],
    ['padding', '{"a":"x","b":null,"c":{"d":null}}', '{"a":"x","c":{}}', ['null_argument']],
    ['padding beside a fraction', '{"a":1.0,"b":null}', '{"a":1.0}', ['null_argument']],
    ['entries of lists', '{"a":[null]}', '{"a":[null]}', []],
  ])('%s', async (_, args, wanted, notes) => {
    const row = JSON.stringify({ messages: [q, calls(call('f', null, '@'))] }).replace('"@"', args);
    const c = await check(row);
    expect(shown(c)).toContain(`<|message|>${wanted}<|call|>]`);
    expect(Object.keys(c.notes)).toEqual(notes);
    // As text they stay as they are.
    expect(shown(await check({ messages: [q, calls(call('f', 'x', args))] }))).toContain(`<|message|>${args}<|call|>]`);
  });
});

describe('null is absent, and fields of clients are known', () => {
  const message = { ...a, thinking: null, tool_calls: null, tool_call_id: null, name: null };
  const dump = { ...a, refusal: null, annotations: [], audio: null, function_call: null, tool_calls: [], weight: null };
  it.each<[string, object]>([
    [
      'every field of a message',
      { messages: [{ ...q, thinking: null, tool_calls: null, tool_call_id: null, name: null }, message] },
    ],
    ['what the openai package dumps', { messages: [q, dump] }],
    ['what vLLM dumps', { messages: [q, { ...dump, annotations: null, reasoning_content: null, reasoning: null }] }],
    [
      'id and type of a call',
      { messages: [q, calls({ id: null, type: null, index: 0, function: { name: 'f', arguments: '{}' } })] },
    ],
    [
      'parts of a tool',
      { messages: [q, a], tools: [{ type: 'function', function: { name: 'f', description: null, parameters: null } }] },
    ],
    [
      'every field of the row',
      { messages: [q, a], tools: null, reasoning_effort: null, response_format: null, parallel_tool_calls: false },
    ],
    [
      'parts as the Responses API has them',
      {
        messages: [
          { role: 'user', content: [{ type: 'input_text', text: 'q' }] },
          { role: 'assistant', content: [{ type: 'output_text', text: 'a', annotations: [] }] },
        ],
      },
    ],
    [
      'tools as the Responses API has them',
      {
        messages: [q, a],
        tools: [{ type: 'function', name: 'f', parameters: { type: 'object', properties: {} }, strict: true }],
      },
    ],
    [
      'tools as JSON text',
      { messages: [q, a], tools: JSON.stringify([{ type: 'function', function: { name: 'f' } }]) },
    ],
    [
      'parameters as JSON text',
      { messages: [q, a], tools: [{ function: { name: 'f', parameters: '{"type":"object","properties":{}}' } }] },
    ],
    ['a refusal part', { messages: [q, { role: 'assistant', content: [{ type: 'refusal', refusal: 'no' }] }] }],
    ['an empty refusal', { messages: [q, { ...a, refusal: '' }] }],
  ])('%s', async (_, row) => {
    const c = await check(row);
    expect(c.errors).toEqual([]);
    expect(c.trainedTokens).toBeGreaterThan(0);
  });
  it('padding stays out of tool schemas', async () => {
    const parameters = {
      type: 'object',
      properties: { query: { type: 'string', enum: null }, city: null },
      required: null,
    };
    const c = await check({ messages: [q, a], tools: [{ type: 'function', function: { name: 'f', parameters } }] });
    expect(shown(c)).toContain('type f = (_: {\nquery?: string,\n}) => any;');
    expect(c.notes).toEqual({ null_argument: { rows: 1, line: 1 } });
  });
  it.each<[string, object]>([
    ['an old call', { ...a, function_call: { name: 'f', arguments: '{}' } }],
    ['sound', { ...a, audio: { id: 'x' } }],
    ['weight 2', { ...a, weight: 2 }],
  ])('but %s is refused', async (_, message) => {
    expect((await check({ messages: [q, message] })).errors.map((e) => e.code)).toEqual(['bad_row']);
  });
});

describe('blank and lossy texts', () => {
  it.each<[string, object, string]>([
    ['a blank answer', { ...a, content: ' \n' }, 'empty_message'],
    ['an empty answer after thinking', { ...a, content: '', thinking: 't' }, 'empty_message'],
    ['an answer and a refusal', { ...a, refusal: 'no' }, 'bad_content'],
    ['half of a surrogate pair', { ...a, content: 'x\ud800' }, 'lone_surrogate'],
    ['sound in a part', { ...a, content: [{ type: 'input_audio' }] }, 'bad_content'],
    ['weight 1 on a user', { ...q, weight: 1 }, 'misplaced_field'],
  ])('%s is refused', async (_, message, code) => {
    const row = JSON.stringify({ messages: [q, message] }).replaceAll('\ud800', '\\ud800');
    expect((await check(row)).errors.map((e) => e.code)).toEqual([code]);
  });
  it.each<[Note, object]>([
    ['blank_reasoning', { messages: [q, { ...a, thinking: ' \n' }] }],
    ['annotations_unused', { messages: [q, { ...a, annotations: [{ type: 'url_citation' }] }] }],
    ['name_unused', { messages: [{ ...q, name: 'ann' }, a] }],
    ['replacement_character', { messages: [{ ...q, content: 'caf\ufffd' }, a] }],
    ['tool_name_builtin', { messages: [q, a], tools: [{ type: 'function', function: { name: 'python' } }] }],
    ['tool_schema_rounded', { messages: [q, a], tools: [{ function: { name: 'f', parameters: { default: 1e21 } } }] }],
    ['markup_as_text', { messages: [{ ...q, content: 'Say <|end|>' }, a] }],
    ['markup_as_text', { messages: [q, { ...a, content: '[INST] a [/INST] b' }] }],
    ['markup_as_text', { messages: [q, { ...a, content: 'b<end_of_turn>' }] }],
    ['arguments_not_json', { messages: [q, calls(call('f', null, '{a: 1'))] }],
    ['arguments_not_json', { messages: [q, calls(call('f', null, '[1]'))] }],
  ])('%s is counted', async (note, row) => {
    const text = JSON.stringify(row).replace('1e+21', '1.0');
    const c = await check(text);
    expect(c.errors).toEqual([]);
    expect(c.notes).toEqual({ [note]: { rows: 1, line: 1 } });
  });
  it.each<[string, object, RegExp]>([
    ['system', { messages: [q, a], system: 'be brief' }, /as the first one, \{"role": "system"/],
    ['instructions', { messages: [q, a], instructions: 'be brief' }, /as the first one, \{"role": "developer"/],
    ['functions', { messages: [q, a], functions: [] }, /old form of tools/],
    ['a role of others', { messages: [{ role: 'human', content: 'q' }, a] }, /"human" is not known.*it may be user$/],
    ['a number', { messages: [q, { ...a, content: 5 }] }, /content: wanted text, a list of parts, or null/],
  ])('%s: the message says where it belongs', async (_, row, said) => {
    expect((await check(row)).errors[0]?.message).toMatch(said);
  });
  it('two equal keys are refused', async () => {
    const row = '{"messages":[{"role":"user","content":"a","content":"b"},{"role":"assistant","content":"c"}]}';
    expect((await check(row)).errors[0]).toMatchObject({
      code: 'not_json',
      message: expect.stringContaining('"content" is there twice'),
    });
  });
  it('blank reasoning trains nothing', async () => {
    expect((await check({ messages: [q, { ...a, thinking: '\n' }] })).trainedByChannel).toEqual({ final: 5 });
  });
});

it('a message of weight 0 is history', async () => {
  const messages = [q, { ...a, content: 'bad', weight: 0 }, q, { ...a, content: 'good', weight: 1 }];
  expect(shown(await check({ messages })).match(/\[[^\]]*\]/g)).toEqual([
    '[<|channel|>final<|message|>good<|return|>]',
  ]);
  // Last, it ends no example, and is no answer to expect.
  const last = { messages: [q, a, q, { ...a, weight: 0 }] };
  expect(shown(await check(last)).match(/\[[^\]]*\]/g)).toEqual(['[<|channel|>final<|message|>a<|return|>]']);
  expect(await loadPrompts([{ path: written(JSON.stringify(last)), format: 'chat' }])).toEqual([]);
  const none = await check({ messages: [q, { ...a, weight: 0 }] });
  expect(none).toMatchObject({ badRows: 0, trainedTokens: 0, untrainedRows: 1, nothing: expect.any(String) });
});

describe('markup as text', () => {
  const rendered = '<|channel|>analysis<|message|>hmm<|end|><|start|>assistant<|channel|>final<|message|>b';
  it.each<[string, string, string]>([
    ['a rendered turn', 'chat', rendered],
    ['an answer with its end', 'chat', 'b<|return|>'],
    ['<think>', 'chat', '<think>hmm</think>b'],
    ['<think> after white space', 'chat', '\n<thinking>\nhmm'],
    ['an end of thinking alone', 'chat', 'hmm</think>b'],
    ['[THINK]', 'chat', '[THINK]hmm[/THINK]b'],
    ['a rendered conversation', 'text', `<|start|>user<|message|>q<|end|><|start|>assistant${rendered}<|return|>`],
  ])('%s is refused, or trained as text when asked', async (_, format, text) => {
    const row = format === 'text' ? { text } : { messages: [q, { ...a, content: text }] };
    const c = await check(row, { format });
    expect(c.errors).toMatchObject([{ code: 'markup_in_text', message: expect.stringContaining('data.markup: text') }]);
    expect((await check(row, { format, settings: FLAG_SETTINGS })).errors[0]?.message).toContain('--markup text');
    const asText = await check(row, { format, markup: 'text' });
    expect(asText).toMatchObject({ badRows: 0, notes: { markup_as_text: { rows: 1, line: 1 } } });
    expect(shown(asText)).toContain(text.replaceAll('<|', '<\\|'));
  });
  it('in thinking, a refusal and arguments too; not in what is no answer', async () => {
    for (const m of [
      { ...a, thinking: rendered },
      { ...a, content: null, refusal: rendered },
      calls(call('f', null, JSON.stringify({ a: rendered }))),
    ])
      expect((await check({ messages: [q, m] })).errors[0]?.code).toBe('markup_in_text');
    for (const messages of [
      [{ ...q, content: rendered }, a],
      [q, { ...a, content: rendered, weight: 0 }, q, a],
    ])
      expect((await check({ messages })).errors).toEqual([]);
    expect(
      (await check({ prompt: 'q', chosen: rendered, rejected: 'b' }, { format: 'preference' })).errors[0]?.code,
    ).toBe('markup_in_text');
  });
});

it('format harmony trains what chat trains of the same conversation', async () => {
  const rows: object[] = [
    { messages: [q, a, q, { ...a, content: '<b>two</b>' }] },
    { messages: [{ role: 'system', content: 'Be brief.' }, q, { ...a, thinking: 'hm' }] },
    {
      messages: [q, { ...calls(call('f')), thinking: 't' }, tool('1'), a],
      tools: [{ type: 'function', function: { name: 'f' } }],
    },
    { messages: [q, { ...calls(call('f'), call('g')), content: 'One moment.' }, tool('1'), tool('2'), a] },
  ];
  for (const row of rows) {
    const chat = [...(await loadDataset([{ path: written(JSON.stringify(row)), format: 'chat' }], context)).examples];
    const text = tokenizer.decode(chat[0]?.tokens ?? []);
    const [same] = [
      ...(await loadDataset([{ path: written(JSON.stringify({ text })), format: 'harmony' }], context)).examples,
    ];
    expect(same?.tokens).toEqual(chat[0]?.tokens);
    expect(same?.weights).toEqual(chat[0]?.weights);
    expect(same?.channels).toEqual(chat[0]?.channels);
  }
});

describe('conversations as JSON text, as tables without nested columns keep them', () => {
  const tools = [{ type: 'function', function: { name: 'f', parameters: { type: 'object', properties: {} } } }];
  const same = async (row: object, text: object, format: string): Promise<void> => {
    const per = format === 'preference' ? 2 : 1;
    const [of, over] = await Promise.all(
      [row, text].map((r) =>
        loadDataset([{ path: written(JSON.stringify(r)), format }], { ...context, examplesPerSample: per }),
      ),
    );
    expect([...(over?.examples ?? [])].map((e) => [...e.tokens])).toEqual(
      [...(of?.examples ?? [])].map((e) => [...e.tokens]),
    );
    expect(over?.files[0]?.notes.json_text).toEqual({ rows: 1, line: 1 });
    expect(of?.files[0]?.notes.json_text).toBeUndefined();
  };
  const text = (v: unknown): string => JSON.stringify(v);
  it('are the lists that they say, and counted', async () => {
    await same({ messages: [q, a], tools }, { messages: text([q, a]), tools: text(tools) }, 'chat');
    const [chosen, rejected] = [[a], [{ ...a, content: 'no' }]];
    await same(
      { prompt: 'q', chosen, rejected },
      { prompt: 'q', chosen: text(chosen), rejected: ` ${text(rejected)}` },
      'preference',
    );
    await same({ prompt: [q], chosen, rejected }, { prompt: text([q]), chosen, rejected }, 'preference');
  });
  it('any other text is text, a key twice or half a surrogate in it is refused, Python’s print is named', async () => {
    for (const chosen of ['[{"x": 1}]', '[1]', '[{"role": "assistant"', '{"role": "assistant"}']) {
      const { errors, notes } = await check({ prompt: 'q', chosen, rejected: 'b' }, { format: 'preference' });
      expect(errors).toEqual([]);
      expect(notes.json_text).toBeUndefined();
    }
    const said = async (messages: string): Promise<string> => (await check({ messages })).errors[0]?.message ?? '';
    expect(await said("[{'role': 'user', 'content': 'q'}]")).toMatch(/json\.dumps/);
    expect(await said('[{"role": "user", "role": "assistant", "content": "q"}]')).toMatch(/no JSON/);
    expect(await said('[{"role": "user", "content": "\\ud800"}]')).toMatch(/surrogate/);
  });
});

describe('fields that are not known', () => {
  const row = {
    id: '7',
    source: 's',
    messages: [
      { ...q, tag: 'x' },
      { ...a, reasoning_details: [] },
    ],
  };
  const ignore = ['id', 'source', 'messages.tag', 'messages.reasoning_details'];
  it('are named at once, with what leaves them out', async () => {
    const said = async (over: Over): Promise<string> => (await check(row, over)).errors[0]?.message ?? '';
    expect(await said({})).toContain('data.ignore: [messages.tag, messages.reasoning_details, id, source]');
    expect(await said({ settings: FLAG_SETTINGS })).toContain(
      '--ignore messages.tag,messages.reasoning_details,id,source',
    );
    expect(await said({ ignore: ignore.slice(1) })).toContain('unknown field id;');
  });
  it('are left out when they are listed, in prompts too', async () => {
    expect((await check(row, { ignore })).errors).toEqual([]);
    expect(await loadPrompts([{ path: written(JSON.stringify(row)), format: 'chat', ignore }])).toHaveLength(1);
  });
  it.each<[string, string, string, object]>([
    ['ShareGPT', 'chat', 'give format sharegpt', { conversations: [{ from: 'human', value: 'q' }] }],
    ['Alpaca', 'chat', 'give format alpaca', { instruction: 'q', input: '', output: 'a' }],
    ['prompt and completion', 'chat', 'a prompt and its completion', { prompt: 'q', completion: 'a' }],
    ['a pair', 'chat', 'format preference', { prompt: 'q', chosen: 'a', rejected: 'b' }],
    ['text', 'chat', 'format text', { text: 'a' }],
    ['a rendered conversation', 'chat', 'format harmony', { text: '<|start|>user<|message|>q<|end|>' }],
    ['token ids', 'chat', 'format tokens', { input_ids: [1, 2], labels: [1, 2] }],
    ['a conversation', 'text', 'format chat', { messages: [q, a] }],
  ])('%s is named', async (_, format, words, row) => {
    const [error] = (await check(row, { format })).errors;
    expect(error?.code).toBe('bad_row');
    expect(error?.message).toContain(words);
    expect(error?.message).not.toContain('ignore');
  });
});

describe('a row that is too long', () => {
  const rows = [
    { messages: [q, a] },
    { messages: [{ ...q, content: 'a table '.repeat(400) }, a] },
    { messages: [q, { ...a, content: 'b '.repeat(400) }] },
  ];
  const path = written(rows.map((r) => JSON.stringify(r)).join('\n'));
  const load = (over: Partial<LoadContext>) =>
    loadDataset([{ path, format: 'chat' }], { ...context, maxTokens: 100, ...over });
  it('is an error that names the setting and its way out', async () => {
    await expect(load({})).rejects.toMatchObject({
      code: 'row_too_long',
      message: expect.stringMatching(/:2: .*data\.maxTokens 100.*data\.onLong/),
    });
    await expect(load({ settings: FLAG_SETTINGS })).rejects.toMatchObject({
      message: expect.stringMatching(/--max-tokens 100.*--on-long/),
    });
  });
  it('is dropped or cut, and counted', async () => {
    const dropped = await load({ onLong: 'drop' });
    expect([dropped.examples.length, dropped.files[0]]).toMatchObject([
      1,
      { rows: 3, examples: 1, dropped: 2, truncated: 0 },
    ]);
    const cut = await load({ onLong: 'truncate' });
    // Cut before its answer, the second row has nothing to train.
    expect([cut.examples.length, cut.files[0]]).toMatchObject([
      2,
      { examples: 3, dropped: 0, truncated: 2, untrainedRows: 1 },
    ]);
    expect(cut.examples.at(1)?.tokens).toHaveLength(100);
  });
  it('takes the other answer of a pair with it', async () => {
    const pair = written(JSON.stringify({ prompt: 'q', chosen: 'a', rejected: 'b '.repeat(400) }));
    const good = written(JSON.stringify({ prompt: 'q', chosen: 'a', rejected: 'b' }));
    const { examples } = await loadDataset(
      [pair, good].map((p) => ({ path: p, format: 'preference' })),
      { ...context, maxTokens: 100, onLong: 'drop', examplesPerSample: 2 },
    );
    expect(examples.length).toBe(2);
  });
});

it('a row of 3,000 turns is encoded once, and rendered no further than examples may be long', async () => {
  const messages = Array.from({ length: 3000 }, (_, i) => [
    { role: 'user', content: `question ${i}` },
    { role: 'assistant', thinking: 'hm', content: `answer ${i}` },
  ]).flat();
  let calls_ = 0;
  const encode = (text: string): Int32Array => {
    calls_++;
    return tokenizer.encode(text);
  };
  const counting = { ...tokenizer, encode };
  const c = await check({ messages }, { tokenizer: () => counting, maxTokens: 300, onLong: 'drop' });
  expect([c.examples + c.dropped, c.badRows]).toEqual([3000, 0]);
  expect(c.examples).toBeGreaterThan(5);
  expect(calls_).toBeLessThan(5 * 3 * 3000);
});

describe('files', () => {
  const row = JSON.stringify({ messages: [q, a] });
  it.each<[string, string, string | Buffer]>([
    ['an array in gzip', 'rows.json.gz', gzipSync(`[${row},\n${row}]`)],
    ['lines in gzip', 'rows.gz', gzipSync(`${row}\n${row}\n`)],
  ])('%s', async (_, name, bytes) => {
    expect(await checkFile({ path: written(bytes, name), format: 'chat' }, context)).toMatchObject({
      rows: 2,
      badRows: 0,
    });
  });
  it.each<[string, string | Buffer, RegExp]>([
    ['a zip archive', Buffer.from('PK\x03\x04'), /zip archive.*unpack/],
    ['weights', Buffer.from('\x80\x01\0\0\0\0\0\0{"a":{"dtype":"F32"}}', 'latin1'), /safetensors file: weights/],
    ['weights with other lengths', Buffer.from('{\0\0\0\0\0\0\0{"a":{}}', 'latin1'), /safetensors/],
    ['LZ4', Buffer.from('04224d1800', 'hex'), /LZ4/],
    ['UTF-16', Buffer.from('\ufeff{}', 'utf16le'), /UTF-16.*save it as UTF-8/],
    ['gzip twice', gzipSync(gzipSync(row)), /another packed file/],
  ])('%s is named', async (_, bytes, message) => {
    await expect(checkFile({ path: written(bytes), format: 'chat' }, context)).rejects.toMatchObject({
      code: 'file_kind',
      message: expect.stringMatching(message),
    });
  });
  it.each<[string, string, RegExp]>([
    ['CSV', 'prompt,completion\na,b\n', /such as CSV/],
    ['one object over lines', '{\n"messages": []\n}', /over several lines/],
  ])('%s is named in the first bad row', async (_, text, message) => {
    expect((await checkFile({ path: written(text), format: 'chat' }, context)).errors[0]?.message).toMatch(message);
  });
  it('without rows, or without a token to train, say so', async () => {
    for (const text of ['', '\n\n', '[]'])
      expect((await checkFile({ path: written(text, 'rows.json'), format: 'chat' }, context)).nothing).toMatch(
        /no rows/,
      );
    expect((await check({ messages: [q] })).nothing).toMatch(/nothing to train/);
    expect((await check({ messages: [q, a] })).nothing).toBeNull();
  });
});
