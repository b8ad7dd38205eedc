// The parser: inverse of render, tolerant of every slip models are known for, never throwing.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { HarmonyParser, type ParsedMessage, type ParseEvent, parseTokens } from '../../src/harmony/parse.js';
import { renderConversation } from '../../src/harmony/render.js';
import { tokenizerFromJson, tokenizerFromRanks } from '../../src/harmony/tokenizer.js';
import { tokenizerJson } from '../../src/harmony/tokenizer-file.js';
import type { Message, Tokenizer } from '../../src/harmony/types.js';
import { anyMessages, conversation } from './arbitrary.js';
import { random } from './corpus.mjs';
import { o200kRanks } from './o200k.js';
import { smallVocabulary } from './small.js';

const o200k = tokenizerFromRanks(o200kRanks(), { vocabSize: 201088 });
const small = tokenizerFromJson(tokenizerJson(smallVocabulary()));
const golden = JSON.parse(readFileSync(join(packageRoot, 'test/golden/harmony/sequences.json'), 'utf8'));
afterAll(() => {
  o200k.close();
  small.close();
});

/** Ids of a text in which <|…|> names stand for control tokens. */
function ids(t: Tokenizer, text: string): number[] {
  return text.split(/(<\|[a-z]+\|>)/).flatMap((part) => (part in t.special ? [t.special[part]!] : [...t.encode(part)]));
}
const plain = ({ terminator, ...m }: ParsedMessage): Message => m;
const read = (text: string, options = {}): ParsedMessage[] => [...parseTokens(ids(o200k, text), o200k, options)];
const call = {
  role: 'assistant',
  channel: 'commentary',
  recipient: 'functions.get_weather',
  contentType: '<|constrain|>json',
  content: '{}',
  terminator: 'call',
};

describe('golden sequences', () => {
  test('a completion', () =>
    expect(parseTokens(golden.completion, o200k).map(plain)).toEqual(golden.completionMessages));
  test.each(['callLibraryOrder', 'callModelOrder'])('a call in either order: %s', (key) => {
    expect(parseTokens(golden[key], o200k, { completion: false })).toEqual([{ ...golden.call, terminator: 'call' }]);
    expect(parseTokens(golden[key].slice(2), o200k)).toEqual([{ ...golden.call, terminator: 'call' }]);
  });
  test("a tool's result", () => {
    expect(parseTokens(golden.toolResult, o200k, { completion: false }).map(plain)).toEqual([
      { role: 'tool', name: 'functions.get_weather', recipient: 'assistant', channel: 'commentary', content: '{}' },
    ]);
  });
});

describe('parse undoes render', () => {
  const identity =
    (t: Tokenizer) =>
    (messages: readonly Message[]): void => {
      const told = parseTokens(renderConversation({ messages }, t), t, { completion: false }).map(plain);
      expect(told).toEqual(messages.map((m) => ({ ...m, content: m.content.toWellFormed() })));
    };
  test('for dialogues', () =>
    fc.assert(
      fc.property(conversation, (c) => identity(small)(c.messages)),
      { numRuns: 1000, seed: 2 },
    ));
  test('for any messages', () => fc.assert(fc.property(anyMessages, identity(small)), { numRuns: 3000, seed: 3 }));
  test("with o200k's tokens", () => fc.assert(fc.property(anyMessages, identity(o200k)), { numRuns: 1000, seed: 4 }));
});

describe('slips', () => {
  test.each([
    [
      'recipient after the channel',
      '<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{}<|call|>',
    ],
    [
      'recipient before the channel',
      ' to=functions.get_weather<|channel|>commentary <|constrain|>json<|message|>{}<|call|>',
    ],
    [
      'constrain glued to the recipient',
      '<|channel|>commentary to=functions.get_weather<|constrain|>json<|message|>{}<|call|>',
    ],
    [
      'constrain glued to the channel, recipient last',
      '<|channel|>commentary<|constrain|>json to=functions.get_weather<|message|>{}<|call|>',
    ],
    ['a space after to=', '<|channel|>commentary to= functions.get_weather <|constrain|>json<|message|>{}<|call|>'],
    [
      'the recipient glued to the channel',
      '<|channel|>commentaryto=functions.get_weather <|constrain|>json<|message|>{}<|call|>',
    ],
    [
      'the role repeated',
      'assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{}<|call|>',
    ],
    [
      'the role doubled in one word',
      'assistantassistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{}<|call|>',
    ],
    [
      'the role doubled after a new start',
      '<|start|>assistantassistant<|channel|>commentary to=functions.get_weather ' +
        '<|constrain|>json<|message|>{}<|call|>',
    ],
    [
      'a whole new start',
      '<|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{}<|call|>',
    ],
    ['the channel token forgotten', 'commentary to=functions.get_weather <|constrain|>json<|message|>{}<|call|>'],
    [
      'the channel given twice',
      '<|channel|>analysis<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{}<|call|>',
    ],
    [
      'a second <|message|>',
      '<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|><|message|>{}<|call|>',
    ],
    [
      'reserved tokens inside',
      '<|channel|>commentary<|endofprompt|> to=functions.get_weather ' +
        '<|constrain|>json<|message|>{<|endofprompt|>}<|call|>',
    ],
  ])('%s', (_, text) => expect(read(text)).toEqual([call]));

  test('a plain content type', () => {
    expect(read(' to=functions.get_weather<|channel|>commentary json<|message|>{}<|call|>')).toEqual([
      { ...call, contentType: 'json' },
    ]);
    expect(read('<|channel|>final json<|message|>{}<|return|>')).toEqual([
      { role: 'assistant', channel: 'final', contentType: 'json', content: '{}', terminator: 'return' },
    ]);
  });
  test('a bare word that is a recipient', () => {
    expect(read('<|channel|>commentary functions.get_weather<|message|>{}<|call|>')[0]).toMatchObject({
      recipient: 'functions.get_weather',
    });
    expect(read('<|channel|>commentary lookup<|message|>{}<|call|>', { recipients: ['lookup'] })[0]).toMatchObject({
      recipient: 'lookup',
    });
  });
  test('a declared tool with something glued to it', () => {
    expect(
      read('<|channel|>commentary to=functions.get_weathercommentary<|message|>{}<|call|>', {
        recipients: ['functions.get', 'functions.get_weather'],
      })[0],
    ).toMatchObject({ recipient: 'functions.get_weather' });
  });
  test('a function called from analysis', () => {
    expect(read('<|channel|>analysis to=functions.f code<|message|>{}<|call|>')[0]).toMatchObject({
      channel: 'analysis',
      recipient: 'functions.f',
      contentType: 'code',
    });
  });
  test('no channel at all', () =>
    expect(read('<|message|>Hello.<|return|>')).toEqual([
      { role: 'assistant', content: 'Hello.', terminator: 'return' },
    ]));
  test('no header at all', () => {
    expect(read('Hello.<|return|>')).toEqual([{ role: 'assistant', content: 'Hello.', terminator: 'return' }]);
    const long = 'It is a long answer that never had a header,\nand it goes on.';
    expect(read(`${long}<|end|>`)).toEqual([{ role: 'assistant', content: long, terminator: 'end' }]);
  });
  test('<|message|> forgotten', () => {
    expect(read('<|channel|>final Hello there<|return|>')).toEqual([
      { role: 'assistant', channel: 'final', content: 'Hello there', terminator: 'return' },
    ]);
    expect(read('<|channel|>final\nHello there, how are you today?<|return|>')).toEqual([
      { role: 'assistant', channel: 'final', content: 'Hello there, how are you today?', terminator: 'return' },
    ]);
    expect(read('<|channel|>final<|return|>')).toEqual([
      { role: 'assistant', channel: 'final', content: '', terminator: 'return' },
    ]);
    expect(read('<|channel|>commentary to=functions.f <|constrain|>json{"a":1}<|call|>')[0]).toMatchObject({
      recipient: 'functions.f',
    });
  });
  test('<|end|> forgotten before the next start or channel', () => {
    const two = [
      { role: 'assistant', channel: 'analysis', content: 'a', terminator: 'none' },
      { role: 'assistant', channel: 'final', content: 'b', terminator: 'return' },
    ];
    expect(read('<|channel|>analysis<|message|>a<|start|>assistant<|channel|>final<|message|>b<|return|>')).toEqual(
      two,
    );
    expect(read('<|channel|>analysis<|message|>a<|channel|>final<|message|>b<|return|>')).toEqual(two);
  });
  test('start forgotten after an end', () => {
    for (const middle of [
      'assistant<|channel|>final<|message|>',
      '<|start|>assistantassistant<|channel|>final<|message|>',
      '<|channel|>final<|message|>',
      '\n<|channel|>final<|message|>',
      'final<|message|>',
    ]) {
      expect(
        read(`<|channel|>analysis<|message|>a<|end|>${middle}b<|return|>`).map((m) => [m.channel, m.content]),
      ).toEqual([
        ['analysis', 'a'],
        ['final', 'b'],
      ]);
    }
    expect(read('<|channel|>analysis<|message|>a<|end|>So it is four.<|return|>').map((m) => m.content)).toEqual([
      'a',
      'So it is four.',
    ]);
  });
  test('any terminator anywhere', () => {
    for (const t of ['<|return|>', '<|call|>', '<|end|>', '<|endoftext|>']) {
      expect(
        read(`<|channel|>analysis<|message|>a${t}<|start|>assistant<|channel|>final<|message|>b${t}`).map(
          (m) => m.content,
        ),
      ).toEqual(['a', 'b']);
      expect(read(t.repeat(3))).toEqual([]);
      expect(read(`<|start|>${t}<|start|>assistant${t}`).map((m) => m.content)).toEqual(['']);
    }
  });
  test('cut short', () => {
    expect(read('<|channel|>analysis<|message|>half a tho')).toEqual([
      { role: 'assistant', channel: 'analysis', content: 'half a tho', terminator: 'none' },
    ]);
    for (const text of [
      '',
      '<|channel|>',
      '<|channel|>ana',
      '<|channel|>commentary to=functions.f',
      '<|start|>',
      '<|start|>assis',
    ])
      expect(read(text).filter((m) => m.content !== '' && m.content !== 'assis')).toEqual([]);
  });
  test('an unknown role is a tool; a tool without a recipient too', () => {
    expect(read('<|start|>functions.f<|message|>1<|end|>', { completion: false })).toEqual([
      { role: 'tool', name: 'functions.f', content: '1', terminator: 'end' },
    ]);
    expect(read('<|start|>user:ann<|message|>1<|end|>', { completion: false })).toEqual([
      { role: 'user', name: 'ann', content: '1', terminator: 'end' },
    ]);
  });
});

describe('streaming', () => {
  test('a character split over tokens comes whole, an unfinished one as U+FFFD at the end', () => {
    const parser = new HarmonyParser(small);
    const bytes = [...Buffer.from('é👍')].map((b) => 255 - b); // the small vocabulary's byte tokens
    const head = ids(small, '<|channel|>final<|message|>');
    for (const id of head) parser.push(id);
    const deltas = bytes.map((b) => parser.push(b).map((e) => (e.type === 'delta' ? e.text : e.type)));
    expect(deltas).toEqual([[], ['é'], [], [], [], ['👍']]);
    parser.push(255 - 0xf0);
    const end = parser.push(small.special['<|return|>']!);
    expect(end.map((e) => (e.type === 'delta' ? e.text : e.type))).toEqual(['\ufffd', 'end']);
    expect(parser.messages[0]!.content).toBe('é👍\ufffd');
  });

  test('a character that ASCII follows in place of its rest is U+FFFD before that, and after it text is text', () => {
    const parser = new HarmonyParser(small);
    for (const id of ids(small, '<|channel|>final<|message|>')) parser.push(id);
    const told = [...Buffer.from('a\u00e9').subarray(0, 2), ...Buffer.from('bc')].map((byte) =>
      parser.push(255 - byte).map((e) => (e.type === 'delta' ? e.text : e.type)),
    );
    expect(told).toEqual([['a'], [], ['\ufffdb'], ['c']]);
  });

  test('the header is known before its text, and which channel is open at every token', () => {
    const parser = new HarmonyParser(o200k);
    const open = golden.completion.map((id: number) => {
      parser.push(id);
      return parser.current?.channel ?? null;
    });
    expect(open.slice(0, 4)).toEqual([null, null, 'analysis', 'analysis']);
    expect(open.at(-2)).toBe('final');
    expect(open.at(-1)).toBe(null);
  });
});

describe('any sequence of tokens', () => {
  const cases = 25_000;
  test.each([
    ['small', (): Tokenizer => small],
    ['o200k', (): Tokenizer => o200k],
  ] as const)(
    `${cases} random ones, %s vocabulary`,
    (_, vocabulary) => {
      const t = vocabulary();
      const r = random(99);
      const control = Object.values(t.special);
      const main = [
        '<|start|>',
        '<|end|>',
        '<|message|>',
        '<|channel|>',
        '<|constrain|>',
        '<|return|>',
        '<|call|>',
      ].map((n) => t.special[n]!);
      const pieces = [
        'assistant',
        'user',
        'tool',
        ' to=',
        'functions.f',
        'analysis',
        'final',
        ' json',
        '\n',
        ' ',
        'hello',
        '中',
        '{"a"',
        'to=',
        '\ufeff',
      ].map((s) => [...t.encode(s)]);
      const strange = [
        -1,
        t.vocabSize,
        t.vocabSize + 1000,
        2 ** 31,
        2 ** 40,
        Number.NaN,
        0.5,
        Number.POSITIVE_INFINITY,
      ];
      let numMessages = 0;
      for (let i = 0; i < cases; i++) {
        const tokens: number[] = [];
        for (let n = r.below(24); n >= 0; n--) {
          const kind = r.below(10);
          if (kind < 4) tokens.push(r.pick(main));
          else if (kind < 7) tokens.push(...r.pick(pieces));
          else if (kind < 8)
            tokens.push(r.below(Math.min(...control))); // half characters among them
          else if (kind < 9) tokens.push(r.pick(control));
          else tokens.push(r.pick(strange));
        }
        const parser = new HarmonyParser(t, { completion: r.below(2) === 0, recipients: ['functions.f', ''] });
        const events: ParseEvent[] = tokens.flatMap((id) => parser.push(id));
        events.push(...parser.finish(), ...parser.finish());
        checkStream(events, parser.messages);
        numMessages += parser.messages.length;
        // What it says can be written down again, unless the text itself spells a control token.
        if (!tokens.some((id) => id < Math.min(...control) && Buffer.from(t.bytes(id)).includes('|'))) {
          for (const m of parser.messages)
            if ((m.content + (m.channel ?? '') + (m.recipient ?? '') + (m.name ?? '')).includes('<|'))
              throw new Error(`a control token as text: ${JSON.stringify(m)}`);
        }
        const again = parseTokens(renderConversation({ messages: parser.messages }, t), t, { completion: false });
        if (again.length !== parser.messages.length)
          throw new Error(`${parser.messages.length} messages, written down and read again ${again.length}`);
      }
      expect(numMessages).toBeGreaterThan(cases);
    },
    240_000,
  );
});

/** header, deltas, end per message, in order; the deltas make up the content; all of it valid Unicode. */
function checkStream(events: readonly ParseEvent[], messages: readonly ParsedMessage[]): void {
  let open = -1;
  let text = '';
  let ended = 0;
  for (const e of events) {
    if (e.message !== ended) throw new Error(`event of message ${e.message} while ${ended} is next`);
    if (e.type === 'header') {
      if (open === e.message) throw new Error('two headers');
      open = e.message;
      text = '';
    }
    if (e.type === 'delta') {
      if (open !== e.message || e.text === '' || !e.text.isWellFormed())
        throw new Error(`bad delta ${JSON.stringify(e.text)}`);
      text += e.text;
    }
    if (e.type === 'end') {
      if (open !== e.message || e.value.content !== text || e.value !== messages[e.message])
        throw new Error('end does not match');
      ended++;
    }
  }
  if (ended !== messages.length) throw new Error(`${messages.length} messages, ${ended} ends`);
}
