// The backends there are, as data. Code above asks what a backend can do, never which one it is: a new one is an entry
// here and a library that fills native/include/temper/backend.h. Loads nothing, so that a recipe can be read without.
import { NativeError } from '../base/errors.js';

/** A backend's library, loaded when one of its devices is asked for. */
export interface BackendLibrary {
  /** In build/, or in the prebuilt package whose name ends in `-part`. */
  readonly file: string;
  readonly part: string;
  /** The driver's library, as the system's loader finds it. */
  readonly driver: string;
  /** Environment variable that names another one. What is named on purpose may need no driver: the tests' emulation. */
  readonly variable: string;
  /** The command that makes it, and what that needs. */
  readonly build: string;
  readonly needs: string;
}

export interface Backend {
  /** What recipes and --device call it, and where its tensors are said to lie. */
  readonly name: string;
  /** Null: it is in the addon, runs on this machine's processor and in its memory. */
  readonly library: BackendLibrary | null;
  /**
   * Memory apart from the host's: weights are copied there, and what does not fit goes to the host. Without it weights
   * lie where their files are mapped, and what does not fit goes to disk.
   */
  readonly ownMemory: boolean;
  /** Ops return before they are done: a clock must wait for the device. */
  readonly asynchronous: boolean;
  /** Experts may come layer by layer, the next while one computes (`prefetch`, `arrive`). */
  readonly streamsExperts: boolean;
  /** Steps can be recorded and launched whole. */
  readonly recordsSteps: boolean;
  /** Recordings of one session may use the same memory. */
  readonly sharesRecordings: boolean;
  /** Most rows of a pass `byRow` of which each has the bits that it has alone; null: any. */
  readonly rowsAlone: number | null;
  /**
   * A small op costs its launch whatever it does: few rows take those that are several in one
   * (native/include/temper/composed.h).
   */
  readonly joinsOps: boolean;
  /**
   * Activations that only products read are stored in bf16 where these round them anyway: half the bytes, no copy, the
   * same bits.
   */
  readonly storesRounded: boolean;
  /**
   * Rows that an expert gets on average in a chunk, as fewer fill its tiles badly and more cost memory; null: as many
   * as MOE_CHUNK_TOKENS gives.
   */
  readonly expertRows: number | null;
  /**
   * Its products may be cut into several tiles, of which the fastest on a card is measured (`temper doctor --tune`) and
   * kept (tiles.ts).
   */
  readonly tunesProducts: boolean;
  /** `temper plan` can time its ops on the machine that plans. */
  readonly timedByPlan: boolean;
}

export const BACKENDS = [
  {
    name: 'cpu',
    library: null,
    ownMemory: false,
    asynchronous: false,
    streamsExperts: false,
    recordsSteps: true,
    sharesRecordings: true,
    rowsAlone: null,
    joinsOps: false,
    storesRounded: false,
    expertRows: null,
    tunesProducts: false,
    timedByPlan: true,
  },
  {
    name: 'cuda',
    library: {
      file: 'temper_cuda.so',
      part: 'cuda',
      driver: 'libcuda.so.1',
      variable: 'TEMPER_CUDA_LIBRARY',
      build: 'npx temper build-native --cuda',
      needs: 'nvcc 12.8 or newer',
    },
    ownMemory: true,
    asynchronous: true,
    streamsExperts: true,
    recordsSteps: true,
    sharesRecordings: false,
    rowsAlone: 32,
    joinsOps: true,
    storesRounded: true,
    expertRows: 256, // two of its tiles of 128 rows: chunks of 2,048 tokens of 20b, 8,192 of 120b
    tunesProducts: true,
    timedByPlan: false,
  },
] as const satisfies readonly Backend[];

/** Where a tensor's memory is: the name of a backend. Ops run where their tensors lie. */
export type Place = (typeof BACKENDS)[number]['name'];
/** The host's own: what a tensor lies in unless somebody says otherwise. */
export const HOST: Place = 'cpu';

/** Backends whose devices `auto` looks for, in this order. */
export const DEVICE_BACKENDS: readonly (Backend & { readonly name: Place; readonly library: BackendLibrary })[] =
  BACKENDS.filter((b) => b.library !== null);

export function backendOf(place: Place): Backend {
  const found = BACKENDS.find((b) => b.name === place);
  if (!found) throw new NativeError('bad_device', `place "${place as string}", wanted ${names(BACKENDS)}`);
  return found;
}
/** What native code calls a place: 0 the host, 1 the open device. */
export const placeNumber = (place: Place): 0 | 1 => (backendOf(place).library ? 1 : 0);

/** 'auto': a GPU where one is usable, otherwise the CPU. A name alone: the machine's only kind of it. */
export type DeviceName = 'auto' | Place | `${Place}:${number}`;
const names = (of: readonly Backend[]): string => of.map((b) => b.name).join(', ');
/** The names there are, for messages and help: "auto, cpu, cuda or cuda:N". */
export const DEVICE_NAMES: string = ['auto', ...BACKENDS.map((b) => b.name)]
  .join(', ')
  .concat(DEVICE_BACKENDS.map((b) => ` or ${b.name}:N`).join(''));
const anyOf = (of: readonly Backend[]): string => of.map((b) => b.name).join('|');
/** What a device may be called. */
export const DEVICE_PATTERN = new RegExp(`^(?:(auto)|(${anyOf(BACKENDS)})|(${anyOf(DEVICE_BACKENDS)}):(\\d{1,3}))$`);

/** @returns index −1: the machine's only kind. @throws {NativeError} bad_device */
export function parseDevice(name: string): 'auto' | { readonly place: Place; readonly index: number } {
  const found = DEVICE_PATTERN.exec(name);
  if (!found) throw new NativeError('bad_device', `device "${name}", wanted ${DEVICE_NAMES}`);
  if (found[1]) return 'auto';
  return { place: (found[2] ?? found[3]) as Place, index: found[4] === undefined ? -1 : Number(found[4]) };
}

/** What a run computes on. Plain data: it goes into run.json and between threads. */
export interface Device {
  readonly place: Place;
  /** As --device takes it: 'cpu', 'cuda:0'. */
  readonly name: string;
  /** A GPU as its driver names it. */
  readonly hardware: string | null;
  /** Why `auto` took the CPU. */
  readonly reason: string | null;
}
/** "cuda:0 NVIDIA H100", "cpu", "cpu (no GPU: no NVIDIA driver …)". */
export const describeDevice = (d: Device): string =>
  d.hardware ? `${d.name} ${d.hardware}` : d.reason ? `${d.name} (${d.reason})` : d.name;
/** The CPU. @param reason why it and no GPU, where `auto` took it */
export const hostDevice = (reason: string | null): Device => ({ place: HOST, name: HOST, hardware: null, reason });
