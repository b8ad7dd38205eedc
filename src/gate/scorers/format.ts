// Form: whether what a model writes is a turn of harmony that ends, and not one block over and over.
import { z } from 'zod';
import { parseJson } from '../../base/json.js';
import { converse, finalOf, scorer } from './scorer.js';

const KNOWN = ['analysis', 'commentary', 'final'];
/** Spellings of control tokens in text: written letter by letter, they are none, and show that the form slipped. */
const CONTROL = /<[|｜](?:start|end|message|channel|return|call|constrain)[|｜]>/u;

export const format = scorer({
  name: 'format',
  about: 'The form of an answer: its channels, its end, and whether there is a final message at all.',
  values: {
    invalid: 'no final message and no call, an unknown channel or role, control tokens as text, or not of the form',
    truncated: 'it ran out of tokens',
    repeats: 'it was ended as one block over and over',
  },
  expect: z
    .strictObject({
      json: z.boolean().describe('the final is JSON').optional(),
      matches: z.string().min(1).describe('pattern that the whole final has').optional(),
    })
    .optional(),
  judges: false,
  async score(prompt, tools) {
    const answers = await converse(prompt, tools);
    const bad = answers.some((a) => {
      const final = finalOf(a);
      const strange = a.messages.some((m) => m.role !== 'assistant' || !KNOWN.includes(m.channel ?? ''));
      const nothing = final.trim() === '' && a.finish !== 'call';
      const spelt = Object.values(a.channels).some((text) => CONTROL.test(text));
      return nothing || strange || spelt;
    });
    const last = finalOf(answers.at(-1) ?? { channels: {}, finish: 'stop', cut: null, tokens: 0, messages: [] });
    const { json = false, matches } = prompt.expect ?? {};
    const unlike =
      (json && !isJson(last)) || (matches !== undefined && !new RegExp(`^(?:${matches})$`, 'u').test(last));
    return {
      values: {
        invalid: Number(bad || unlike),
        truncated: Number(answers.some((a) => a.finish === 'length' && a.cut === null)),
        repeats: Number(answers.some((a) => a.cut === 'repetition')),
      },
      answers,
    };
  },
});

function isJson(text: string): boolean {
  try {
    parseJson(text);
    return true;
  } catch {
    return false;
  }
}
