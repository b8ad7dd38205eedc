// What is judged: nothing that a model wrote is left out, however it wrote it, and every way in gives the same text.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { tokenizerFromJson } from '../../src/harmony/tokenizer.js';
import { tokenizerJson } from '../../src/harmony/tokenizer-file.js';
import type { Message } from '../../src/harmony/types.js';
import { createTracker } from '../../src/infer/channels.js';
import { parseRow } from '../../src/safeguard/batch/row.js';
import { transcript } from '../../src/safeguard/transcript.js';
import { smallVocabulary } from '../harmony/small.js';

const say = (channel: string | undefined, content: string, more: Partial<Message> = {}): Message => ({
  role: 'assistant',
  content,
  ...(channel === undefined ? {} : { channel }),
  ...more,
});

describe('transcript', () => {
  it('is the text itself where a message is plain', () => {
    expect(transcript([say('analysis', 'a\nb'), say('final', 'c')])).toEqual({ analysis: 'a\nb', final: 'c' });
    expect(transcript([])).toEqual({});
    expect(transcript([say('final', '')])).toEqual({});
  });
  it('heads a tool call with its recipient, and keeps messages of one channel apart and in order', () => {
    expect(
      transcript([
        say('commentary', 'I look it up.'),
        say('commentary', '{"city":"Rome"}', { recipient: 'functions.weather', contentType: '<|constrain|>json' }),
        say('final', 'Sunny'),
        say('commentary', '{}', { recipient: 'functions.weather' }),
        say('final', 'and warm'),
      ]),
    ).toEqual({
      commentary: 'I look it up.\nto=functions.weather {"city":"Rome"}\nto=functions.weather {}',
      final: 'Sunny\nand warm',
    });
  });
  it('has a call without arguments, an unknown channel, a foreign role and an odd type in it', () => {
    expect(
      transcript([
        say('commentary', '', { recipient: 'evil' }),
        say('secret words', 'x'),
        say(undefined, 'y'),
        { role: 'tool', name: 'functions.f', channel: 'final', content: 'z' },
        say('final', 'w', { contentType: 'odd type' }),
        say('final', 'v', { name: 'somebody' }),
      ]),
    ).toEqual({
      commentary: 'to=evil ',
      other: 'secret words x\ny\ntool functions.f final z',
      final: 'odd type w\nsomebody v',
    });
  });

  const field = fc.string({ maxLength: 12, unit: 'grapheme' });
  const message = fc.record(
    {
      role: fc.constantFrom('assistant', 'user', 'tool', 'system', 'developer'),
      name: field,
      channel: fc.oneof(fc.constantFrom('analysis', 'commentary', 'final'), field),
      recipient: field,
      contentType: fc.oneof(fc.constantFrom('json', '<|constrain|>json'), field),
      content: field,
    },
    { requiredKeys: ['role', 'content'] },
  ) as fc.Arbitrary<Message>;

  it('leaves no field of any message out, and lets nobody else speak on a channel of the assistant', () => {
    fc.assert(
      fc.property(fc.array(message, { maxLength: 6 }), (messages) => {
        const judged = transcript(messages);
        for (const m of messages) {
          const own = m.role === 'assistant' && ['analysis', 'commentary', 'final'].includes(m.channel ?? '');
          const text = judged[own ? (m.channel ?? '') : 'other'] ?? '';
          for (const [key, value] of Object.entries(m) as [keyof Message, string][]) {
            const said = (key === 'role' && value === 'assistant') || (key === 'channel' && own);
            const plain = key === 'contentType' && ['json', '<|constrain|>json'].includes(value);
            if (!said && !plain) expect(text).toContain(value);
          }
        }
        expect(Object.keys(judged).every((c) => ['analysis', 'commentary', 'final', 'other'].includes(c))).toBe(true);
      }),
    );
  });

  it('holds every piece that streamed from any tokens, on the channel it streamed on', () => {
    const tokenizer = tokenizerFromJson(tokenizerJson(smallVocabulary()));
    const ids = Object.values(tokenizer.special);
    const words = [
      'analysis',
      'final',
      'commentary',
      ' to=functions.f',
      'assistant',
      'user',
      'tool.x',
      ' hi',
      '\n',
      '7',
    ];
    const token = fc.oneof(
      fc.constantFrom(...ids).map((id) => [id]),
      fc.constantFrom(...words).map((w) => [...tokenizer.encode(w)]),
    );
    let pieces = 0;
    fc.assert(
      fc.property(fc.array(token, { maxLength: 40 }), (tokens) => {
        const tracker = createTracker(tokenizer);
        const streamed = tokens.flat().flatMap((id) => [...tracker.push(id)]);
        const { deltas, messages } = tracker.end();
        const judged = transcript(messages);
        const at: Record<string, number> = {};
        for (const d of [...streamed, ...deltas]) {
          const channel = ['analysis', 'commentary', 'final'].includes(d.channel) ? d.channel : 'other';
          const text = judged[channel] ?? '';
          // In order: each piece stands behind the one before.
          const found = text.indexOf(d.text, at[channel] ?? 0);
          expect(found).toBeGreaterThanOrEqual(0);
          at[channel] = found + d.text.length;
          if (d.recipient !== null) expect(text).toContain(`to=${d.recipient} `);
          pieces++;
        }
      }),
      { numRuns: 500 },
    );
    expect(pieces).toBeGreaterThan(500);
    tokenizer.close();
  });
});

describe('a screened row', () => {
  const channels = (messages: unknown[]): unknown => parseRow('r.jsonl', 1, JSON.stringify({ messages })).channels;
  it('gives the text that generating it would have given', () => {
    expect(
      channels([
        { role: 'user', content: 'weather?' },
        {
          role: 'assistant',
          thinking: 'look it up',
          content: null,
          tool_calls: [{ id: 'call_1', type: 'function', function: { name: 'weather', arguments: '{"city":"Rome"}' } }],
        },
        { role: 'tool', tool_call_id: 'call_1', content: 'sunny' },
        { role: 'assistant', reasoning_content: 'so it is', content: 'Sunny' },
      ]),
    ).toEqual(
      transcript([
        say('analysis', 'look it up'),
        say('commentary', '{"city":"Rome"}', { recipient: 'functions.weather', contentType: 'json' }),
        say('analysis', 'so it is'),
        say('final', 'Sunny'),
      ]),
    );
  });
  it('has calls of any other shape in it whole', () => {
    for (const call of [
      { id: 'kill them all', function: { name: 'f', arguments: '{}' } },
      { function: { name: 'f', arguments: '{}', note: 'hidden' } },
      { type: 'custom', custom: { name: 'f', input: 'text' } },
    ])
      expect(channels([{ role: 'assistant', content: 'ok', tool_calls: [call] }])).toEqual({
        final: 'ok',
        commentary: JSON.stringify(call),
      });
    expect(channels([{ role: 'assistant', content: 'x', refusal: 'no', channel: 'strange' }])).toEqual({
      other: 'strange x',
      final: 'no',
    });
  });
});
