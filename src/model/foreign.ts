// What people give as a model and is another layout of one, or no model: recognised by its files and tensor names, for
// errors that say what it is and what to do next.
import { existsSync, readdirSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { CheckpointError } from '../base/errors.js';
import { readHead } from '../base/inputs.js';

const RELEASED = 'give the folder of the released checkpoint, e.g. of openai/gpt-oss-20b, in safetensors';

/** Endings of weights in other containers. */
const OTHER_WEIGHTS: readonly (readonly [RegExp, string])[] = [
  [/\.gguf$/i, 'GGUF of llama.cpp, which quantises in layouts of its own'],
  [/^(pytorch_model|model).*\.bin(\.index\.json)?$/i, 'PyTorch pickles (.bin), which can run code when they are read'],
  [/\.(pt|pth|ckpt)$/i, 'PyTorch pickles, which can run code when they are read'],
  [/\.npz$/i, "NumPy archives, as MLX's older models"],
  [/\.(onnx|onnx_data)$/i, 'ONNX'],
  [/\.(h5|msgpack|tflite)$/i, 'TensorFlow or Flax'],
];

/** What a path that is no checkpoint folder is, as the end of "… is"; null: nothing that is known. */
function foreignPath(path: string, names: readonly string[]): string | null {
  const has = (name: string): boolean => names.includes(name);
  const holds = (...parts: readonly string[]): boolean => existsSync(join(path, ...parts));
  if (has('run.json')) {
    if (holds('model', 'config.json')) return `a run; the model it trained is ${join(path, 'model')}: give that`;
    return holds('adapter', 'adapter_config.json')
      ? `a run; give its base as the model and ${join(path, 'adapter')} as the adapter`
      : 'a run, not a model; give its base as the model, and the adapter of a checkpoint as the adapter';
  }
  if (has('adapter_config.json') || has('adapters.safetensors'))
    return 'an adapter, not a model; give its base as the model and this folder as the adapter';
  if (has('snapshots')) {
    const revision = readdirSync(join(path, 'snapshots'))[0];
    return `Hugging Face's cache of a repository; give ${join(path, 'snapshots', revision ?? 'REVISION')}`;
  }
  const other = OTHER_WEIGHTS.find(([ending]) => names.some((n) => ending.test(n)));
  if (other && !names.some((n) => n.endsWith('.safetensors'))) {
    return `a checkpoint with its weights as ${other[1]}: none of that is read here; ${RELEASED}`;
  }
  if (holds('original') && !names.some((n) => n.endsWith('.safetensors')))
    return (
      `a download of original/ alone, OpenAI's own layout; download the files beside it as well ` +
      '(model-0000N-of-….safetensors, their index, config.json)'
    );
  const inside = names.find(
    (n) => holds(n, 'config.json') && readdirSync(join(path, n)).some((f) => f.endsWith('.safetensors')),
  );
  if (!has('config.json') && inside !== undefined) return `a folder around a model; give ${join(path, inside)}`;
  return null;
}

/**
 * Refuses what is there under other names, before anything is called missing.
 * @throws {CheckpointError} layout_unsupported
 */
export function refuseForeignFolder(path: string): void {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (!stat) return;
  const refuse = (what: string): CheckpointError =>
    new CheckpointError('layout_unsupported', `${path}: is ${what}`, { file: path });
  if (!stat.isDirectory()) {
    if (/\.gguf$/i.test(path)) throw refuse(`a GGUF file of llama.cpp; ${RELEASED}`);
    throw refuse(
      'a file; give the folder of the ' +
        `checkpoint${existsSync(join(dirname(path), 'config.json')) ? `, ${dirname(path)}` : ''}`,
    );
  }
  const names = readdirSync(path);
  if (names.includes('config.json') && names.some((n) => n.endsWith('.safetensors')) && !names.includes('run.json'))
    return;
  const what = foreignPath(path, names);
  if (what) throw refuse(what);
}

/** Shards that no index lists, e.g. model-00001-of-00002.safetensors. */
export const looseShards = (path: string): readonly string[] =>
  readdirSync(path).filter((n) => /^model-\d+-of-\d+\.safetensors$/.test(n));

/**
 * A clone without Git LFS holds notes of some 130 bytes where the weights belong.
 * @throws {CheckpointError} layout_unsupported
 */
export function refuseLfsPointer(file: string): void {
  if ((statSync(file, { throwIfNoEntry: false })?.size ?? Infinity) > 1024) return;
  const head = readHead(file, 40);
  if (head.toString('latin1').startsWith('version https://git-lfs'))
    throw new CheckpointError(
      'layout_unsupported',
      `${file}: is a pointer of Git LFS, not the weights; run git lfs pull in its folder`,
      { file },
    );
}

/** Tensor names that tell a layout, first match first. */
const NAMES: readonly (readonly [RegExp, string])[] = [
  [/^block\.\d+\./, "OpenAI's own layout (original/); give the folder above it, with the shards listed by its index"],
  [
    /\.mlp\.experts\.(gate_up_projs|down_projs)\.\d+\.|\.mlp\.router\.linear\.|\.absmax$|\.quant_state\./,
    `Unsloth's layout, a module per expert, as its -bnb-4bit uploads have it; ${RELEASED}`,
  ],
  [/\.mlp\.experts\.\d+\./, `a layout with a module per expert; ${RELEASED}`],
  [/\.mlp\.experts\.(gate_proj|up_proj)\.|\.biases$/, `MLX's layout, gate and up apart; ${RELEASED}`],
  [/\.(qweight|qzeros|g_idx)$/, `GPTQ's or AWQ's layout, quantised anew; ${RELEASED}`],
  [
    /\.(weight_packed|weight_scale|weight_scale_inv|input_scale)$/,
    `weights quantised anew (FP8, NVFP4, compressed-tensors); ${RELEASED}`,
  ],
  [
    /\.lora_[AB]\./,
    'a model with its adapter still beside the weights; save the adapter alone with peft, or merge it before saving',
  ],
  [/^_orig_mod\./, 'saved from inside torch.compile; save the model inside it, or take _orig_mod. out of the names'],
  [/^module\./, 'saved from inside DataParallel or DeepSpeed; take module. out of the names'],
  [/^base_model\.model\./, 'saved from inside PEFT; save the base model itself'],
  [/^model\.language_model\.|^language_model\./, `the language part of a larger model; ${RELEASED}`],
  [
    /^(layers\.\d+\.|embed_tokens\.)/,
    'saved from the bare model (GptOssModel), whose names lack model.; save it from GptOssForCausalLM',
  ],
];

interface Entry {
  readonly dtype: string;
  readonly shape: readonly number[];
}
/**
 * Refuses tensors of another layout by its name, before the first one is called missing.
 * @throws {CheckpointError} layout_unsupported
 */
export function refuseForeignTensors(path: string, tensors: Iterable<readonly [string, Entry]>): void {
  let named: string | undefined, half: string | undefined, empty: string | undefined;
  let [halves, all] = [0, 0];
  for (const [name, { dtype, shape }] of tensors) {
    named ??= NAMES.find(([pattern]) => pattern.test(name))?.[1];
    all++;
    if (dtype === 'F16') {
      half ??= name;
      halves++;
    }
    if (shape.includes(0)) empty ??= name;
  }
  const what =
    named ??
    (empty !== undefined
      ? `saved under DeepSpeed ZeRO-3, with ${empty} left empty; gather the parameters before saving`
      : half !== undefined && halves * 2 > all
        ? `in F16 (${half}), which cannot hold all values of bf16 weights; save it with ` +
          `dtype=torch.bfloat16, or ${RELEASED}`
        : null);
  if (what) throw new CheckpointError('layout_unsupported', `${path}: its tensors are ${what}`, { file: path });
}
