// Entry of the thread that compiles schemas and checks what claims them.
import { serve } from '../base/channel-worker.js';
import type { Checker } from './grammar/check.js';
import type { Vocabulary } from './grammar/vocabulary.js';
import type { StructureCalls, StructureOptions } from './structures.js';

/** Schemas that are remembered. */
const MOST = 128;

await serve<StructureCalls, null, StructureOptions>(async ({ model, vocabSize }) => {
  const { createChecker } = await import('./grammar/check.js');
  const known = new Map<string, Checker>();
  const checkerOf = (schema: unknown): Checker => {
    const key = JSON.stringify(schema);
    const checker = known.get(key) ?? createChecker(schema);
    known.delete(key);
    known.set(key, checker);
    if (known.size > MOST) known.delete(known.keys().next().value!);
    return checker;
  };
  let vocabulary: Vocabulary | undefined;
  return {
    info: null,
    handlers: {
      async vocabulary() {
        if (!vocabulary) {
          const { vocabularyOf } = await import('./grammar/vocabulary.js');
          const { loadTokenizer } = await import('../harmony/tokenizer.js');
          const tokenizer = loadTokenizer(model, { vocabSize });
          vocabulary = vocabularyOf(tokenizer, vocabSize);
          tokenizer.close();
        }
        return vocabulary;
      },
      compile: (schema) => checkerOf(schema).checked,
      check: ({ schema, text }) => checkerOf(schema).check(text),
    },
  };
});
