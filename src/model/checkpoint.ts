// Opens a gpt-oss checkpoint folder: every tensor is mapped, none copied, but for a model on a device, whose weights
// are copied there. Read: the released MXFP4 layout and the dequantised bf16 layout, in one file or in shards listed by
// an index. Whatever is missing, twice there, unknown, of another dtype or shape than the config says, is refused here.
import { existsSync, readdirSync } from 'node:fs';
import { isAbsolute, join, normalize, sep } from 'node:path';
import { CheckpointError } from '../base/errors.js';
import { type DigestOptions, digestFolder } from '../base/folder-digest.js';
import { readJsonFile } from '../base/json-file.js';
import { cacheableBytes } from '../base/machine.js';
import { backendOf, HOST } from '../native/backends.js';
import { deviceRoom } from '../native/device.js';
import { openSafetensors, type SafetensorsFile } from '../native/safetensors.js';
import { type Place, Scope, type Tensor } from '../native/tensor.js';
import { layerWindow, type ModelConfig, readConfig } from './config.js';
import { ExpertStream } from './expert-stream.js';
import { checkIndexKeys, checkMetadata } from './file-keys.js';
import { looseShards, refuseForeignFolder, refuseForeignTensors, refuseLfsPointer } from './foreign.js';
import { checkpointTensors, fitsMxfp4, layerPrefix, type TensorSpec } from './layout.js';
import type { ExpertWeights, LayerWeights, LinearWeights, ModelWeights } from './types.js';

export interface Checkpoint extends ModelWeights, Disposable {
  readonly dir: string;
  readonly experts: 'mxfp4' | 'dense';
  readonly files: readonly CheckpointFile[];
  /** The files' tensors by name, mapped: on the host wherever the model computes. */
  readonly tensors: ReadonlyMap<string, Tensor>;
}
export interface CheckpointFile {
  readonly name: string;
  readonly bytes: number;
  readonly tensors: number;
}

const EMBED = 'model.embed_tokens.weight';
const INDEX = 'model.safetensors.index.json',
  SINGLE = 'model.safetensors';
/** 8-bit copy of the dense weights (q8.ts). Made from the checkpoint, so no part of it. */
export const DENSE_CACHE = 'dense-q8.safetensors';

/**
 * File names of the weights and, with an index, the file each tensor should be in. Names are held to the folder; what a
 * file there links to is the user's own business (Hugging Face's cache links every file).
 */
function listFiles(dir: string): {
  readonly names: readonly string[];
  readonly map: ReadonlyMap<string, string> | null;
} {
  const path = join(dir, INDEX);
  if (!existsSync(path)) {
    const loose = existsSync(join(dir, SINGLE)) ? [] : looseShards(dir);
    if (loose.length > 0)
      throw new CheckpointError(
        'file_missing',
        `${path}: not there, so what ${loose.length} shards (${loose[0]}, …) must hold is not ` +
          'known; download it from ' +
          'where they come from, it is some 36 kB',
        { file: path },
      );
    if (!existsSync(join(dir, SINGLE)))
      throw new CheckpointError(
        'file_missing',
        `${dir}: neither ${INDEX} nor ${SINGLE}; give the folder of a gpt-oss checkpoint`,
        { file: dir },
      );
    return { names: [SINGLE], map: null };
  }
  const bad = (what: string): CheckpointError =>
    new CheckpointError('bad_index', `${path}: ${what}; download it again`, { file: path });
  const index = readJsonFile(path, 'index', {
    next: 'download it again',
    missing: (message) => new CheckpointError('file_missing', message, { file: path }),
    bad,
  });
  const map = checkIndexKeys(index, bad);
  if (typeof map !== 'object' || map === null || Array.isArray(map) || Object.keys(map).length === 0)
    throw bad('weight_map is missing or empty');
  const entries = Object.entries(map as Record<string, unknown>).map(([name, file]): [string, string] => {
    if (typeof file !== 'string' || file === '') throw bad(`weight_map has no file name for ${name}`);
    const clean = normalize(file);
    if (isAbsolute(file) || clean === '..' || clean.startsWith(`..${sep}`) || file.includes('\0')) {
      throw new CheckpointError(
        'index_outside',
        `${path}: ${name} points to "${file}", outside the checkpoint's folder; refused, download the checkpoint again`,
        { file: path, tensor: name },
      );
    }
    return [name, clean];
  });
  const names = [...new Set(entries.map(([, file]) => file))].sort();
  for (const name of names)
    if (!existsSync(join(dir, name)))
      throw new CheckpointError(
        'file_missing',
        `${join(dir, name)}: listed in ${INDEX} but not there; complete the download`,
        { file: join(dir, name) },
      );
  return { names, map: new Map(entries) };
}

/** Hands out the tensors of all files by name, each once, and knows which are left. */
class TensorSource {
  readonly #where = new Map<string, SafetensorsFile>();
  readonly #paths = new Map<string, string>();
  constructor(
    readonly files: readonly SafetensorsFile[],
    readonly scope: Scope,
    map: ReadonlyMap<string, string> | null,
    dir: string,
  ) {
    for (const file of files) {
      for (const name of file.tensors.keys()) {
        const first = this.#where.get(name);
        if (first)
          throw new CheckpointError(
            'duplicate_tensor',
            `${file.path}: tensor ${name} is also in ${first.path}; keep the shards of one download only`,
            { file: file.path, tensor: name },
          );
        this.#where.set(name, file);
      }
    }
    for (const [name, file] of map ?? []) {
      const at = this.#where.get(name);
      if (at?.path !== join(dir, file))
        throw new CheckpointError(
          'tensor_missing',
          `${join(dir, file)}: tensor ${name} is not in it, though ${INDEX} says ` +
            `so${at ? ` (it is in ${at.path})` : ''}; download it again`,
          { file: join(dir, file), tensor: name },
        );
    }
  }
  has(name: string): boolean {
    return this.#where.has(name);
  }

  take(spec: TensorSpec): Tensor {
    const file = this.#where.get(spec.name);
    if (!file)
      throw new CheckpointError(
        'tensor_missing',
        `tensor ${spec.name} is missing, config.json wants it as ${spec.dtype} ` +
          `[${spec.shape.join(', ')}]; is the download complete?`,
        { tensor: spec.name },
      );
    const entry = file.entry(spec.name);
    const where = { file: file.path, tensor: spec.name };
    const allowed = spec.dtype === 'U8' ? ['U8'] : ['BF16', 'F32'];
    if (!allowed.includes(entry.dtype))
      throw new CheckpointError(
        'tensor_dtype',
        `${file.path}: tensor ${spec.name} is ${entry.dtype}, wanted ${allowed.join(' or ')}; ` +
          'convert the checkpoint to the released layout',
        where,
      );
    if (entry.shape.length !== spec.shape.length || entry.shape.some((n, d) => n !== spec.shape[d])) {
      throw new CheckpointError(
        'tensor_shape',
        `${file.path}: tensor ${spec.name} is [${entry.shape.join(', ')}], config.json says ` +
          `[${spec.shape.join(', ')}]; config and weights must be of one model`,
        where,
      );
    }
    this.#where.delete(spec.name);
    this.#paths.set(spec.name, file.path);
    return file.map(spec.name, this.scope);
  }
  /** The file a tensor was taken from. */
  pathOf(name: string): string {
    return this.#paths.get(name) ?? '';
  }
  /** @throws {CheckpointError} tensor_unexpected */
  finish(): void {
    const [left] = this.#where;
    if (left)
      throw new CheckpointError(
        'tensor_unexpected',
        `${left[1].path}: tensor ${left[0]} has no place in the model config.json describes ` +
          `(${this.#where.size} such); config and weights must be of one model`,
        { file: left[1].path, tensor: left[0] },
      );
  }
}

/**
 * Byte 255 is NaN in E8M0 and would poison every token that meets it. All scales are 1/17 of the experts' bytes, 0.6 GB
 * on gpt-oss-20b and 3.6 GB on 120b, so a layer's are read when it first computes and not when the file is opened.
 */
function refuseNanScales(scales: Tensor, file: string, name: string): void {
  const step = 1 << 24;
  for (let from = 0; from < scales.numel; from += step) {
    using s = new Scope('workspace');
    const at = Buffer.from(scales.view(s, [Math.min(step, scales.numel - from)], from).read().buffer).indexOf(255);
    if (at >= 0)
      throw new CheckpointError(
        'bad_scale',
        `${file}: tensor ${name}: scale ${from + at} is 255, which is NaN in MXFP4; the file is ` +
          'damaged, download it again',
        { file, tensor: name, index: from + at },
      );
  }
}

export interface OpenOptions {
  /** Where the model computes (default the host); the device must be open. */
  readonly place?: Place;
  /**
   * Where the embedding table lies on a device: there (default), or mapped on the host, which saves its bytes and costs
   * a wait per pass. A tied head is always there.
   */
  readonly embed?: Place;
  /**
   * Experts on a device: all there ('device'), or mapped on the host and copied layer by layer as they are used
   * ('stream'). Default 'auto': stream when all would take more than STREAM_SHARE of what is left.
   */
  readonly experts?: 'auto' | 'device' | 'stream';
  /**
   * Whether files are read from their beginning in the background, where the machine has memory for all of them: what
   * is used again and again is read faster then (docs/log.md). Not where they go to a device.
   */
  readonly readAhead?: boolean;
  /** Bytes copied to the device so far, of so many. */
  readonly onProgress?: (done: number, total: number) => void;
}
/**
 * Share of a device that weights may fill before experts are streamed: the rest is for activations, an adapter, keys
 * and values.
 */
export const STREAM_SHARE = 0.85;
const isExpertMatrix = (name: string): boolean => /\.mlp\.experts\.(gate_up|down)_proj(_blocks|_scales)?$/.test(name);
/** Bytes copied to a device between two reports. */
const UPLOAD_STEP = 2 ** 28;

/** Copies of mapped tensors in device memory; `kept` ones stay as they are. */
function upload(
  mapped: ReadonlyMap<string, Tensor>,
  kept: ReadonlySet<string>,
  scope: Scope,
  onProgress: OpenOptions['onProgress'],
): Map<string, Tensor> {
  const moving = [...mapped].filter(([name]) => !kept.has(name)),
    total = moving.reduce((sum, [, t]) => sum + t.bytes, 0);
  let done = 0;
  const out = new Map(mapped);
  for (const [name, from] of moving) {
    const to = scope.empty(from.dtype, from.shape),
      step = Math.max(1, Math.floor(UPLOAD_STEP / Math.max(1, from.bytes / from.numel)));
    for (let at = 0; at < from.numel; at += step) {
      using s = new Scope('workspace');
      const n = Math.min(step, from.numel - at),
        part = to.view(s, [n], at).copy(from.view(s, [n], at));
      done += part.bytes;
      onProgress?.(done, total);
    }
    out.set(name, to);
  }
  return out;
}

/**
 * Opens the checkpoint in folder `dir`.
 * @returns weights over the mapped files; close() ends the mappings
 * @throws {CheckpointError} layout_unsupported, file_missing, bad_config, bad_index, index_outside, duplicate_tensor,
 * tensor_missing, tensor_unexpected, tensor_dtype, tensor_shape,
 *   and what openSafetensors refuses; a layer's first use: bad_scale
 * @throws {NativeError} out_of_device_memory
 */
export function openCheckpoint(dir: string, options: OpenOptions = {}): Checkpoint {
  refuseForeignFolder(dir);
  const config = readConfig(dir);
  const { names, map } = listFiles(dir);
  for (const name of names) refuseLfsPointer(join(dir, name));
  const scope = new Scope('weights'),
    onDevice = new Scope('weights', options.place),
    backend = backendOf(onDevice.place);
  const open: SafetensorsFile[] = [];
  let closed = false;
  const close = (): void => {
    if (closed) return;
    closed = true;
    scope.close();
    onDevice.close();
    for (const f of open) f.close();
  };
  try {
    for (const name of names) {
      const file = openSafetensors(join(dir, name));
      open.push(file);
      checkMetadata(file.path, file.metadata);
    }
    const files = open.map((f, i) => ({
      name: names[i] ?? '',
      bytes: Math.max(0, ...[...f.tensors.values()].map((t) => t.end)),
      tensors: f.tensors.size,
    }));
    refuseForeignTensors(
      dir,
      open.flatMap((f) => [...f.tensors]),
    );
    const source = new TensorSource(open, scope, map, dir);
    const experts = source.has(`${layerPrefix(0)}mlp.experts.gate_up_proj`) ? 'dense' : 'mxfp4';
    if (experts === 'mxfp4' && !fitsMxfp4(config))
      throw new CheckpointError(
        'bad_config',
        `${join(dir, 'config.json')}: hidden_size ${config.hidden_size} or intermediate_size ` +
          `${config.intermediate_size} is no multiple of 32, which MXFP4 experts need`,
        { file: join(dir, 'config.json') },
      );
    const mapped = new Map(checkpointTensors(config, experts).map((spec) => [spec.name, source.take(spec)]));
    source.finish();
    const staying = options.embed === HOST && !config.tie_word_embeddings ? new Set([EMBED]) : new Set<string>();
    const wanted = options.experts ?? 'auto',
      resident = [...mapped].reduce((sum, [name, t]) => sum + (staying.has(name) ? 0 : t.bytes), 0);
    const streams =
      backend.streamsExperts && (wanted === 'stream' || (wanted === 'auto' && resident > deviceRoom() * STREAM_SHARE));
    if (streams) for (const name of mapped.keys()) if (isExpertMatrix(name)) staying.add(name);
    if (options.readAhead && !backend.ownMemory && resident <= cacheableBytes()) for (const f of open) f.readAhead();
    const tensors = backend.ownMemory ? upload(mapped, staying, onDevice, options.onProgress) : mapped;
    const verified = new Set<number>();
    const verify = (layer: number): void => {
      if (verified.has(layer)) return;
      for (const matrix of ['gate_up', 'down']) {
        const name = `${layerPrefix(layer)}mlp.experts.${matrix}_proj_scales`,
          scales = mapped.get(name);
        if (scales?.hasContents) refuseNanScales(scales, source.pathOf(name), name);
      }
      verified.add(layer);
    };
    const model = assemble(config, experts, tensors, verify);
    if (!streams) return { dir, experts, files, tensors: mapped, ...model, close, [Symbol.dispose]: close };
    const stream = new ExpertStream(model.layers, onDevice.place),
      end = (): void => {
        stream.close();
        close();
      };
    const layers = model.layers.map(
      (layer, i): LayerWeights =>
        Object.defineProperties(
          { ...layer },
          {
            gateUp: { get: () => stream.of(i).gateUp, enumerable: true },
            down: { get: () => stream.of(i).down, enumerable: true },
          },
        ),
    );
    return {
      dir,
      experts,
      files,
      tensors: mapped,
      ...model,
      layers,
      streamsExperts: true,
      close: end,
      [Symbol.dispose]: end,
    };
  } catch (e) {
    close();
    throw e;
  }
}

/** Puts named tensors in their places. */
export function assemble(
  config: ModelConfig,
  kind: 'mxfp4' | 'dense',
  tensors: ReadonlyMap<string, Tensor>,
  verify: (layer: number) => void = () => {},
): Omit<ModelWeights, 'close'> {
  const need = (name: string): Tensor => {
    const t = tensors.get(name);
    if (!t) throw new CheckpointError('tensor_missing', `tensor ${name} is missing`, { tensor: name });
    return t;
  };
  const linear = (name: string): LinearWeights => ({
    w: need(`${name}.weight`),
    bias: tensors.get(`${name}.bias`) ?? null,
  });
  const expert = (name: string): ExpertWeights =>
    kind === 'dense'
      ? { w: need(name), scales: null, bias: need(`${name}_bias`), layout: 2 }
      : { w: need(`${name}_blocks`), scales: need(`${name}_scales`), bias: need(`${name}_bias`), layout: 0 };
  const layers = Array.from({ length: config.num_hidden_layers }, (_, i): LayerWeights => {
    const at = layerPrefix(i);
    return {
      inputNorm: need(`${at}input_layernorm.weight`),
      q: linear(`${at}self_attn.q_proj`),
      k: linear(`${at}self_attn.k_proj`),
      v: linear(`${at}self_attn.v_proj`),
      o: linear(`${at}self_attn.o_proj`),
      sinks: need(`${at}self_attn.sinks`),
      postNorm: need(`${at}post_attention_layernorm.weight`),
      router: linear(`${at}mlp.router`),
      gateUp: expert(`${at}mlp.experts.gate_up_proj`),
      down: expert(`${at}mlp.experts.down_proj`),
      window: layerWindow(config, i),
      verify: () => verify(i),
    };
  });
  const embed = need(EMBED);
  return {
    config,
    embed,
    layers,
    norm: need('model.norm.weight'),
    head: config.tie_word_embeddings ? embed : need('lm_head.weight'),
  };
}

/**
 * SHA-256 over what defines the model: config.json and the weight files with their names, in order. A digest remembered
 * from before is taken where that is safe (base/folder-digest.ts); `fresh` reads every byte.
 * @throws {DOMException} AbortError
 */
export async function digestCheckpoint(dir: string, options: DigestOptions = {}): Promise<string> {
  const names = readdirSync(dir)
    .filter((n) => n === 'config.json' || n === INDEX || (n.endsWith('.safetensors') && n !== DENSE_CACHE))
    .sort();
  return (await digestFolder(dir, names, options)).digest;
}
