// tokenizer.json (the byte-level BPE form gpt-oss ships) to tables and back. Everything else is refused by name,
// nothing is guessed.

import { statSync } from 'node:fs';
import { join } from 'node:path';
import { CheckpointError, type ErrorCode } from '../base/errors.js';
import { writeFileAtomic } from '../base/files.js';
import { parseJson } from '../base/json.js';
import { readJsonFile } from '../base/json-file.js';
import type { BpeTables } from '../native/bpe.js';

/** A tokenizer's tables and its control tokens. Ordinary ids are 0…n−1, control ids follow without a gap. */
export interface Vocabulary extends BpeTables {
  readonly special: ReadonlyMap<string, number>;
}

const UPPER = '[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]';
const LOWER = '[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]';
const SHORT = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?";
/** o200k's split pattern (facts E1), the only one there is native code for. */
export const O200K_PATTERN =
  `[^\\r\\n\\p{L}\\p{N}]?${UPPER}*${LOWER}+${SHORT}|[^\\r\\n\\p{L}\\p{N}]?${UPPER}+${LOWER}*${SHORT}` +
  '|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+';

/** Without these no conversation can be written (facts E1). */
export const REQUIRED_CONTROL_TOKENS = [
  '<|startoftext|>',
  '<|endoftext|>',
  '<|return|>',
  '<|constrain|>',
  '<|channel|>',
  '<|start|>',
  '<|end|>',
  '<|message|>',
  '<|call|>',
] as const;

/** gpt-oss's control tokens as places after the last ordinary id: o200k's 199998…200018. */
const CONTROL_NAMES: readonly string[] = (() => {
  const named: Record<number, string> = {
    0: '<|startoftext|>',
    1: '<|endoftext|>',
    4: '<|return|>',
    5: '<|constrain|>',
    7: '<|channel|>',
    8: '<|start|>',
    9: '<|end|>',
    10: '<|message|>',
    14: '<|call|>',
    20: '<|endofprompt|>',
  };
  return Array.from({ length: 21 }, (_, i) => named[i] ?? '');
})();

/** Name → id for a vocabulary of `numOrdinary` tokens; o200k's 199,998 gives gpt-oss's ids. */
export function controlTokens(numOrdinary: number): Map<string, number> {
  return new Map(CONTROL_NAMES.map((name, i) => [name || `<|reserved_${numOrdinary + i}|>`, numOrdinary + i]));
}

const MAX_FILE_BYTES = 256 * 1024 * 1024; // gpt-oss's own file has 27.9 MB
const MAX_TOKENS = (1 << 20) - 2; // native/tokenizer/bpe.cpp packs ids in 20 bits

// GPT-2's byte alphabet: printable Latin-1 bytes stand for themselves, the other 68 are U+0100, U+0101, … in byte
// order.
const CHAR_OF_BYTE: readonly string[] = (() => {
  let next = 0x100;
  return Array.from({ length: 256 }, (_, b) =>
    String.fromCharCode((b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174 ? b : next++),
  );
})();
const BYTE_OF_CHAR = new Int16Array(0x144).fill(-1);
for (const [b, c] of CHAR_OF_BYTE.entries()) BYTE_OF_CHAR[c.charCodeAt(0)] = b;

/** A token as vocabularies write it: a character of the byte-level alphabet for each byte. */
export const tokenName = (bytes: Uint8Array): string => Array.from(bytes, (b) => CHAR_OF_BYTE[b] ?? '').join('');

type Json = Readonly<Record<string, unknown>>;
const isObject = (v: unknown): v is Json => typeof v === 'object' && v !== null && !Array.isArray(v);

/** A value for a message: short, one line, whatever it is. */
function show(value: unknown): string {
  const text =
    value === undefined
      ? 'nothing'
      : Array.isArray(value)
        ? `an array of ${value.length}`
        : isObject(value)
          ? 'an object'
          : (JSON.stringify(value) ?? typeof value);
  return text.length > 60 ? `${text.slice(0, 57)}…` : text;
}

/**
 * Reads DIR/tokenizer.json, or the file itself.
 * @throws CheckpointError tokenizer_missing, tokenizer_too_large, tokenizer_json, tokenizer_type,
 * tokenizer_unsupported, tokenizer_pattern,
 *   tokenizer_alphabet, tokenizer_duplicate, tokenizer_gap, tokenizer_merge, tokenizer_control_missing
 */
export function readTokenizerJson(dirOrFile: string): Vocabulary & { readonly file: string } {
  let file = dirOrFile;
  let size = 0;
  try {
    if (statSync(file).isDirectory()) file = join(file, 'tokenizer.json');
    size = statSync(file).size;
  } catch {
    // reading it says why
  }
  if (size > MAX_FILE_BYTES)
    throw new CheckpointError(
      'tokenizer_too_large',
      `${file}: ${size} bytes, at most ${MAX_FILE_BYTES} are read; is this a tokenizer.json?`,
      { file },
    );
  const value = readJsonFile(file, 'tokenizer', {
    next: 'a checkpoint folder needs its tokenizer.json',
    missing: (message) => new CheckpointError('tokenizer_missing', message, { file }),
    bad: (what) => notJson(file, what),
  });
  return { ...vocabularyOf(value, file), file };
}

const notJson = (file: string, what: string): CheckpointError =>
  new CheckpointError('tokenizer_json', `${file}: ${what}; download it again`, { file });

/** @param file for messages only. @throws CheckpointError as readTokenizerJson */
export function parseTokenizerJson(text: string, file: string): Vocabulary {
  let value: unknown;
  try {
    value = parseJson(text);
  } catch (e) {
    throw notJson(file, `not JSON: ${(e as Error).message}`);
  }
  return vocabularyOf(value, file);
}

function vocabularyOf(root: unknown, file: string): Vocabulary {
  const fail = (code: ErrorCode, message: string): never => {
    throw new CheckpointError(code, `${file}: ${message}`, { file });
  };
  if (!isObject(root))
    return fail('tokenizer_type', `is ${show(root)}, wanted an object with "model" and "added_tokens"`);
  const model = root.model;
  if (!isObject(model)) return fail('tokenizer_type', `"model" is ${show(model)}, wanted an object`);
  if (model.type !== 'BPE') return fail('tokenizer_unsupported', `model.type is ${show(model.type)}, wanted "BPE"`);
  checkKeys('', root, ROOT_KEYS, fail);
  checkKeys('model.', model, MODEL_KEYS, fail);
  checkPipeline(root, model, fail);

  const special = readAddedTokens(root.added_tokens, fail);
  const { tokens, idOf } = readVocab(model.vocab, special, fail);
  for (const name of REQUIRED_CONTROL_TOKENS) {
    if (!special.has(name))
      fail(
        'tokenizer_control_missing',
        `added_tokens has no ${name}; harmony needs ${REQUIRED_CONTROL_TOKENS.join(' ')}`,
      );
  }
  const controls = [...special].sort((a, b) => a[1] - b[1]);
  for (const [i, [name, id]] of controls.entries()) {
    if (id !== tokens.length + i)
      fail(
        'tokenizer_gap',
        `control token ${name} has id ${id}, wanted ${tokens.length + i}: control ids follow the ` +
          `${tokens.length} ordinary ones without a gap`,
      );
  }
  const merges = readMerges(model.merges, idOf, fail);
  if (merges.length === 0 && tokens.length > 256)
    fail('tokenizer_merge', `model.merges is empty, but the vocabulary has ${tokens.length} tokens`);
  return { ...packTokens(tokens), merges, wholePiece: model.ignore_merges === true, special: new Map(controls) };
}

type Fail = (code: ErrorCode, message: string) => never;

/** Keys of the file, where they are looked at, or why not; any other is refused. */
type Keys = Readonly<Record<string, string>>;
const READ = 'read or checked here';
const ROOT_KEYS: Keys = {
  version: 'of the file format; there is one',
  truncation: 'where the last caller cut rows; here rows are never cut',
  padding: 'how the last caller filled rows up; here none is',
  added_tokens: READ,
  normalizer: READ,
  pre_tokenizer: READ,
  post_processor: READ,
  decoder: READ,
  model: READ,
};
const MODEL_KEYS: Keys = {
  type: READ,
  dropout: READ,
  unk_token: READ,
  continuing_subword_prefix: READ,
  end_of_word_suffix: READ,
  fuse_unk: READ,
  byte_fallback: READ,
  ignore_merges: READ,
  vocab: READ,
  merges: READ,
};
const IN_TEXT = 'how its name is found in text: text is never searched for control tokens here';
const ADDED_KEYS: Keys = {
  id: READ,
  content: READ,
  special: READ,
  single_word: IN_TEXT,
  lstrip: IN_TEXT,
  rstrip: IN_TEXT,
  normalized: IN_TEXT,
};
const STEP_KEYS: Keys = {
  type: READ,
  pattern: READ,
  behavior: READ,
  invert: READ,
  add_prefix_space: 'checked where text is split; after it the bytes are what they are',
  trim_offsets: 'about places in the text, which are not asked for',
  use_regex: READ,
};
function checkKeys(where: string, value: Json, known: Keys, fail: Fail): void {
  const key = Object.keys(value).find((k) => !Object.hasOwn(known, k) && value[k] !== null);
  if (key !== undefined)
    fail(
      'tokenizer_unsupported',
      `${where}${key} is not known here (it is ${show(value[key])}), and what it would change is not guessed`,
    );
}

function checkPipeline(root: Json, model: Json, fail: Fail): void {
  for (const key of [
    'dropout',
    'unk_token',
    'continuing_subword_prefix',
    'end_of_word_suffix',
    'fuse_unk',
    'byte_fallback',
  ]) {
    const v = model[key];
    if (v !== undefined && v !== null && v !== false && v !== '' && v !== 0)
      fail('tokenizer_unsupported', `model.${key} is ${show(v)}, wanted none: byte-level BPE as gpt-oss ships it`);
  }
  const ignore = model.ignore_merges;
  if (ignore !== undefined && typeof ignore !== 'boolean')
    fail('tokenizer_type', `model.ignore_merges is ${show(ignore)}, wanted true or false`);
  if (root.normalizer !== undefined && root.normalizer !== null)
    fail('tokenizer_unsupported', `normalizer is ${show(root.normalizer)}, wanted null`);
  for (const key of ['post_processor', 'decoder']) {
    const v = root[key];
    if (isObject(v) && v.type === 'ByteLevel') checkKeys(`${key}.`, v, STEP_KEYS, fail);
    if (v !== undefined && v !== null && !(isObject(v) && v.type === 'ByteLevel'))
      fail('tokenizer_unsupported', `${key} is ${show(isObject(v) ? v.type : v)}, wanted ByteLevel or null`);
  }
  const pre = root.pre_tokenizer;
  const steps =
    isObject(pre) && pre.type === 'Sequence' && Array.isArray(pre.pretokenizers)
      ? (pre.pretokenizers as unknown[])
      : [];
  for (const [i, step] of steps.entries())
    if (isObject(step)) checkKeys(`pre_tokenizer.pretokenizers[${i}].`, step, STEP_KEYS, fail);
  if (isObject(pre)) checkKeys('pre_tokenizer.', pre, { type: READ, pretokenizers: READ }, fail);
  const [split, level] = steps;
  if (
    steps.length !== 2 ||
    !isObject(split) ||
    split.type !== 'Split' ||
    !isObject(level) ||
    level.type !== 'ByteLevel'
  ) {
    fail('tokenizer_unsupported', "pre_tokenizer: wanted a Sequence of Split (o200k's pattern) and ByteLevel");
  }
  if (isObject(split.pattern)) checkKeys('pre_tokenizer Split pattern.', split.pattern, { Regex: READ }, fail);
  const pattern = isObject(split.pattern) ? split.pattern.Regex : undefined;
  if (pattern !== O200K_PATTERN)
    fail('tokenizer_pattern', `the split pattern is ${show(pattern)}, wanted o200k's; no other pattern is supported`);
  const isolated = split.behavior === 'Isolated' && split.invert !== true;
  // the same: the pattern leaves nothing unmatched
  const removedInverted = split.behavior === 'Removed' && split.invert === true;
  if (!isolated && !removedInverted)
    fail(
      'tokenizer_unsupported',
      `pre_tokenizer Split has behavior ${show(split.behavior)}, invert ${show(split.invert)}; wanted Isolated, false`,
    );
  if (level.add_prefix_space !== false || level.use_regex !== false) {
    fail(
      'tokenizer_unsupported',
      `pre_tokenizer ByteLevel has add_prefix_space ${show(level.add_prefix_space)}, use_regex ` +
        `${show(level.use_regex)}; wanted false, false`,
    );
  }
}

function readAddedTokens(value: unknown, fail: Fail): Map<string, number> {
  if (!Array.isArray(value)) return fail('tokenizer_type', `"added_tokens" is ${show(value)}, wanted an array`);
  const special = new Map<string, number>();
  const ids = new Set<number>();
  for (const [i, entry] of (value as unknown[]).entries()) {
    if (!isObject(entry)) return fail('tokenizer_type', `added_tokens[${i}] is ${show(entry)}, wanted {id, content}`);
    const { id, content } = entry;
    if (typeof content !== 'string' || content === '')
      return fail('tokenizer_type', `added_tokens[${i}].content is ${show(content)}, wanted a name`);
    if (typeof id !== 'number' || !Number.isInteger(id) || id < 0 || id > MAX_TOKENS)
      return fail('tokenizer_type', `added_tokens[${i}].id is ${show(id)}, wanted an integer from 0 to ${MAX_TOKENS}`);
    checkKeys(`added_tokens[${i}].`, entry, ADDED_KEYS, fail);
    if (entry.special !== true)
      fail(
        'tokenizer_unsupported',
        `added_tokens[${i}], ${show(content)}, has special ${show(entry.special)}: a token that ` +
          'text becomes and answers ' +
          'show; only control tokens can be added here, use the tokenizer.json that was released with gpt-oss',
      );
    if (special.has(content)) fail('tokenizer_duplicate', `added_tokens names ${show(content)} twice`);
    if (ids.has(id))
      fail('tokenizer_duplicate', `added_tokens gives id ${id} twice, the second time to ${show(content)}`);
    ids.add(id);
    special.set(content, id);
  }
  return special;
}

function readVocab(
  value: unknown,
  special: ReadonlyMap<string, number>,
  fail: Fail,
): { tokens: Uint8Array[]; idOf: Map<string, number> } {
  if (!isObject(value)) return fail('tokenizer_type', `model.vocab is ${show(value)}, wanted an object of token → id`);
  const idOf = new Map<string, number>();
  const controlIds = new Set(special.values());
  const tokens: Uint8Array[] = [];
  const names: string[] = [];
  let maxId = -1;
  for (const [name, id] of Object.entries(value)) {
    if (typeof id !== 'number' || !Number.isInteger(id) || id < 0 || id > MAX_TOKENS)
      return fail(
        'tokenizer_type',
        `model.vocab[${show(name)}] is ${show(id)}, wanted an integer from 0 to ${MAX_TOKENS}`,
      );
    const control = special.get(name);
    if (control !== undefined) {
      if (control !== id)
        fail(
          'tokenizer_duplicate',
          `control token ${show(name)} has id ${id} in model.vocab and ${control} in added_tokens`,
        );
      continue; // some writers list control tokens in both places
    }
    if (controlIds.has(id))
      fail(
        'tokenizer_duplicate',
        `id ${id} is the token ${show(name)} in model.vocab and a control token in added_tokens`,
      );
    if (tokens[id])
      fail(
        'tokenizer_duplicate',
        `id ${id} belongs to two tokens of model.vocab, ${show(names[id])} and ${show(name)}`,
      );
    tokens[id] = bytesOf(name, fail);
    names[id] = name;
    idOf.set(name, id);
    if (id > maxId) maxId = id;
  }
  if (idOf.size !== maxId + 1) {
    let gap = 0;
    while (tokens[gap]) gap++;
    fail('tokenizer_gap', `model.vocab has ${idOf.size} tokens up to id ${maxId}, but none with id ${gap}`);
  }
  return { tokens, idOf };
}

function bytesOf(name: string, fail: Fail): Uint8Array {
  if (name === '') return fail('tokenizer_alphabet', 'model.vocab has an empty token');
  const bytes = new Uint8Array(name.length);
  for (let i = 0; i < name.length; i++) {
    const b = BYTE_OF_CHAR[name.charCodeAt(i)] ?? -1;
    if (b < 0)
      fail(
        'tokenizer_alphabet',
        `model.vocab's token ${show(name)} has the character ${show(name[i])}, which stands for ` +
          'no byte in the byte-level alphabet',
      );
    bytes[i] = b;
  }
  return bytes;
}

function readMerges(value: unknown, idOf: ReadonlyMap<string, number>, fail: Fail): Uint32Array {
  if (!Array.isArray(value)) return fail('tokenizer_type', `model.merges is ${show(value)}, wanted an array`);
  const merges = new Uint32Array(value.length * 2);
  for (let i = 0; i < value.length; i++) {
    const entry: unknown = value[i]; // "left right", or since 2024 ["left", "right"]
    const pair: readonly unknown[] = typeof entry === 'string' ? entry.split(' ') : Array.isArray(entry) ? entry : [];
    const [left, right] = pair;
    if (pair.length !== 2 || typeof left !== 'string' || typeof right !== 'string')
      return fail('tokenizer_merge', `model.merges[${i}] is ${show(entry)}, wanted two tokens`);
    const l = idOf.get(left);
    const r = idOf.get(right);
    if (l === undefined || r === undefined)
      return fail(
        'tokenizer_merge',
        `model.merges[${i}] names the token ${show(l === undefined ? left : right)}, which is not in model.vocab`,
      );
    merges[i * 2] = l;
    merges[i * 2 + 1] = r;
  }
  return merges;
}

/** Tokens laid end to end. */
export function packTokens(tokens: readonly Uint8Array[]): { bytes: Uint8Array; offsets: Uint32Array } {
  const offsets = new Uint32Array(tokens.length + 1);
  for (const [i, t] of tokens.entries()) offsets[i + 1] = offsets[i]! + t.length;
  const bytes = new Uint8Array(offsets[tokens.length]!);
  for (const [i, t] of tokens.entries()) bytes.set(t, offsets[i]);
  return { bytes, offsets };
}

/** What an own BPE is made of: token i has the bytes tokens[i]; merges are (left id, right id) in rank order. */
export interface OwnVocabulary {
  readonly tokens: readonly Uint8Array[];
  readonly merges: readonly (readonly [number, number])[];
}

/**
 * tokenizer.json text in gpt-oss's form: o200k's pattern, byte-level alphabet, whole pieces first, and gpt-oss's 21
 * control tokens in their order at the ids after the last ordinary one. For o200k this is the released file, byte for
 * byte.
 */
export function tokenizerJson(own: OwnVocabulary): string {
  const names = own.tokens.map(tokenName);
  const byteLevel = (addPrefixSpace: boolean, trimOffsets: boolean, useRegex: boolean): Json => ({
    type: 'ByteLevel',
    add_prefix_space: addPrefixSpace,
    trim_offsets: trimOffsets,
    use_regex: useRegex,
  });
  const text = JSON.stringify(
    {
      version: '1.0',
      truncation: null,
      padding: null,
      added_tokens: [...controlTokens(own.tokens.length)].map(([content, id]) => ({
        id,
        content,
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: false,
        special: true,
      })),
      normalizer: null,
      pre_tokenizer: {
        type: 'Sequence',
        pretokenizers: [
          { type: 'Split', pattern: { Regex: O200K_PATTERN }, behavior: 'Isolated', invert: false },
          byteLevel(false, true, false),
        ],
      },
      post_processor: byteLevel(true, false, true),
      decoder: byteLevel(true, true, true),
      model: {
        type: 'BPE',
        dropout: null,
        unk_token: null,
        continuing_subword_prefix: null,
        end_of_word_suffix: null,
        fuse_unk: false,
        byte_fallback: false,
        ignore_merges: true,
        vocab: null,
        merges: own.merges.map(([l, r]) => [names[l], names[r]]),
      },
    },
    null,
    2,
  );
  // By hand, because a JavaScript object would move the tokens that look like numbers to the front.
  const vocab = names.map((name, id) => `      ${JSON.stringify(name)}: ${id}`).join(',\n');
  return text.replace('"vocab": null', () => `"vocab": {\n${vocab}\n    }`);
}

/**
 * Writes `tokenizerJson` to a file, whole or not at all. @throws CheckpointError when what it wrote would not load
 * again
 */
export function writeTokenizerJson(file: string, own: OwnVocabulary): void {
  const text = tokenizerJson(own);
  parseTokenizerJson(text, file);
  writeFileAtomic(file, text);
}
