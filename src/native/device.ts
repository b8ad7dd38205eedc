// Devices: which one a name stands for, opening it, its memory. One device per process, opened when somebody asks for
// it.
import { existsSync, statSync } from 'node:fs';
import { NativeError, TemperError } from '../base/errors.js';
import { versions } from '../base/machine.js';
import { formatBytes } from '../base/units.js';
import { addon, type DeviceDescription } from './addon.js';
import {
  type BackendLibrary,
  backendOf,
  DEVICE_BACKENDS,
  type Device,
  describeDevice,
  hostDevice,
  type Place,
  parseDevice,
} from './backends.js';
import { addonFile, findLibrary } from './libraries.js';
import { CATEGORIES, type Category, memoryStats, type Tensor } from './tensor.js';
import { readTiles, type TileOrigin, type TileTable, tileFile, useKeptTiles } from './tiles.js';

export { type Device, type DeviceName, describeDevice } from './backends.js';
export type { DeviceDescription };

/** The library that is used: what the backend's variable names, what its command builds, or the prebuilt one. */
const libraryPath = (l: BackendLibrary): string => process.env[l.variable] || findLibrary(l.file, l.part);
/** Files of the native code that computes there. @throws as findLibrary */
export function nativeFiles(place: Place): readonly string[] {
  const { library } = backendOf(place);
  return [addonFile(), ...(library ? [libraryPath(library)] : [])];
}
/** Path, driver and how to build it. A library that is named on purpose may need no driver: the tests' emulation. */
const libraryArgs = (l: BackendLibrary): readonly [string, string, string] => [
  libraryPath(l),
  process.env[l.variable] ? '' : l.driver,
  `\`${l.build}\`, which needs ${l.needs}`,
];

const versionText = (v: number): string | null =>
  v > 0 ? `${Math.floor(v / 1000)}.${Math.floor((v % 1000) / 10)}` : null;

/** Of a device whose backend tunes its products: what a table of tiles is about. */
function tileOriginOf(library: BackendLibrary, d: DeviceDescription): TileOrigin {
  const { driver, builtFor } = addon.backendInfo(...libraryArgs(library)),
    file = statSync(libraryPath(library), { throwIfNoEntry: false }); // one that the loader found is not looked for
  return {
    card: d.name,
    capability: `${d.major}.${d.minor}`,
    multiprocessors: d.multiprocessors,
    driver: versionText(driver) ?? 'none',
    build: `${versions().temper}, for ${builtFor}, ${file?.size ?? '?'} bytes of ${Math.floor(file?.mtimeMs ?? 0)}`,
  };
}
/** The open device's; null: none is open, or its backend has no such choice. */
export function openTileOrigin(place: Place): TileOrigin | null {
  const { library, tunesProducts } = backendOf(place),
    opened = addon.openedDevice(),
    d = opened < 0 ? undefined : addon.listDevices().find(({ index }) => index === opened);
  return library && tunesProducts && d ? tileOriginOf(library, d) : null;
}

function open(place: Place, index: number, memoryLimit: number): Device {
  const { library, tunesProducts } = backendOf(place);
  if (!library) return hostDevice(null);
  const first = addon.openedDevice() < 0;
  const d = addon.openDevice(...libraryArgs(library), index, Math.floor(memoryLimit));
  if (first && tunesProducts && d?.name) useKeptTiles(tileOriginOf(library, d));
  // A dry run opens nothing and so has no description.
  return { place, name: `${place}:${d?.index ?? Math.max(0, index)}`, hardware: d?.name ?? null, reason: null };
}

/** What of an error fits in brackets: its message up to the advice. */
const brief = (e: TemperError): string => e.message.split(';')[0] ?? e.message;

/** A device that opens, of the largest memory first; the CPU when there is none. */
function openAny(memoryLimit: number): Device {
  const reasons: string[] = [];
  for (const { name, library } of DEVICE_BACKENDS) {
    try {
      addon.backendInfo(...libraryArgs(library));
      const opened = addon.openedDevice();
      const devices = [...addon.listDevices()].sort(
        (a, b) => Number(b.index === opened) - Number(a.index === opened) || b.memory - a.memory || a.index - b.index,
      );
      for (const d of devices) {
        try {
          return open(name, d.index, memoryLimit);
        } catch (e) {
          if (!(e instanceof TemperError)) throw e;
          reasons.push(brief(e));
        }
      }
    } catch (e) {
      if (!(e instanceof TemperError)) throw e;
      reasons.push(brief(e));
    }
  }
  return hostDevice(`no GPU: ${reasons.join(', ')}`);
}

/**
 * Makes the device of that name ready; nothing to do for the CPU. `auto` takes a GPU that opens, otherwise the CPU, and
 * says why. Again with the same name: only the limit changes.
 * @param memoryLimit most bytes to take from the device, 0: all it has
 * @throws {NativeError} not for `auto`: no_driver, driver_too_old, cuda_library_missing, cuda_library_version,
 * no_device, bad_device, device_unsupported, device_open; bad_memory_limit: a limit where there is no such memory
 */
export function useDevice(name: string, memoryLimit = 0): Device {
  const wanted = parseDevice(name);
  const device = wanted === 'auto' ? openAny(memoryLimit) : open(wanted.place, wanted.index, memoryLimit);
  if (memoryLimit > 0 && !backendOf(device.place).ownMemory)
    throw new NativeError(
      'bad_memory_limit',
      `the memory limit of ${formatBytes(memoryLimit)} is one of a GPU's memory, and this would compute on ` +
        `${describeDevice(device)}, which takes what it needs: leave the limit out (of a recipe: --set ` +
        'memoryLimit=null) and let temper plan say how much that is, or name a GPU with --device',
      { memoryLimit, device: device.place },
    );
  return device;
}
/** useDevice, for those who only ask where tensors lie. */
export const openDevice = (name: string, memoryLimit = 0): Place => useDevice(name, memoryLimit).place;

/**
 * Opens the device and loads onto it. Where `auto` took a GPU that has too little memory left for what is loaded, it is
 * loaded on the CPU.
 * @param load must leave nothing behind when it throws
 */
export function loadOnDevice<T>(name: string, memoryLimit: number, load: (device: Device) => T): T {
  const device = useDevice(name, memoryLimit);
  try {
    return load(device);
  } catch (e) {
    const tooSmall = e instanceof NativeError && e.code === 'out_of_device_memory';
    if (!tooSmall || parseDevice(name) !== 'auto') throw e;
    return load(hostDevice(`no GPU: ${describeDevice(device)} has too little memory: ${brief(e)}`));
  }
}

/** What there is of a backend, without opening anything; `problem` says what is missing and how to get it. */
export interface BackendReport {
  readonly backend: Place;
  readonly library: string;
  readonly built: boolean;
  readonly builtFor: string | null;
  /** The command that builds it, and what that needs. */
  readonly build: string;
  readonly needs: string;
  /** Versions, as in "13.0". */
  readonly driver: string | null;
  readonly runtime: string | null;
  readonly devices: readonly DeviceDescription[];
  /** Of each device whose products may be cut in several ways: what was measured and is kept. */
  readonly tiles: readonly TileReport[];
  readonly problem: { readonly code: string; readonly message: string } | null;
}
export interface TileReport {
  /** Of the device. */
  readonly index: number;
  /** Null: nothing is kept, as the cache is turned off. */
  readonly file: string | null;
  readonly table: TileTable | null;
  readonly problem: { readonly code: string; readonly message: string } | null;
}
function tileReport(library: BackendLibrary, d: DeviceDescription): TileReport {
  const origin = tileOriginOf(library, d),
    report = { index: d.index, file: tileFile(origin), table: null, problem: null };
  try {
    return { ...report, table: readTiles(origin) };
  } catch (e) {
    if (!(e instanceof TemperError)) throw e;
    return { ...report, problem: { code: e.code, message: e.message } };
  }
}
function report({ name, library, tunesProducts }: (typeof DEVICE_BACKENDS)[number]): BackendReport {
  let path: string = library.file;
  let info: ReturnType<typeof addon.backendInfo> | null = null,
    devices: readonly DeviceDescription[] = [],
    tiles: readonly TileReport[] = [],
    problem: BackendReport['problem'] = null;
  try {
    path = libraryPath(library); // a package of another version is refused here
    info = addon.backendInfo(...libraryArgs(library));
    devices = addon.listDevices();
    if (tunesProducts) tiles = devices.map((d) => tileReport(library, d));
  } catch (e) {
    if (!(e instanceof TemperError)) throw e;
    problem = { code: e.code, message: e.message };
  }
  return {
    backend: name,
    library: path,
    built: existsSync(path),
    builtFor: info?.builtFor ?? null,
    build: library.build,
    needs: library.needs,
    driver: versionText(info?.driver ?? 0),
    runtime: versionText(info?.runtime ?? 0),
    devices,
    tiles,
    problem,
  };
}
/** One report for each backend with a library of its own. */
export const backendReports = (): BackendReport[] => DEVICE_BACKENDS.map(report);

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
/** Of a device that is open: all that may be taken of it, by whomever. Infinity while none is open. */
export const deviceLimit = (): number => Math.floor(deviceRoom() + deviceMemory().held);
/** The highest sum of live bytes in a place since `resetPeaks`. */
export const peakBytes = (place: Place): number =>
  backendOf(place).ownMemory ? deviceMemory().totalPeak : memoryStats().totalPeak;
/** What the kernels of a place are called: the backend's name, the instruction set on the host. */
export const kernelsOf = (place: Place): string => (backendOf(place).library ? place : addon.cpuInfo().isa);
/** Waits for the device, if one is open. @throws {NativeError} what a kernel found wrong: bad_index, not_finite, … */
export const synchronize = (): void => addon.synchronize();
/**
 * Copies host tensor `from` to device tensor `to` beside the ops, after those called so far.
 * @returns a ticket for `arrive`
 */
export const prefetch = (to: Tensor, from: Tensor): number => addon.prefetch(to.handle, from.handle);
/**
 * Copies device tensor `from`, as the ops called so far leave it, to host tensor `to` beside the ops. None may write
 * `from` before the ticket's `arrive`.
 */
export const evict = (to: Tensor, from: Tensor): number => addon.evict(to.handle, from.handle);
/** Ops called from here on find the bytes of that ticket, and so does the host. */
export const arrive = (ticket: number): void => addon.arrive(ticket);

/** Copies beside the ops. */
export interface Transfers {
  readonly bytes: number;
  /**
   * Of the time that they took, percent in which ops did not wait for them. NaN: there were none. What ops wait is
   * counted as the device sees it: a host that waits while the device has work costs nothing.
   */
  readonly hiddenPercent: number;
}
/** Those that are over, since the last call. */
export function takeTransfers(): Transfers {
  const [up = 0, down = 0, copying = 0, waiting = 0] = addon.takeTransfers();
  return { bytes: up + down, hiddenPercent: 100 * Math.max(0, 1 - waiting / copying) };
}
