// The tokens of a prompt with what the model made of each: for clients that want a text's own log-probabilities. It
// stops between layers, so that streams go on.
import { setImmediate } from 'node:timers/promises';
import { ConfigError } from '../base/errors.js';
import type { Tokenizer } from '../harmony/types.js';
import { forwardLayers, logits } from '../model/gpt-oss.js';
import { KvCache } from '../model/kv-cache.js';
import { type ModelAdapter, type ModelWeights, placeOf } from '../model/types.js';
import type { PRECISION } from '../native/ops.js';
import { Scope } from '../native/tensor.js';
import { type PackedTokens, TokenPacker } from './pack-tokens.js';
import type { PromptInfo, ReadRequest, TokenInfo } from './protocol.js';
import { largest } from './steer.js';

/** Tokens of a pass, and rows of logits that are held at a time. */
const PIECE = 64,
  ROWS = 8;
/** Those that may be among the most probable ones: they are no text. */
const CONTROL_TOKENS = 8;

export interface ReadOptions {
  readonly model: ModelWeights;
  readonly tokenizer: Tokenizer;
  readonly adapter: ModelAdapter | null;
  readonly precision: keyof typeof PRECISION;
  /** Longest prompt. */
  readonly contextTokens: number;
  readonly signal: AbortSignal;
  /** Told of its tokens, some at a time. */
  readonly tell: (some: PackedTokens) => void;
}

/** One is read at a time: each has keys and values of its own, which nobody promised. */
let last: Promise<unknown> = Promise.resolve();

/** @throws {ConfigError} token_range, prompt_too_long · the signal's reason */
export async function readPrompt(
  { prompt, top }: ReadRequest,
  options: ReadOptions,
): Promise<Omit<PromptInfo, 'tokens'>> {
  const { tokenizer, contextTokens } = options;
  const tokens = typeof prompt === 'string' ? tokenizer.encode(prompt) : prompt;
  const bad = tokens.find((t) => t < 0 || t >= tokenizer.vocabSize);
  if (bad !== undefined)
    throw new ConfigError('token_range', `token ${bad} is not in the model's vocabulary of ${tokenizer.vocabSize}`);
  if (tokens.length > contextTokens)
    throw new ConfigError('prompt_too_long', `a prompt of ${tokens.length} tokens, at most ${contextTokens} are read`);
  const text = typeof prompt === 'string' ? prompt : tokenizer.decode(tokens);
  if (top !== null) {
    const own = last.then(() => readTokens(tokens, top, options));
    last = own.catch(() => {});
    await own;
  }
  return { text, count: tokens.length };
}

/** One entry a token; the first, which nothing comes before, has log-probability NaN. */
async function readTokens(tokens: Int32Array, top: number, options: ReadOptions): Promise<void> {
  const { model, tokenizer, adapter, precision, signal, tell } = options;
  const bytes = (token: number): Uint8Array => tokenizer.bytes(token);
  const first = tokens[0],
    packer = new TokenPacker();
  if (first !== undefined) tell(packer.pack([{ token: first, bytes: bytes(first), logprob: NaN, top: [] }]));
  const place = placeOf(model);
  using cache = new KvCache(model.config, 1, Math.max(1, tokens.length), place);
  for (let from = 0; from < tokens.length - 1; from += PIECE) {
    const piece = tokens.slice(from, Math.min(from + PIECE, tokens.length - 1));
    using s = new Scope('activations', place);
    const batch = {
      tokens: piece,
      positions: Int32Array.from(piece, (_, i) => from + i),
      starts: Int32Array.of(0, piece.length),
    };
    const layers = forwardLayers(s, model, adapter, batch, { precision, cache, signal });
    let step = layers.next();
    for (; !step.done; step = layers.next()) await between(signal);
    const hidden = step.value;
    for (let row = 0; row < piece.length; row += ROWS) {
      using t = new Scope('activations', place);
      const some = Math.min(ROWS, piece.length - row);
      const values = logits(t, model, hidden.slice(t, row, row + some), precision).toFloat32();
      const width = values.length / some;
      const out: TokenInfo[] = [];
      for (let i = 0; i < some; i++) {
        const likely = likelyOf(values.subarray(i * width, (i + 1) * width), tokenizer, top);
        const token = tokens[from + row + i + 1]!;
        out.push({ token, bytes: bytes(token), ...likely(token) });
      }
      tell(packer.pack(out));
      await between(signal);
    }
  }
}

/** Others step. */
async function between(signal: AbortSignal): Promise<void> {
  await setImmediate();
  signal.throwIfAborted();
}

/** Log-softmax of one row, and its most probable tokens of text. */
function likelyOf(
  row: Float32Array,
  tokenizer: Tokenizer,
  top: number,
): (token: number) => Pick<TokenInfo, 'logprob' | 'top'> {
  let most = -Infinity;
  for (const v of row) if (v > most) most = v;
  let sum = 0;
  for (const v of row) sum += Math.exp(v - most);
  const all = most + Math.log(sum);
  const best = largest(row, top === 0 ? 0 : top + CONTROL_TOKENS)
    .filter((id) => !tokenizer.isSpecial(id))
    .slice(0, top);
  return (token) => ({
    logprob: row[token]! - all,
    top: best.map((id) => ({ token: id, bytes: tokenizer.bytes(id), logprob: row[id]! - all })),
  });
}
