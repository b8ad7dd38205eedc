// Attention and head in 8 bits, for serving: made from the checkpoint's weights at load, or mapped from a cache beside
// it. Half the bytes per token of what is not experts; the router, norms, embedding and experts stay as they are.
// Format and rounding: q8_quantize in native/include/temper/ops.h. What is made at load is 1.3 GB on gpt-oss-20b: it
// goes into a file without a name in the checkpoint's folder, which the system may write out, where that can be.

import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { CheckpointError, NativeError, TemperError } from '../base/errors.js';
import { writeFileAtomic } from '../base/files.js';
import { digestFolder } from '../base/folder-digest.js';
import { readHead, readInputText } from '../base/inputs.js';
import { backendOf } from '../native/backends.js';
import { ops } from '../native/ops.js';
import {
  openSafetensors,
  type SafetensorsFile,
  tensorEntry,
  type WriteEntry,
  writeSafetensors,
} from '../native/safetensors.js';
import { Scope, type Tensor } from '../native/tensor.js';
import { type Checkpoint, DENSE_CACHE, digestCheckpoint } from './checkpoint.js';
import { type LayerWeights, type LinearWeights, type ModelWeights, placeOf } from './types.js';

/** Changes when the bytes made from the same weights would be others. */
const FORMAT = 'temper q8 2';
const PROJECTIONS = ['q', 'k', 'v', 'o'] as const;

/** One matrix in 8 bits: q u8 [N, C], scales bf16 [N, C/32]. */
interface Quantized {
  readonly q: Tensor;
  readonly scales: Tensor;
}
type Source = (name: string, w: Tensor) => Quantized;

const bothShapes = (w: Tensor): readonly [readonly number[], readonly number[]] => {
  const [N = 0, C = 0] = w.shape;
  return [
    [N, C],
    [N, C / 32],
  ];
};
/** Room for one matrix after another. */
type Room = (w: Tensor) => Quantized;
const inMemory =
  (scope: Scope): Room =>
  (w) => {
    const [shape, groups] = bothShapes(w);
    return { q: scope.empty('u8', shape, 'weights'), scales: scope.empty('bf16', groups, 'weights') };
  };
/** @throws {NativeError} offload_disk_full, offload_unwritable */
function onDisk(scope: Scope, folder: string, model: ModelWeights): Room {
  // Each matrix begins at a multiple of 64 elements.
  const place = (n: number): number => Math.ceil(n / 64) * 64;
  const all = denseMatrices(model),
    sum = (of: (w: Tensor) => number): number => all.reduce((a, w) => a + place(of(w)), 0);
  const q = scope.offloaded(folder, 'u8', [sum((w) => w.numel)]),
    scales = scope.offloaded(folder, 'bf16', [sum((w) => w.numel / 32)]);
  let atQ = 0,
    atScales = 0;
  return (w) => {
    const [shape, groups] = bothShapes(w);
    const made = { q: q.view(scope, shape, atQ), scales: scales.view(scope, groups, atScales) };
    atQ += place(w.numel);
    atScales += place(w.numel / 32);
    return made;
  };
}
function quantize(room: Room, name: string, w: Tensor): Quantized {
  requireGroups(name, w);
  const made = room(w);
  ops.q8_quantize(made.q, made.scales, w);
  return made;
}
function requireGroups(name: string, w: Tensor): void {
  if ((w.shape[1] ?? 0) % 32 !== 0)
    throw new CheckpointError(
      'q8_shape',
      `${name}: [${w.shape.join(', ')}] cannot go in 8 bits, which share a scale among 32 ` +
        'inputs; serve this model in bf16',
      { tensor: name },
    );
}
const denseMatrices = (model: ModelWeights): readonly Tensor[] => [
  ...model.layers.flatMap((l) => PROJECTIONS.map((name) => l[name].w)),
  model.head,
];
/** From this many bytes on, the default is a file. */
const DISK_FROM_BYTES = 2 ** 26;

/** Where the 8-bit weights go; `folder` undefined: the folder of a large checkpoint, if it takes them, else memory. */
function roomFor(scope: Scope, model: ModelWeights, folder: string | null | undefined): Room {
  if (folder === null || backendOf(placeOf(model)).ownMemory) return inMemory(scope);
  if (folder !== undefined) return onDisk(scope, folder, model);
  const own = 'dir' in model && typeof model.dir === 'string' ? model.dir : null;
  if (own === null || denseMatrices(model).reduce((sum, w) => sum + w.numel, 0) < DISK_FROM_BYTES)
    return inMemory(scope);
  try {
    return onDisk(scope, own, model);
  } catch (e) {
    if (e instanceof NativeError && e.code.startsWith('offload_')) return inMemory(scope);
    throw e;
  }
}

/** The model with `source` asked for each matrix of attention and for the head. */
function withDense(model: ModelWeights, source: Source, close: () => void): ModelWeights {
  const layers = model.layers.map((layer, i): LayerWeights => {
    const inQ8 = (name: (typeof PROJECTIONS)[number]): LinearWeights => {
      const { q, scales } = source(`layers.${i}.${name}`, layer[name].w);
      return { w: q, scales, bias: layer[name].bias };
    };
    const q8 = { q: inQ8('q'), k: inQ8('k'), v: inQ8('v'), o: inQ8('o') };
    return Object.defineProperties(
      { ...layer, ...q8 },
      model.streamsExperts ? { gateUp: { get: () => layer.gateUp }, down: { get: () => layer.down } } : {},
    );
  });
  const head = source('head', model.head);
  return {
    config: model.config,
    ...(model.streamsExperts ? { streamsExperts: true } : {}),
    embed: model.embed,
    layers,
    norm: model.norm,
    head: head.q,
    headScales: head.scales,
    close,
  };
}

/**
 * The model with attention (q, k, v, o) and head in 8 bits. Forward only: training on it is refused. `model` must stay
 * open; closing the result frees the 8-bit weights and closes it too.
 * @param options.offload folder on whose disk they lie, in a file without a name; null: memory, counted as weights;
 * absent: a large checkpoint's own folder if that
 *   can be written, else memory
 * @throws {CheckpointError} q8_shape
 * @throws {NativeError} not_finite; offload_disk_full, offload_unwritable for a folder that was given
 */
export function quantizeDense(model: ModelWeights, options: { readonly offload?: string | null } = {}): ModelWeights {
  const scope = new Scope('weights', placeOf(model));
  try {
    const room = roomFor(scope, model, options.offload);
    return withDense(
      model,
      (name, w) => quantize(room, name, w),
      () => {
        scope.close();
        model.close();
      },
    );
  } catch (e) {
    scope.close();
    throw e;
  }
}

/** What a cache is held to. */
export interface CacheDigests {
  /** Of the checkpoint: what a cache must say it was made from. */
  readonly source: string;
  /** Of the cache's bytes, where they are those that were written; null: there is none, or they are others. */
  readonly cache: string | null;
}
/** Beside the cache, as sha256sum writes it: the digest of the bytes that were written. */
const SUM_FILE = DENSE_CACHE.replace(/safetensors$/, 'sha256');
const sumLine = (digest: string): string => `${digest}  ${DENSE_CACHE}\n`;

/**
 * Digests for cachedDense; those remembered from before are taken where that is safe (base/folder-digest.ts).
 * @throws the signal's reason
 */
export async function cacheDigests(dir: string, signal?: AbortSignal): Promise<CacheDigests> {
  const options = signal ? { signal } : {};
  const source = await digestCheckpoint(dir, options);
  if (!existsSync(join(dir, DENSE_CACHE)) || !existsSync(join(dir, SUM_FILE))) return { source, cache: null };
  const { files } = await digestFolder(dir, [DENSE_CACHE], options);
  const cache = files[0]?.sha256 ?? null;
  return {
    source,
    cache: cache !== null && readInputText(join(dir, SUM_FILE), 'record') === sumLine(cache) ? cache : null,
  };
}

/**
 * As quantizeDense, through the file dense-q8.safetensors in the checkpoint's folder: mapped if it was made from just
 * these weights and has the bytes that were written, else made anew.
 * @throws {CheckpointError} q8_shape, q8_cache (the folder cannot be written), disk_full
 */
export function cachedDense(checkpoint: Checkpoint, { source, cache }: CacheDigests): ModelWeights {
  const path = join(checkpoint.dir, DENSE_CACHE);
  const opened = cache === null ? null : openCache(path, source, checkpoint);
  if (opened) return opened;
  const scope = new Scope('weights', placeOf(checkpoint));
  try {
    const entries: WriteEntry[] = [],
      room = roomFor(scope, checkpoint, undefined);
    withDense(
      checkpoint,
      (name, w) => {
        const made = quantize(room, name, w);
        entries.push(tensorEntry(`${name}.q`, made.q), tensorEntry(`${name}.scales`, made.scales));
        return made;
      },
      () => {},
    );
    writeSafetensors(path, entries, { format: FORMAT, source });
    writeFileAtomic(join(checkpoint.dir, SUM_FILE), sumLine(digestNow(path)));
  } catch (e) {
    if (e instanceof TemperError) throw e;
    throw new CheckpointError(
      'q8_cache',
      `${path}: cannot be written (${(e as Error).message}); leave the cache out, or give the folder write permission`,
      { file: path },
      { cause: e },
    );
  } finally {
    scope.close();
  }
  const written = openCache(path, source, checkpoint);
  if (!written)
    throw new CheckpointError(
      'q8_cache',
      `${path}: changed while it was being made; do other programs write there? Try again`,
      { file: path },
    );
  return written;
}

/** null: there is none, or it is of other weights, of another format, or damaged. */
function openCache(path: string, source: string, model: ModelWeights): ModelWeights | null {
  if (!existsSync(path)) return null;
  let file: SafetensorsFile;
  try {
    file = openSafetensors(path);
  } catch (e) {
    if (e instanceof CheckpointError) return null;
    throw e;
  }
  const scope = new Scope('weights'),
    onDevice = new Scope('weights', placeOf(model)),
    { ownMemory } = backendOf(onDevice.place);
  const close = (): void => {
    scope.close();
    onDevice.close();
    file.close();
  };
  const placed = (t: Tensor): Tensor => (ownMemory ? onDevice.empty(t.dtype, t.shape).copy(t) : t);
  try {
    if (file.metadata.get('format') !== FORMAT || file.metadata.get('source') !== source) {
      close();
      return null;
    }
    return withDense(
      model,
      (name, w) => {
        const [shape, groups] = bothShapes(w);
        const q = file.map(`${name}.q`, scope),
          scales = file.map(`${name}.scales`, scope);
        const fits = (t: Tensor, dtype: string, want: readonly number[]): boolean =>
          t.dtype === dtype && t.shape.join() === want.join();
        if (!fits(q, 'u8', shape) || !fits(scales, 'bf16', groups))
          throw new CheckpointError('q8_cache', `${path}: ${name} is of another shape`, { file: path, tensor: name });
        return { q: placed(q), scales: placed(scales) };
      },
      () => {
        close();
        model.close();
      },
    );
  } catch (e) {
    close();
    if (e instanceof CheckpointError) return null;
    throw e;
  }
}

/** sha256 of a file that was just written, on this thread. */
function digestNow(path: string): string {
  const hash = createHash('sha256');
  for (let at = 0; ; ) {
    const piece = readHead(path, 1 << 26, at);
    if (piece.length === 0) return hash.digest('hex');
    hash.update(piece);
    at += piece.length;
  }
}
