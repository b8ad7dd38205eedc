// A checkpoint of a shape, without contents: what a dry run needs when the weights are not at hand. Its file is all
// holes and takes no disk.
import {
  closeSync,
  existsSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { ConfigError } from '../base/errors.js';
import { layoutFile } from '../native/safetensors.js';
import { configJson } from './checkpoint-writer.js';
import { type ModelConfig, readConfig, readConfigFile } from './config.js';
import { PRESETS, type Preset } from './init.js';
import { checkpointTensors } from './layout.js';

export interface StandIn extends Disposable {
  /** The folder, until it is disposed of. */
  readonly dir: string;
  readonly config: ModelConfig;
  /** Where the shape is from, in words. */
  readonly from: string;
}

const isPreset = (name: string): name is Preset => Object.hasOwn(PRESETS, name);
/** The preset that a folder or a repo is called after: 20b, gpt-oss-20b, hf://openai/gpt-oss-20b@main. */
function presetOf(path: string): Preset | null {
  const name = basename(path.replace(/@[^@]*$/, ''))
    .replace(/^models--.*--/, '')
    .replace(/^gpt-oss-(?=\d+b$)/, '');
  return isPreset(name) ? name : null;
}
const hasWeights = (dir: string): boolean => readdirSync(dir).some((f) => f.endsWith('.safetensors'));

/** @returns null: the weights are there, or nothing says what shape they would have */
function shapeOf(model: string): Pick<StandIn, 'config' | 'from'> | null {
  if (!existsSync(model)) {
    const preset = presetOf(model);
    return preset && { config: PRESETS[preset], from: `preset ${preset}` };
  }
  if (basename(model) === 'config.json' || model.endsWith('.json'))
    return { config: readConfigFile(model), from: model };
  return existsSync(join(model, 'config.json')) && !hasWeights(model)
    ? { config: readConfig(model), from: join(model, 'config.json') }
    : null;
}

/**
 * What stands in for `model` in a dry run: the name of a preset, a folder called after one that is not there, a
 * config.json, or a folder that has one and no weights.
 * @returns null: it needs none, or nothing says its shape
 * @throws {CheckpointError} the config is not one · {ConfigError} path_not_found: `shape` is neither
 */
export function standIn(model: string, shape?: string): StandIn | null {
  const found = shapeOf(shape ?? model);
  if (!found) {
    if (shape === undefined) return null;
    throw new ConfigError(
      'path_not_found',
      `--shape ${shape}: neither a preset (${Object.keys(PRESETS).join(', ')}) nor a config.json`,
      { got: shape },
    );
  }
  const dir = mkdtempSync(join(tmpdir(), 'temper-shape-'));
  const path = join(dir, 'model.safetensors');
  writeFileSync(join(dir, 'config.json'), JSON.stringify(configJson(found.config)));
  const { header, total } = layoutFile(
    path,
    checkpointTensors(found.config, 'mxfp4').map((t) => ({ ...t, data: new Uint8Array(0) })),
    { format: 'pt' },
  );
  const file = openSync(path, 'w');
  try {
    writeSync(file, header);
    ftruncateSync(file, total);
  } finally {
    closeSync(file);
  }
  return { dir, ...found, [Symbol.dispose]: () => rmSync(dir, { recursive: true, force: true }) };
}

/** The folder of the tokenizer beside a model or its config.json. */
export const besideModel = (model: string): string => (model.endsWith('.json') ? dirname(model) : model);
