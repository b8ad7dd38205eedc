// Rows of `screen` as clients dump them: what the assistant wrote is judged, all of it; the rest is passed over.
import { expect, it } from 'vitest';
import { sha256 } from '../../src/base/digest.js';
import { parseRow } from '../../src/safeguard/batch/row.js';

const channels = (row: object | string): unknown =>
  parseRow('r.jsonl', 1, typeof row === 'string' ? row : JSON.stringify(row)).channels;
const q = { role: 'user', content: 'Book' };
const a = { role: 'assistant', content: 'Booked' };
const final = { final: 'Booked' };

it.each<[string, object, object]>([
  [
    'what the openai package and vLLM dump',
    {
      messages: [
        q,
        { ...a, refusal: null, annotations: null, audio: null, function_call: null, tool_calls: [], name: null },
      ],
    },
    final,
  ],
  ['empty annotations', { messages: [q, { ...a, annotations: [] }] }, final],
  [
    'annotations, which are the answer’s too',
    { messages: [q, { ...a, annotations: [{ title: 'bad' }] }] },
    { ...final, other: 'annotations {"title":"bad"}' },
  ],
  [
    'a call of the old form',
    { messages: [q, { ...a, function_call: { name: 'f', arguments: 'bad' } }] },
    { ...final, commentary: '{"name":"f","arguments":"bad"}' },
  ],
  [
    'a picture that the user sent',
    {
      messages: [
        { role: 'user', content: [{ type: 'image_url', image_url: { url: 'https://example.org/a.png' } }] },
        a,
      ],
    },
    final,
  ],
  [
    'parts as the Responses API has them',
    {
      messages: [
        { role: 'user', content: [{ type: 'input_text', text: 'Book' }] },
        { role: 'assistant', content: [{ type: 'output_text', text: 'Booked', annotations: [] }] },
      ],
    },
    final,
  ],
  [
    'a refusal part',
    { messages: [q, { role: 'assistant', content: [{ type: 'refusal', refusal: 'No' }] }] },
    { final: 'No' },
  ],
  [
    'a streamed call',
    {
      messages: [
        q,
        {
          role: 'assistant',
          content: null,
          tool_calls: [{ index: 0, id: 'c', type: 'function', function: { name: 'f', arguments: '{}' } }],
        },
      ],
    },
    { commentary: 'to=functions.f {}' },
  ],
  ['a channel that is null', { channels: { analysis: null, final: 'Booked' } }, final],
  ['null for absent', { id: null, text: 'Booked', channel: null, channels: null, messages: null, policy: null }, final],
  [
    'rows of training',
    { messages: [q, { ...a, weight: 1 }], tools: [], parallel_tool_calls: false, reasoning_effort: 'low' },
    final,
  ],
])('%s', (_, row, wanted) => expect(channels(row)).toEqual(wanted));

it.each<[string, string, string]>([
  ['a picture of the assistant', '{"messages":[{"role":"assistant","content":[{"type":"image_url"}]}]}', 'row_schema'],
  [
    'sound of the assistant',
    '{"messages":[{"role":"assistant","content":"a","audio":{"transcript":"bad"}}]}',
    'row_schema',
  ],
  [
    'a field that nobody would judge',
    '{"messages":[{"role":"assistant","content":"a","thoughts":"bad"}]}',
    'row_schema',
  ],
  ['half of a surrogate pair', '{"text":"a\\ud800"}', 'row_utf8'],
  ['a channel whose text would get lost', '{"channels":{"__proto__":"bad","final":"a"}}', 'row_schema'],
  [
    'a call with a key that would get lost',
    '{"messages":[{"role":"assistant","content":"a","tool_calls":[{"__proto__":"bad"}]}]}',
    'row_schema',
  ],
  [
    'a call of the old form with such a key',
    '{"messages":[{"role":"assistant","content":"a","function_call":{"arguments":{"__proto__":"bad"}}}]}',
    'row_schema',
  ],
  ['an id of more digits than a number has', '{"id":12345678901234567890,"text":"a"}', 'row_schema'],
])('%s is refused', (_, row, code) => expect(() => channels(row)).toThrow(expect.objectContaining({ code })));

it('texts that differ have digests that differ, though UTF-8 has no word for them', () => {
  expect(new Set(['a\ud800', 'a\udc00', 'a\ufffd', 'a'].map(sha256)).size).toBe(4);
});
