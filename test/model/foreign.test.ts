// Layouts of other makers, other containers, half downloads: each is called what it is, with the next step.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { TemperError } from '../../src/base/errors.js';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { PRESETS } from '../../src/model/init.js';
import { checkpointTensors } from '../../src/model/layout.js';
import { writeSafetensors } from '../../src/native/safetensors.js';

const root = mkdtempSync(join(tmpdir(), 'temper-layouts-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const config = JSON.stringify(PRESETS.nano);
const names = checkpointTensors(PRESETS.nano, 'dense').map((t) => t.name);

/** A folder with these files; a list is a safetensors file of small tensors with those names. */
function folder(files: Readonly<Record<string, string | readonly string[]>>, dtype: 'BF16' | 'F16' = 'BF16'): string {
  const dir = mkdtempSync(join(root, 'm-'));
  for (const [name, content] of Object.entries(files)) {
    const path = join(dir, name);
    mkdirSync(dirname(path), { recursive: true });
    if (typeof content === 'string') writeFileSync(path, content);
    else
      writeSafetensors(
        path,
        content.map((tensor) => ({ name: tensor, dtype, shape: [2], data: new Uint16Array(2) })),
      );
  }
  return dir;
}
const model = (to: (name: string) => string, dtype?: 'F16'): string =>
  folder({ 'config.json': config, 'model.safetensors': names.map(to) }, dtype);
const conf = (value: unknown): string => folder({ 'config.json': JSON.stringify(value), 'model.safetensors': ['x'] });
const nano = PRESETS.nano as unknown as Record<string, unknown>;

it.each<[string, () => string, RegExp]>([
  ['GGUF', () => folder({ 'config.json': config, 'gpt-oss-20b-F16.gguf': 'GGUF' }), /weights as GGUF of llama\.cpp/],
  ['a GGUF file', () => join(folder({ 'm.gguf': 'GGUF' }), 'm.gguf'), /is a GGUF file/],
  [
    'a file of it',
    () =>
      join(
        model((n) => n),
        'model.safetensors',
      ),
    /is a file; give the folder of the checkpoint, /,
  ],
  ['.bin', () => folder({ 'config.json': config, 'pytorch_model.bin': 'PK' }), /PyTorch pickles \(\.bin\)/],
  [
    '.bin in shards',
    () =>
      folder({ 'config.json': config, 'pytorch_model-00001-of-00002.bin': 'PK', 'pytorch_model.bin.index.json': '{}' }),
    /PyTorch pickles \(\.bin\)/,
  ],
  ['.pth', () => folder({ 'config.json': config, 'consolidated.00.pth': 'PK' }), /PyTorch pickles/],
  ['ONNX', () => folder({ 'config.json': config, 'model.onnx': 'x' }), /ONNX/],
  ['an adapter', () => folder({ 'adapter_config.json': '{"peft_type":"LORA"}' }), /is an adapter, not a model/],
  [
    'an adapter with tensors',
    () => folder({ 'adapter_config.json': '{"peft_type":"LORA"}', 'adapter_model.safetensors': ['x'] }),
    /is an adapter, not a model/,
  ],
  ['a run', () => folder({ 'run.json': '{}', 'adapter/adapter_config.json': '{}' }), /is a run; give its base/],
  [
    'a run of a model',
    () => folder({ 'run.json': '{}', 'model/config.json': '{}' }),
    /is a run; the model it trained is/,
  ],
  [
    'the cache of the hub',
    () => folder({ 'snapshots/abc/config.json': '{}', 'refs/main': 'abc' }),
    /cache of a repository; give .*snapshots.abc/,
  ],
  [
    'a folder around',
    () => folder({ 'gpt/config.json': '{}', 'gpt/model.safetensors': ['x'] }),
    /folder around a model; give .*gpt/,
  ],
  [
    'original/ alone',
    () => folder({ 'original/config.json': '{}', 'original/model.safetensors': ['x'] }),
    /original\/ alone/,
  ],
  [
    "original/'s config",
    () => conf({ num_experts: 32, experts_per_token: 4, rope_ntk_alpha: 1 }),
    /OpenAI's own layout/,
  ],
  ["original/'s tensors", () => model((n) => n.replace('model.layers.', 'block.')), /OpenAI's own layout/],
  [
    'bitsandbytes',
    () => conf({ ...nano, quantization_config: { quant_method: 'bitsandbytes' } }),
    /by bitsandbytes \(as Unsloth/,
  ],
  ['FP8', () => conf({ ...nano, quantization_config: { quant_method: 'fp8' } }), /quantised anew by fp8/],
  ['MLX', () => conf({ ...nano, quantization: { bits: 4 } }), /of MLX/],
  [
    'a module per expert, by Unsloth',
    () => model((n) => n.replace('experts.gate_up_proj', 'experts.gate_up_projs.0.weight')),
    /Unsloth's layout/,
  ],
  [
    'a module per expert',
    () => model((n) => n.replace('experts.gate_up_proj', 'experts.0.gate_up_proj')),
    /a module per expert/,
  ],
  ['GPTQ', () => model((n) => n.replace('q_proj.weight', 'q_proj.qweight')), /GPTQ's or AWQ's/],
  ['compressed', () => model((n) => n.replace('q_proj.weight', 'q_proj.weight_packed')), /compressed-tensors/],
  ['without model.', () => model((n) => n.replace(/^model\./, '')), /bare model \(GptOssModel\)/],
  ['torch.compile', () => model((n) => `_orig_mod.${n}`), /torch\.compile/],
  ['DeepSpeed', () => model((n) => `module.${n}`), /DataParallel or DeepSpeed/],
  ['inside PEFT', () => model((n) => `base_model.model.${n}`), /saved from inside PEFT/],
  [
    'with its adapter',
    () => model((n) => n.replace('q_proj.weight', 'q_proj.lora_A.default.weight')),
    /adapter still beside the weights/,
  ],
  ['F16', () => model((n) => n, 'F16'), /in F16 .*torch\.bfloat16/],
  [
    'shards without index',
    () =>
      folder({
        'config.json': config,
        'model-00001-of-00002.safetensors': ['a'],
        'model-00002-of-00002.safetensors': ['b'],
      }),
    /index\.json: not there, so what 2 shards/,
  ],
  [
    'a pointer of Git LFS',
    () =>
      folder({
        'config.json': config,
        'model.safetensors': 'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n',
      }),
    /pointer of Git LFS.*git lfs pull/,
  ],
])('%s', (_, make, message) => {
  const dir = make();
  let error: unknown;
  try {
    openCheckpoint(dir).close();
  } catch (e) {
    error = e;
  }
  expect(error).toBeInstanceOf(TemperError);
  expect((error as TemperError).message).toMatch(message);
  expect((error as TemperError).message).not.toContain('\n');
});
