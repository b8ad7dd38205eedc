// Random conversations for the properties of render and parse.
import fc from 'fast-check';
import type { Message } from '../../src/harmony/types.js';

/**
 * Text with everything in it that could upset a template: control tokens as characters, line breaks, other scripts,
 * empty.
 */
export const text = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 30 }),
  fc.string({ unit: 'grapheme', maxLength: 30 }),
  fc
    .array(
      fc.constantFrom(
        '<|end|>',
        '<|start|>',
        'assistant',
        '<|channel|>final<|message|>',
        ' to=functions.x',
        '<|call|>',
        '\n',
        ' ',
        'he',
        'hello',
        '中国',
        '\ufeff',
        '👩‍👩‍👧',
        '\u0301',
      ),
      { maxLength: 8 },
    )
    .map((parts) => parts.join('')),
);
const word = fc.stringMatching(/^[a-z][a-z0-9_]{0,8}$/);
const tool = word.map((w) => `functions.${w}`);

const analysis = text.map((content): Message => ({ role: 'assistant', channel: 'analysis', content }));
const preamble = text.map((content): Message => ({ role: 'assistant', channel: 'commentary', content }));
const final = text.map((content): Message => ({ role: 'assistant', channel: 'final', content }));
const callAndResult = fc
  .tuple(tool, fc.constantFrom('<|constrain|>json', 'json', 'code', undefined), text, text)
  .map(([name, contentType, content, result]): Message[] => [
    {
      role: 'assistant',
      channel: 'commentary',
      recipient: name,
      ...(contentType === undefined ? {} : { contentType }),
      content,
    },
    { role: 'tool', name, recipient: 'assistant', channel: 'commentary', content: result },
  ]);
const step = fc.oneof(
  analysis.map((m) => [m]),
  preamble.map((m) => [m]),
  callAndResult,
  fc.tuple(analysis, callAndResult).map(([a, c]) => [a, ...c]),
);
const turn = fc
  .tuple(text, fc.array(step, { maxLength: 3 }), final)
  .map(([content, steps, end]): Message[] => [{ role: 'user', content }, ...steps.flat(), end]);
const opening = fc.constantFrom<Message[]>(
  [],
  [{ role: 'system', content: 'Reasoning: low' }],
  [
    { role: 'system', content: '' },
    { role: 'developer', content: '# Instructions\n\nBe brief.' },
  ],
);

/** A dialogue of whole turns; `open` may leave the last one without its end. */
export const conversation = fc
  .tuple(opening, fc.array(turn, { minLength: 1, maxLength: 4 }), fc.nat(3))
  .map(([start, turns, cut]) => ({ messages: [...start, ...turns.flat()].slice(0, cut > 0 ? undefined : -1) }));

/** Any message the format can hold, in any order. */
const anyHeader = fc
  .record({
    role: fc.constantFrom('system', 'developer', 'user', 'assistant'),
    channel: fc.option(fc.oneof(fc.constantFrom('analysis', 'commentary', 'final'), word), { nil: undefined }),
    recipient: fc.option(fc.oneof(tool, fc.constantFrom('python', 'assistant', 'browser.search')), { nil: undefined }),
    contentType: fc.option(fc.constantFrom('<|constrain|>json', '<|constrain|>', 'json', 'code'), { nil: undefined }),
    name: fc.option(word, { nil: undefined }),
    content: text,
  })
  .filter((m) => m.contentType === undefined || m.channel !== undefined || m.recipient !== undefined)
  .map((m) => Object.fromEntries(Object.entries(m).filter(([, v]) => v !== undefined)) as unknown as Message);
export const anyMessages = fc.array(
  fc.oneof(
    anyHeader,
    tool.chain((name) => text.map((content): Message => ({ role: 'tool', name, content }))),
  ),
  { maxLength: 6 },
);
