// A vocabulary of a few hundred tokens for tests: the 256 bytes and some merges, whatever order they come in.
import type { OwnVocabulary } from '../../src/harmony/tokenizer-file.js';

const WORDS = [
  'he',
  'll',
  'hell',
  'hello',
  ' h',
  'th',
  'the',
  ' the',
  'in',
  'ing',
  'er',
  'an',
  'and',
  ' and',
  'on',
  '中',
  '国',
  '中国',
  '12',
  '123',
  '  ',
  '\n\n',
  ' a',
  'as',
  'st',
  'ant',
  'assist',
  'fin',
  'al',
  'final',
];

export function smallVocabulary(): OwnVocabulary {
  const tokens: Uint8Array[] = Array.from({ length: 256 }, (_, i) => Uint8Array.of(255 - i));
  const idOf = new Map(tokens.map((t, i) => [Buffer.from(t).toString('latin1'), i]));
  const merges: [number, number][] = [];
  const add = (name: string): void => {
    if (idOf.has(name)) return;
    // Any split into known tokens will do; if there is none, the longest known beginning is extended first.
    for (;;) {
      for (let k = 1; k < name.length; k++) {
        const left = idOf.get(name.slice(0, k));
        const right = idOf.get(name.slice(k));
        if (left === undefined || right === undefined) continue;
        idOf.set(name, tokens.length);
        merges.push([left, right]);
        tokens.push(Buffer.from(name, 'latin1'));
        return;
      }
      let k = name.length - 1;
      while (!idOf.has(name.slice(0, k))) k--;
      add(name.slice(0, k + 1));
    }
  };
  for (const word of WORDS) add(Buffer.from(word, 'utf8').toString('latin1'));
  return { tokens, merges };
}
