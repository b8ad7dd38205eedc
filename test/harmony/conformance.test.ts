// OpenAI's published conformance cases, where they lie beside the repository: they are read there, not copied. Each has
// a case of this project's own that covers its ground everywhere (cases.test.ts).
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { parseTokens } from '../../src/harmony/parse.js';
import { developerText, type SystemText, systemText } from '../../src/harmony/prompt-text.js';
import { renderConversation, renderPrompt } from '../../src/harmony/render.js';
import { tokenizerFromRanks } from '../../src/harmony/tokenizer.js';
import type { FunctionTool, JsonSchema, ToolNamespace } from '../../src/harmony/tool-types.js';
import type { Message } from '../../src/harmony/types.js';
import { o200kRanks } from './o200k.js';

const folder = join(packageRoot, '..', 'shared', 'data', 'harmony', 'test-data');
const present = existsSync(folder);
const OWN: Readonly<Record<string, string>> = {
  simple_convo: 'effort medium',
  simple_convo_low_effort: 'effort low, instructions',
  simple_convo_low_effort_no_instruction: 'effort low',
  simple_convo_medium_effort: 'effort medium, instructions',
  simple_convo_medium_effort_no_instruction: 'effort medium',
  simple_convo_high_effort: 'effort high, instructions',
  simple_convo_high_effort_no_instruction: 'effort high',
  reasoning_system_message: 'channels',
  reasoning_system_message_no_instruction: 'channels',
  reasoning_system_message_with_dates: 'identity, cutoff, date',
  dropping_cot_by_default: 'one turn over, first-final',
  preserve_cot: 'one turn over, keep',
  keep_analysis_between_finals: 'analysis between finals, first-final',
  does_not_drop_if_ongoing_analysis: 'an open tool loop, first-final',
  render_functions_with_parameters: 'functions of every kind of parameter',
  no_tools: 'effort medium',
  browser_tool_only: 'built-in browser',
  browser_and_python_tool: 'built-in browser and python',
  browser_and_function_tool: 'built-in tool and functions',
  simple_reasoning_response: 'thought and answer',
  simple_tool_call: 'a built-in call',
  streamable_parser: 'a call in the order models write',
  tool_response_parsing: 'a tool answers',
};
test('every published case has one of our own of its kind', () => {
  const own = JSON.parse(readFileSync(join(packageRoot, 'test/golden/harmony/cases.json'), 'utf8')) as {
    rendered: { name: string }[];
    parsed: { name: string }[];
  };
  const names = new Set([...own.rendered, ...own.parsed].map((c) => c.name));
  expect(Object.values(OWN).filter((name) => !names.has(name))).toEqual([]);
  expect(Object.keys(OWN)).toHaveLength(23);
});
const goldens = JSON.parse(readFileSync(join(packageRoot, 'test/golden/harmony/sequences.json'), 'utf8'));

const published = (): void => {
  const t = tokenizerFromRanks(o200kRanks());
  afterAll(() => t.close());
  const used = new Set<string>();
  const load = (name: string): string => {
    used.add(name);
    return readFileSync(join(folder, `test_${name}.txt`), 'utf8').replace(/\n$/, '');
  };
  const idsOf = (text: string): number[] =>
    text.split(/(<\|[a-z]+\|>)/).flatMap((p) => (p in t.special ? [t.special[p]!] : [...t.encode(p)]));
  const user = (content: string): Message => ({ role: 'user', content });
  const analysis = (content: string): Message => ({ role: 'assistant', channel: 'analysis', content });
  const final = (content: string): Message => ({ role: 'assistant', channel: 'final', content });
  /** Body of the n-th message of the file, for words that are the case's own. */
  const body = (text: string, n: number): string =>
    /<\|message\|>([\s\S]*?)(?:<\|(?:end|call|return)\|>|$)/.exec(
      text.split('<|start|>').filter((p) => p !== '')[n]!,
    )![1]!;

  test.each(['low', 'medium', 'high'] as const)('effort %s, with and without instructions', (effort) => {
    const system: Message = { role: 'system', content: systemText({ effort }) };
    const withInstructions = load(`simple_convo_${effort}_effort`);
    const without = load(`simple_convo_${effort}_effort_no_instruction`);
    const instructions = body(withInstructions, 1).split('\n\n')[1]!;
    const question = user(body(without, 1));
    expect([
      ...renderPrompt(
        { messages: [system, { role: 'developer', content: developerText({ instructions }) }, question] },
        t,
      ),
    ]).toEqual(idsOf(withInstructions));
    expect([...renderPrompt({ messages: [system, question] }, t)]).toEqual(idsOf(without));
  });

  test.each<[string, SystemText]>([
    ['simple_convo', {}],
    ['reasoning_system_message', { channels: ['analysis', 'final'] }],
    ['reasoning_system_message_no_instruction', { channels: ['analysis', 'final'], effort: 'high' }],
    [
      'reasoning_system_message_with_dates',
      { channels: ['analysis', 'final'], knowledgeCutoff: '2021-01', currentDate: '2021-01-01' },
    ],
  ])('%s', (name, system) => {
    const wanted = load(name);
    expect([
      ...renderPrompt({ messages: [{ role: 'system', content: systemText(system) }, user(body(wanted, 1))] }, t),
    ]).toEqual(idsOf(wanted));
  });

  test('analysis is dropped, kept, or kept on request', () => {
    const kept = load('preserve_cot');
    const messages = [user(body(kept, 0)), analysis(body(kept, 1)), final(body(kept, 2)), user(body(kept, 3))];
    for (const rule of ['first-final', 'earlier-turns'] as const)
      expect([...renderPrompt({ messages }, t, { analysis: rule })]).toEqual(idsOf(load('dropping_cot_by_default')));
    expect([...renderPrompt({ messages }, t, { analysis: 'keep' })]).toEqual(idsOf(kept));

    const between = load('keep_analysis_between_finals');
    const four = [
      user(body(between, 0)),
      analysis('left out'),
      final(body(between, 1)),
      user(body(between, 2)),
      analysis(body(between, 3)),
      final(body(between, 4)),
    ];
    for (const rule of ['first-final', 'earlier-turns'] as const)
      expect([...renderConversation({ messages: four }, t, { analysis: rule })]).toEqual(idsOf(between));

    const open = load('does_not_drop_if_ongoing_analysis');
    const loop: Message[] = [
      user(body(open, 0)),
      analysis(body(open, 1)),
      {
        role: 'assistant',
        channel: 'commentary',
        recipient: 'functions.lookup_weather',
        contentType: '<|constrain|>json',
        content: body(open, 2),
      },
      { role: 'tool', name: 'functions.lookup_weather', content: body(open, 3) },
    ];
    for (const rule of ['first-final', 'earlier-turns', 'keep'] as const)
      expect([...renderPrompt({ messages: loop }, t, { analysis: rule })]).toEqual(idsOf(open));
  });

  const about = (text: string, type: string): string =>
    /((?:\/\/ .*\n)*)type /
      .exec(text.slice(text.lastIndexOf('\n\n', text.indexOf(`type ${type} =`))).trimStart())![1]!
      .replaceAll(/^\/\/ /gm, '')
      .trimEnd();
  const remark = (text: string, key: string): string => new RegExp(`// (.*)\\n${key}\\??:`).exec(text)![1]!;

  test('functions with parameters, to the id', () => {
    const wanted = load('render_functions_with_parameters');
    const developer = body(wanted, 1);
    const unit: JsonSchema = { type: 'string', enum: ['celsius', 'fahrenheit'], default: 'celsius' };
    const parameters: Record<string, JsonSchema | undefined> = {
      get_location: undefined,
      get_current_weather: {
        type: 'object',
        properties: { location: { type: 'string', description: remark(developer, 'location') }, format: unit },
        required: ['location'],
      },
      get_multiple_weathers: {
        type: 'object',
        properties: {
          locations: { type: 'array', items: { type: 'string' }, description: remark(developer, 'locations') },
          format: unit,
        },
        required: ['locations'],
      },
      kitchensink: {
        type: 'object',
        description: 'params object',
        properties: {
          string: { type: 'string', title: 'STRING', description: 'A string', examples: ['hello', 'world'] },
          string_nullable: { type: 'string', nullable: true, description: 'A nullable string', default: 'the default' },
          string_enum: { type: 'string', enum: ['a', 'b', 'c'] },
          oneof_string_or_number: {
            description: 'a oneof',
            default: 20,
            oneOf: [
              { type: 'string', default: 'default_string_in_oneof' },
              { type: 'number', description: 'numbers can happen too' },
            ],
          },
        },
      },
    };
    const tools = Object.entries(parameters).map(
      ([name, p]): FunctionTool => ({ name, description: about(developer, name), ...(p ? { parameters: p } : {}) }),
    );
    const messages: Message[] = [
      { role: 'system', content: systemText({ effort: 'high', currentDate: '2025-06-28', functions: true }) },
      { role: 'developer', content: developerText({ instructions: developer.split('\n\n')[1]!, tools }) },
      user(body(wanted, 2)),
    ];
    const ids = [...renderPrompt({ messages }, t)];
    expect(t.decode(ids)).toBe(wanted);
    expect(ids.length).toBe(goldens.functionsWithParameters.count);
    expect(createHash('sha256').update(ids.join(',')).digest('hex')).toBe(goldens.functionsWithParameters.sha256);
  });

  test('built-in tools in the system message', () => {
    const text = load('browser_tool_only');
    const num = (value: unknown): JsonSchema => ({ type: 'number', default: value });
    const tool = (name: string, properties: Record<string, JsonSchema>, required: string[]): FunctionTool => ({
      name,
      description: about(text, name),
      parameters: { type: 'object', properties, required },
    });
    const browser: ToolNamespace = {
      name: 'browser',
      description: text
        .slice(text.indexOf('## browser\n\n') + 12, text.indexOf('namespace browser'))
        .replaceAll(/^\/\/ /gm, '')
        .trimEnd(),
      tools: [
        tool('search', { query: { type: 'string' }, topn: num(10), source: { type: 'string' } }, ['query']),
        tool(
          'open',
          {
            id: { type: ['number', 'string'], default: -1 },
            cursor: num(-1),
            loc: num(-1),
            num_lines: num(-1),
            view_source: { type: 'boolean', default: false },
            source: { type: 'string' },
          },
          [],
        ),
        tool('find', { pattern: { type: 'string' }, cursor: num(-1) }, ['pattern']),
      ],
    };
    const both = load('browser_and_python_tool');
    const python: ToolNamespace = {
      name: 'python',
      description: both.slice(both.indexOf('## python\n\n') + 11, both.indexOf('\n\n# Valid channels')),
      tools: [],
    };
    const system = (s: SystemText): Message => ({
      role: 'system',
      content: systemText({ currentDate: '2025-06-28', ...s }),
    });
    expect(t.decode(renderPrompt({ messages: [system({})] }, t))).toBe(load('no_tools'));
    expect(t.decode(renderPrompt({ messages: [system({ builtins: [browser] })] }, t))).toBe(text);
    expect(t.decode(renderPrompt({ messages: [system({ builtins: [browser, python] })] }, t))).toBe(both);
    const mixed = load('browser_and_function_tool');
    const lookup: FunctionTool = {
      name: 'lookup_weather',
      description: about(mixed, 'lookup_weather'),
      parameters: { type: 'object', properties: { location: { type: 'string' } }, required: ['location'] },
    };
    expect(
      t.decode(
        renderPrompt(
          {
            messages: [
              system({ builtins: [browser], functions: true }),
              { role: 'developer', content: developerText({ tools: [lookup] }) },
            ],
          },
          t,
        ),
      ),
    ).toBe(mixed);
  });

  test('streams of a model', () => {
    const numbers = (name: string): number[] =>
      load(name)
        .split(/\s+/)
        .filter((s) => s !== '')
        .map(Number);
    const told = (ids: number[]): unknown[] => parseTokens(ids, t).map(({ terminator, ...m }) => m);
    const [thought, answer] = goldens.completionMessages;
    expect(told(numbers('simple_reasoning_response'))).toEqual([thought, answer]);
    const call = told(numbers('simple_tool_call')) as Message[];
    expect(call.map((m) => [m.channel, m.recipient, m.contentType])).toEqual([
      ['analysis', undefined, undefined],
      ['analysis', 'lookup_weather', 'code'],
    ]);
    expect(JSON.parse(call[1]!.content)).toHaveProperty('location');

    const stream = load('streamable_parser');
    const parts = parseTokens(idsOf(stream), t);
    expect(parts.map((m) => [m.role, m.name, m.channel, m.recipient, m.contentType, m.terminator])).toEqual([
      ['assistant', undefined, 'analysis', undefined, undefined, 'end'],
      ['assistant', undefined, 'commentary', 'browser.search', 'code', 'call'],
      ['tool', 'browser.search', 'commentary', 'assistant', undefined, 'end'],
    ]);
    for (const m of parts) expect(stream).toContain(`<|message|>${m.content}<|`);

    const response = load('tool_response_parsing');
    expect(parseTokens(idsOf(response), t, { completion: false })).toEqual([
      {
        role: 'tool',
        name: 'browser.search',
        recipient: 'assistant',
        channel: 'commentary',
        content: response.split('<|message|>')[1],
        terminator: 'none',
      },
    ]);
  });

  test('every case of the folder was read', () => {
    const all = readdirSync(folder)
      .map((f) => f.replace(/^test_|\.txt$/g, ''))
      .sort();
    expect([...used].sort()).toEqual(all);
    expect(all).toEqual(Object.keys(OWN).sort());
  });
};
if (present) describe('conformance', published);
