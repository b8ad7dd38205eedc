// Entry of the thread that compiles schemas and checks what claims them. It gives way to the one that computes.
import { setPriority } from 'node:os';
import { join } from 'node:path';
import { cacheFolder } from '../base/cache.js';
import { serve } from '../base/channel-worker.js';
import { sha256File } from '../base/digest.js';
import { makeFolders } from '../base/folders.js';
import type { Checker } from './grammar/check.js';
import type { Grammar } from './grammar/grammar.js';
import type { Vocabulary } from './grammar/vocabulary.js';
import type { LaneOptions, StructureCalls, StructureOptions } from './structures.js';

/** Schemas that are remembered. */
const MOST = 64;
/** Lower than any other thread of this process; only Linux counts it by thread. */
const NICE = 5;

interface Known {
  readonly checker: Checker;
  /** With its masks. */
  grammar: Grammar | null;
}
/** What there was no time for is not tried again. */
interface GivenUp {
  readonly error: unknown;
}

/** Where the arrays of a tokenizer are kept; null: nowhere. */
async function vocabularyFile(model: string, vocabSize: number): Promise<string | null> {
  const folder = cacheFolder('vocabularies');
  if (folder === null) return null;
  try {
    makeFolders(folder, 0o700);
    return join(folder, `${await sha256File(join(model, 'tokenizer.json'))}-${vocabSize}.bin`);
  } catch {
    return null;
  }
}
async function makeVocabulary({ model, vocabSize }: StructureOptions): Promise<Vocabulary> {
  const { keepVocabulary, readVocabulary } = await import('./grammar/vocabulary-file.js');
  const file = await vocabularyFile(model, vocabSize);
  const known = file === null ? null : readVocabulary(file);
  if (known) return known;
  const { vocabularyOf } = await import('./grammar/vocabulary.js');
  const { loadTokenizer } = await import('../harmony/tokenizer.js');
  const tokenizer = loadTokenizer(model, { vocabSize });
  try {
    const vocabulary = vocabularyOf(tokenizer, vocabSize);
    if (file !== null) keepVocabulary(file, vocabulary);
    return vocabulary;
  } finally {
    tokenizer.close();
  }
}

await serve<StructureCalls, null, LaneOptions>(async (options) => {
  if (process.platform === 'linux') setPriority(0, NICE);
  const { createChecker } = await import('./grammar/check.js');
  const { withMasks } = await import('./grammar/grammar.js');
  const { isLate } = await import('./grammar/deadline.js');
  const known = new Map<string, Known | GivenUp>();
  const made = (text: string): Known | GivenUp => {
    try {
      return { checker: createChecker(JSON.parse(text), options.mostMs), grammar: null };
    } catch (error) {
      if (isLate(error)) return { error };
      throw error;
    }
  };
  const knownOf = (text: string): Known => {
    const own = known.get(text) ?? made(text);
    known.delete(text);
    known.set(text, own);
    if (known.size > MOST) known.delete(known.keys().next().value!);
    if ('error' in own) throw own.error;
    return own;
  };
  let vocabulary: Promise<Vocabulary> | undefined;
  return {
    info: null,
    handlers: {
      vocabulary() {
        vocabulary ??= makeVocabulary(options);
        return vocabulary;
      },
      async compile(text) {
        const own = knownOf(text);
        vocabulary ??= makeVocabulary(options);
        own.grammar ??= withMasks(own.checker.grammar, await vocabulary);
        return own.grammar;
      },
      check: ({ schema, text }) => knownOf(schema).checker.check(text),
    },
  };
});
