// Plain text to learn as it is, ended by <|endoftext|>: {"text": "…"}. Control tokens written in the text stay text; a
// whole conversation rendered into it is refused.
import { z } from 'zod';
import { DataError } from '../../base/errors.js';
import { beginning } from '../../harmony/render.js';
import type { Format } from '../format.js';
import { checkPlainText, RENDERED } from '../markup.js';

const Row = z.strictObject({ text: z.string().min(1).describe('the text, trained whole') });

export const text: Format<z.infer<typeof Row>> = {
  name: 'text',
  row: Row,
  recognise: (r) => (typeof r.text === 'string' && !RENDERED.test(r.text) ? 'text' : null),
  check(row, context) {
    checkPlainText(row.text, context);
  },
  toExamples(row, context) {
    checkPlainText(row.text, context);
    const tokenizer = context.tokenizer();
    const end = tokenizer.special['<|endoftext|>'];
    if (end === undefined)
      throw new DataError(
        'no_end_of_text',
        'the tokenizer has no <|endoftext|>, which ends a text row; use the tokenizer.json released with gpt-oss',
      );
    const body = tokenizer.encode(beginning(row.text, context.maxTokens, tokenizer));
    const ids = new Int32Array(body.length + 1);
    ids.set(body);
    ids[body.length] = end;
    return [{ tokens: ids, weights: new Float32Array(ids.length).fill(1) }];
  },
};
