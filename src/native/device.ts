// The GPU: finding the backend library, opening a device, its memory. One device per process, opened when somebody asks
// for it.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { NativeError, TemperError } from '../base/errors.js';
import { packageRoot } from '../base/machine.js';
import { addon, type DeviceDescription } from './addon.js';
import { CATEGORIES, type Category, memoryStats, type Place, type Tensor } from './tensor.js';

export type { DeviceDescription };
/** 'cpu', 'cuda' (the machine's only GPU, or any of several alike) or 'cuda:N'. */
export type DeviceName = 'cpu' | 'cuda' | `cuda:${number}`;

/** The library that is used: TEMPER_CUDA_LIBRARY, or what `npm run build:cuda` makes. */
export const cudaLibrary = (): string =>
  process.env.TEMPER_CUDA_LIBRARY || join(packageRoot, 'build', 'temper_cuda.so');
/** A library that is named on purpose may be one that needs no driver: the tests' emulation. */
const needsDriver = (): boolean => !process.env.TEMPER_CUDA_LIBRARY;

export function parseDevice(name: string): { readonly place: Place; readonly index: number } {
  if (name === 'cpu') return { place: 'cpu', index: -1 };
  const found = /^cuda(?::(\d{1,3}))?$/.exec(name);
  if (!found) throw new NativeError('bad_device', `device "${name}", wanted cpu, cuda or cuda:N`);
  return { place: 'cuda', index: found[1] === undefined ? -1 : Number(found[1]) };
}

/**
 * Makes the device of that name ready; nothing to do for 'cpu'. Again with the same name: only the limit changes.
 * @param memoryLimit most bytes to take from the device, 0: all it has
 * @returns where tensors of this device lie
 * @throws {NativeError} no_driver, driver_too_old, cuda_library_missing, cuda_library_version, no_device, bad_device,
 * device_unsupported, device_open
 */
export function openDevice(name: string, memoryLimit = 0): Place {
  const { place, index } = parseDevice(name);
  if (place === 'cuda') addon.openDevice(cudaLibrary(), needsDriver(), index, Math.floor(memoryLimit));
  return place;
}

/** What is there, without opening anything; `problem` says what is missing and how to get it. */
export interface CudaReport {
  readonly library: string;
  readonly built: boolean;
  readonly builtFor: string | null;
  /** CUDA versions, as in "13.0". */
  readonly driver: string | null;
  readonly runtime: string | null;
  readonly devices: readonly DeviceDescription[];
  readonly problem: { readonly code: string; readonly message: string } | null;
}
const versionText = (v: number): string | null =>
  v > 0 ? `${Math.floor(v / 1000)}.${Math.floor((v % 1000) / 10)}` : null;
export function cudaReport(): CudaReport {
  const library = cudaLibrary();
  let info: ReturnType<typeof addon.backendInfo> | null = null,
    devices: readonly DeviceDescription[] = [],
    problem: CudaReport['problem'] = null;
  try {
    info = addon.backendInfo(library, needsDriver());
    devices = addon.listDevices();
  } catch (e) {
    if (!(e instanceof TemperError)) throw e;
    problem = { code: e.code, message: e.message };
  }
  return {
    library,
    built: existsSync(library),
    builtFor: info?.builtFor ?? null,
    driver: versionText(info?.driver ?? 0),
    runtime: versionText(info?.runtime ?? 0),
    devices,
    problem,
  };
}

export interface DeviceMemory {
  readonly live: Readonly<Record<Category, number>>;
  readonly peak: Readonly<Record<Category, number>>;
  readonly totalLive: number;
  readonly totalPeak: number;
  /**
   * Bytes taken from the driver, rounding and kept blocks included: what `limit` (0: none) is about. Not counted: the
   * driver's own, about half a GiB.
   */
  readonly held: number;
  readonly heldPeak: number;
  readonly limit: number;
}
/** Bytes on the open device, now and at their peak since `resetPeaks`; zeros while none is open. */
export function deviceMemory(): DeviceMemory {
  const raw = addon.deviceMemory(),
    n = CATEGORIES.length;
  const named = (from: number): Record<Category, number> =>
    Object.fromEntries(CATEGORIES.map((c, i) => [c, raw[from + i] ?? 0])) as Record<Category, number>;
  const [totalLive = 0, totalPeak = 0, held = 0, heldPeak = 0, limit = 0] = raw.subarray(2 * n);
  return { live: named(0), peak: named(n), totalLive, totalPeak, held, heldPeak, limit };
}
/**
 * Bytes that may still be taken from the open device: of the limit, or of its memory less half a GiB for the driver.
 * Infinity while none is open.
 */
export function deviceRoom(): number {
  const { held, limit } = deviceMemory(),
    open = addon.openedDevice();
  return open < 0
    ? Infinity
    : (limit || (addon.listDevices().find((d) => d.index === open)?.memory ?? Infinity) - 2 ** 29) - held;
}
/** The highest sum of live bytes in a place since `resetPeaks`. */
export const peakBytes = (place: Place): number =>
  place === 'cuda' ? deviceMemory().totalPeak : memoryStats().totalPeak;
/** Waits for the device, if one is open. @throws {NativeError} what a kernel found wrong: bad_index, not_finite, … */
export const synchronize = (): void => addon.synchronize();
/**
 * Copies host tensor `from` to device tensor `to` beside the ops, after those called so far.
 * @returns a ticket for `arrive`
 */
export const prefetch = (to: Tensor, from: Tensor): number => addon.prefetch(to.handle, from.handle);
/** Ops called from here on find the bytes of that ticket. */
export const arrive = (ticket: number): void => addon.arrive(ticket);

/**
 * Bytes that one thing (moments, kept activations) may take of what is left of the device before it goes to the host: a
 * quarter.
 */
export const deviceShare = (): number => deviceRoom() * 0.25;
