// Loads a tokenizer and gives it the face of types.ts. Merging happens in native code; this file knows ids, bytes and
// names.
import { createHash } from 'node:crypto';
import { CheckpointError, NativeError } from '../base/errors.js';
import { Bpe } from '../native/bpe.js';
import { controlTokens, packTokens, parseTokenizerJson, readTokenizerJson, type Vocabulary } from './tokenizer-file.js';
import type { Tokenizer } from './types.js';

export interface TokenizerOptions {
  /**
   * Rows of the model's embedding; gpt-oss has more (201,088) than its tokenizer has ids (200,019). Default: the
   * tokenizer's own count.
   */
  readonly vocabSize?: number;
}

/**
 * @param dirOrFile a checkpoint folder, or a tokenizer.json
 * @throws CheckpointError tokenizer_… (tokenizer-file.ts), tokenizer_vocab_size
 */
export function loadTokenizer(dirOrFile: string, options: TokenizerOptions = {}): Tokenizer {
  const vocabulary = readTokenizerJson(dirOrFile);
  return createTokenizer(vocabulary, vocabulary.file, options);
}

/** From the text of a tokenizer.json. @param file for messages */
export function tokenizerFromJson(text: string, file = 'tokenizer.json', options: TokenizerOptions = {}): Tokenizer {
  return createTokenizer(parseTokenizerJson(text, file), file, options);
}

/**
 * A tokenizer from tiktoken's kind of ranks: ranks[i] is the token with id i.
 * @param special control tokens; default gpt-oss's, after the last rank
 */
export function tokenizerFromRanks(
  ranks: readonly Uint8Array[],
  options: TokenizerOptions & { readonly special?: ReadonlyMap<string, number> } = {},
): Tokenizer {
  const vocabulary = {
    ...packTokens(ranks),
    merges: new Uint32Array(0),
    wholePiece: true,
    special: options.special ?? controlTokens(ranks.length),
  };
  return createTokenizer(vocabulary, 'ranks', options);
}

function createTokenizer(v: Vocabulary, file: string, options: TokenizerOptions): Tokenizer {
  const numOrdinary = v.offsets.length - 1;
  const numKnown = numOrdinary + v.special.size;
  const vocabSize = options.vocabSize ?? numKnown;
  if (!Number.isInteger(vocabSize) || vocabSize < numKnown) {
    throw new CheckpointError(
      'tokenizer_vocab_size',
      `${file}: has ${numKnown} ids, the model only ${vocabSize} embedding rows; tokenizer and ` +
        'checkpoint do not belong together',
      { file },
    );
  }
  let bpe: Bpe;
  try {
    bpe = new Bpe(v);
  } catch (cause) {
    if (cause instanceof NativeError && cause.code.startsWith('tokenizer_'))
      throw new CheckpointError(cause.code, `${file}: ${cause.message}`, { file }, { cause });
    throw cause;
  }
  let longest = 1;
  for (let i = 0; i < numOrdinary; i++) longest = Math.max(longest, (v.offsets[i + 1] ?? 0) - (v.offsets[i] ?? 0));
  const nameOf = new Map([...v.special].map(([name, id]) => [id, Buffer.from(name, 'utf8')]));
  const ordinary = (id: number): boolean => id >= 0 && id < numOrdinary && Number.isInteger(id);
  const bytes = (id: number): Uint8Array => (ordinary(id) ? v.bytes.subarray(v.offsets[id], v.offsets[id + 1]) : EMPTY);

  return {
    vocabSize,
    special: Object.freeze(Object.fromEntries(v.special)),
    longestToken: longest,
    encode: (text) => bpe.encode(text),
    bytes,
    isSpecial: (id) => !ordinary(id),
    decode(tokens) {
      const parts: Uint8Array[] = [];
      for (let i = 0; i < tokens.length; i++) {
        const id = tokens[i]!;
        parts.push(ordinary(id) ? bytes(id) : (nameOf.get(id) ?? Buffer.from(`<|reserved_${id}|>`)));
      }
      return Buffer.concat(parts).toString('utf8');
    },
    digest: digest(v),
    close: () => bpe.close(),
  };
}

const EMPTY = new Uint8Array(0);

function digest(v: Vocabulary): string {
  const hash = createHash('sha256');
  // little-endian machines only, as the checkpoint's bytes
  const words = (a: Uint32Array): Uint8Array => new Uint8Array(a.buffer, a.byteOffset, a.byteLength);
  hash
    .update(words(v.offsets))
    .update(v.bytes)
    .update(words(v.merges))
    .update(JSON.stringify([v.wholePiece, ...v.special]));
  return hash.digest('hex');
}
