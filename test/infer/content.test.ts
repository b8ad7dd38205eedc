// What of a turn is its answer: the tokens that are told and the text that is shown are of the same messages.
import { describe, expect, it } from 'vitest';
import { Content, isAnswer } from '../../src/infer/content.js';
import { sorter } from '../../src/serve/parts.js';
import { tokenizer } from '../serve/scripted.js';

describe('the answer', () => {
  const sort = sorter(['look']);
  it.each([
    ['final', null, true],
    ['commentary', null, true],
    ['commentary', 'all', true],
    ['commentary', 'functions.look', false],
    ['commentary', 'functions.other', false],
    ['analysis', null, false],
    ['notes', null, false],
    [undefined, null, false],
  ] as const)('on %s to %s: %s', (channel, recipient, answers) => {
    const written = { role: 'assistant' as const, recipient, ...(channel === undefined ? {} : { channel }) };
    expect(isAnswer(written)).toBe(answers);
    expect(sort(written, 0).kind === 'content').toBe(answers);
  });
  it('has the tokens of its text, up to the one that a stop string ends in', () => {
    const content = new Content(tokenizer, ['.'], 0);
    let text = '';
    for (const token of tokenizer.encode('One. Two')) {
      content.token(token, -1, []);
      if (content.stopped) break;
      text += content.delta({
        message: 0,
        text: tokenizer.decode([token]),
        channel: 'final',
        recipient: null,
        role: 'assistant',
      }).text;
    }
    expect(text).toBe('One');
    expect(content.stop).toBe('.');
  });
});
