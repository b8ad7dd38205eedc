// What people take for a PEFT adapter and is none, or one that was saved in another way: recognised by its files and
// tensor names, for errors that say what it is and what to do next.
import { existsSync, readdirSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';

const CONFIG = 'adapter_config.json';
const TENSORS = 'adapter_model.safetensors';
const isFile = (path: string): boolean => statSync(path, { throwIfNoEntry: false })?.isFile() ?? false;
const isFolder = (path: string): boolean => statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;

/** What a path without an adapter's two files is, as the end of "… is"; null: nothing that is known. */
export function foreignAdapter(path: string): string | null {
  if (isFile(path))
    return /\.gguf$/i.test(path)
      ? 'a GGUF file of llama.cpp; give the folder of the PEFT adapter it was made from'
      : `a file; wanted the folder that holds ${CONFIG} and ${TENSORS}`;
  if (!isFolder(path)) return null;
  const names = readdirSync(path);
  const has = (name: string): boolean => names.includes(name);
  if (has('run.json')) {
    const step = isFolder(join(path, 'checkpoints')) ? lastCheckpoint(join(path, 'checkpoints')) : null;
    if (existsSync(join(path, 'adapter', CONFIG))) return `a run; its adapter is ${join(path, 'adapter')}: give that`;
    if (existsSync(join(path, 'model', 'config.json')))
      return `a run that trained a whole model; give ${join(path, 'model')} as the model`;
    return step === null
      ? 'a run without a checkpoint yet; go on with temper train --resume'
      : `a run that did not finish; its last adapter is ${join(path, 'checkpoints', step, 'adapter')}: give that`;
  }
  if (existsSync(join(path, 'adapter', CONFIG)))
    return (
      `${/^step-\d+$/.test(basename(path)) ? "a run's checkpoint" : 'a folder around an adapter'}; ` +
      `give ${join(path, 'adapter')}`
    );
  if (has(CONFIG) && has('adapter_model.bin'))
    return (
      'an adapter whose tensors are in adapter_model.bin, a pickle, which can run code when it ' +
      'is read; load it in peft and save it ' +
      'with save_pretrained(…, safe_serialization=True)'
    );
  if (has('adapters.safetensors') || has('adapters.npz'))
    return (
      "an adapter of MLX, whose matrices lie transposed under other names; wanted PEFT's: " +
      'convert it, or train it again'
    );
  if (names.some((n) => /\.gguf$/i.test(n)))
    return 'a folder of GGUF files of llama.cpp; give the folder of the PEFT adapter it was made from';
  if (has('config.json') && names.some((n) => n.endsWith('.safetensors')) && !has(CONFIG))
    return 'a whole model, not an adapter; give it as the model, without an adapter';
  const inside = names.find((n) => existsSync(join(path, n, CONFIG)));
  if (inside !== undefined) return `a folder around adapters; give one of them, e.g. ${join(path, inside)}`;
  if (has('snapshots')) return "Hugging Face's cache of a repository; give the folder below snapshots/";
  return null;
}
function lastCheckpoint(folder: string): string | null {
  const steps = readdirSync(folder)
    .filter((n) => /^step-\d+$/.test(n) && existsSync(join(folder, n, 'adapter', CONFIG)))
    .map((n) => Number(n.slice(5)))
    .sort((a, b) => a - b);
  const last = steps.at(-1);
  return last === undefined ? null : `step-${last}`;
}

/** Wrappers whose name stays in the keys when a model is saved from inside them. */
const WRAPPERS: Readonly<Record<string, string>> = {
  '_orig_mod.': 'torch.compile',
  'module.': 'DataParallel or DeepSpeed',
  '_fsdp_wrapped_module.': 'FSDP',
  '_checkpoint_wrapped_module.': 'activation checkpointing',
};
/** Why a key that names no LoRA pair of gpt-oss is there; null: unknown. */
export function foreignKey(key: string, keys: ReadonlyMap<string, unknown>): string | null {
  for (const [prefix, by] of Object.entries(WRAPPERS))
    if (key.includes(prefix) && keys.size > 0)
      return (
        `${prefix.slice(0, -1)} is the wrapper of ${by}, which was saved with it; save the model ` +
        `inside it, or take ${prefix} out of the names`
      );
  if (/(embed_tokens|lm_head)\.(weight|base_layer\.weight|modules_to_save)/.test(key))
    return (
      'the embedding or the head was saved beside the adapter; save it again with ' +
      'save_embedding_layers=False, if it was not trained'
    );
  if (/\.(modules_to_save|original_module)\./.test(key)) return 'a module was trained as a whole (modules_to_save)';
  if (/lora_magnitude_vector/.test(key)) return 'it is of DoRA';
  if (/lora_embedding_[AB]/.test(key)) return 'the embedding is adapted';
  if (/\.lora_(a|b)$/.test(key)) return "it is MLX's";
  return null;
}
