// The tokenizer of a checkpoint as keys of a GGUF file. llama.cpp knows o200k's way to split text as "gpt-4o"; a piece
// that is a token as a whole is merged there all the same.
import { join } from 'node:path';
import { ConfigError } from '../../base/errors.js';
import { parseJson } from '../../base/json.js';
import { parseTokenizerJson, tokenName } from '../../harmony/tokenizer-file.js';
import { PLAIN_TEMPLATE } from './chat-template.js';
import { bool, i32s, text, texts, u32, type Value } from './types.js';

const NORMAL = 1,
  CONTROL = 3,
  UNUSED = 5;

/** Small files of a checkpoint, by name. */
export type SmallFiles = Readonly<Record<string, Uint8Array>>;
const textOf = (files: SmallFiles, name: string): string | null => {
  const bytes = files[name];
  return bytes ? Buffer.from(bytes).toString('utf8') : null;
};

/**
 * The Jinja template of a checkpoint: a file of its own, or in tokenizer_config.json. @throws {ConfigError} not_json
 */
export function chatTemplate(files: SmallFiles): string | null {
  const own = textOf(files, 'chat_template.jinja'),
    config = textOf(files, 'tokenizer_config.json');
  if (own !== null || config === null) return own;
  let value: unknown;
  try {
    value = parseJson(config);
  } catch (cause) {
    const why = (cause as Error).message;
    throw new ConfigError('not_json', `tokenizer_config.json: not JSON: ${why}; copy it again`, {}, { cause });
  }
  const template = (value as { readonly chat_template?: unknown } | null)?.chat_template;
  return typeof template === 'string' ? template : null;
}

/**
 * @param files of the checkpoint in folder `dir`
 * @param vocabSize rows of its embedding: llama.cpp wants a token for each
 * @throws {ConfigError} format_unfit: no tokenizer, or more tokens than rows · {CheckpointError} tokenizer_…
 */
export function tokenizerKeys(files: SmallFiles, dir: string, vocabSize: number): Map<string, Value> {
  const json = textOf(files, 'tokenizer.json'),
    file = join(dir, 'tokenizer.json');
  if (json === null) throw new ConfigError('format_unfit', `${file}: is missing`, { format: 'gguf', file });
  const v = parseTokenizerJson(json, file),
    ordinary = v.offsets.length - 1;
  if (ordinary + v.special.size > vocabSize)
    throw new ConfigError(
      'format_unfit',
      `${file}: has ${ordinary + v.special.size} tokens, the model ${vocabSize} rows; they do not belong together`,
      { format: 'gguf', file },
    );
  const names = Array.from({ length: ordinary }, (_, i) => tokenName(v.bytes.subarray(v.offsets[i], v.offsets[i + 1])));
  const merges = Array.from(
    { length: v.merges.length / 2 },
    (_, i) => `${names[v.merges[2 * i] ?? 0]} ${names[v.merges[2 * i + 1] ?? 0]}`,
  );
  const types = new Int32Array(vocabSize).fill(UNUSED).fill(NORMAL, 0, ordinary);
  const tokens = [...names];
  for (const [name, id] of v.special) {
    tokens[id] = name;
    types[id] = CONTROL;
  }
  for (let id = 0; id < vocabSize; id++) tokens[id] ??= `[PAD${id}]`;
  const id = (name: string): number => v.special.get(name) ?? 0; // parseTokenizerJson requires them
  const template = chatTemplate(files) ?? PLAIN_TEMPLATE;
  return new Map<string, Value>([
    ['tokenizer.ggml.model', text('gpt2')],
    ['tokenizer.ggml.pre', text('gpt-4o')],
    ['tokenizer.ggml.tokens', texts(tokens)],
    ['tokenizer.ggml.token_type', i32s(types)],
    ['tokenizer.ggml.merges', texts(merges)],
    ['tokenizer.ggml.bos_token_id', u32(id('<|startoftext|>'))],
    ['tokenizer.ggml.eos_token_id', u32(id('<|return|>'))],
    ['tokenizer.ggml.padding_token_id', u32(id('<|endoftext|>'))],
    ['tokenizer.ggml.add_bos_token', bool(false)],
    ['tokenizer.chat_template', text(template)],
  ]);
}
